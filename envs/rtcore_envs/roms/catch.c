/* CELLAR: a rat runs along a leaking pipe, and under every bite a drop falls. The bucket on the floor is moved to catch it.
 *
 * The first drop caught pays 1 point, and every drop caught after it 1 more than the one before, up to 5; a drop that is
 * missed lowers what the next one pays by 2 and raises the water under the floor. The game ends when the water reaches
 * the floor, or when 256 drops have come down. RAM map and timing: README.md.
 */
#include "shared.h"

#define LEFTMOST 12u  /* of the bucket's middle, and of the rat's */
#define RIGHTMOST 148u
#define MIDDLE 80u
#define BUCKET_SPEED 2u    /* pixels a frame, while LEFT or RIGHT is held */
#define REACH 12u          /* a drop is caught so far from the bucket's middle, this far included */
#define SHORTEST_RUN 48u   /* of the rat, in pixels */
#define DROP_SPEED 2u
#define LANDING 90u        /* how far a drop falls */
#define NUM_DROPS 8u
#define HIGHEST_PAY 5u
#define MISS_COSTS 2u
#define TANK_DEPTH 32u     /* missed drops that it holds */
#define CATCHES_PER_LEVEL 32u
#define LAST_LEVEL 9u
#define FIRST_DROP 12u     /* frames after START */
#define SPLASH_FRAMES 8u

enum { TILE_PIPE = 1, TILE_LAMP_OUT = 3, TILE_LAMP_LIT, TILE_TANK_TOP = 0x60, TILE_TANK = 0x70 };
enum { TILE_RAT = 0x80, TILE_DROP = 0x88, TILE_SPLASH = 0x8A, TILE_BUCKET = 0x90 }; /* of objects: 8 by 16 pixels each */
enum { FLIPPED = 0x20, BEHIND = 0x80 };
enum { RAT = 0, BUCKET = 8, SPLASH = 20, DROPS = 24 }; /* places in objects[] */

/* The RAM map that the host reads, beside what shared.h has */
volatile uint16_t __at(0xC008) caught;
volatile uint8_t __at(0xC00E) pay;   /* what the last drop paid, less what was missed since */
volatile uint8_t __at(0xC00F) water; /* drops in the tank */
volatile uint8_t __at(0xC010) bucket;
volatile uint8_t __at(0xC011) rat;
volatile uint16_t __at(0xC012) rat_quarters; /* the same in quarters of a pixel */
volatile uint16_t __at(0xC017) goal_quarters;
volatile uint8_t __at(0xC014) drop_timer;
volatile uint8_t __at(0xC019) catches_to_level;
volatile uint16_t __at(0xC01A) missed;
volatile uint8_t __at(0xC01C) next_drop;
volatile uint8_t __at(0xC01D) splash_timer;
volatile uint8_t __at(0xC01E) splash;
volatile uint8_t __at(0xC01F) landed; /* drops, caught or not; 0 again after the last */
uint8_t __at(0xC020) drops[NUM_DROPS][2]; /* x, and how far it has fallen: 0 is no drop */
uint8_t __at(0xC080) top_line[20];
uint8_t __at(0xC094) tank_tiles[2];
uint8_t __at(0xC0A0) objects[56];

#define SCORE_DIGITS top_line
#define LAMPS (top_line + 7)
#define MESSAGE (top_line + 14)
#define LEVEL_DIGIT (top_line + 19)

/* By level: frames between two drops, and the speed of the rat in quarters of a pixel a frame. */
static const uint8_t FRAMES_PER_DROP[LAST_LEVEL + 1] = {18, 17, 16, 15, 14, 13, 12, 11, 10, 9};
static const uint8_t RAT_SPEED[LAST_LEVEL + 1] = {6, 6, 6, 6, 7, 7, 7, 7, 7, 7};

/* Row of the bucket from which on it is filled, by pay. */
static const uint8_t SURFACE[HIGHEST_PAY + 1] = {13, 11, 9, 6, 4, 1};

/* Records as in letters.c; objects use two tiles that follow each other. */
static const uint8_t pictures[] = {
    /* pipe
     *   33333333
     *   11111111
     *   22222222
     *   22222222
     *   22222222
     *   22222222
     *   22222222
     *   33333333 */
    0x01, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0xFF, 0x00, 0xFF, 0x00, 0xFF, 0x00, 0xFF, 0x00, 0xFF, 0xFF, 0xFF,
    /* lamp, out
     *   00000000
     *   00222200
     *   02000020
     *   02000020
     *   02000020
     *   02000020
     *   00222200
     *   00000000 */
    0x03, 0x00, 0x00, 0x00, 0x3C, 0x00, 0x42, 0x00, 0x42, 0x00, 0x42, 0x00, 0x42, 0x00, 0x3C, 0x00, 0x00,
    /* lamp, lit
     *   00000000
     *   00333300
     *   03333330
     *   03333330
     *   03333330
     *   03333330
     *   00333300
     *   00000000 */
    0x04, 0x00, 0x00, 0x3C, 0x3C, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x7E, 0x3C, 0x3C, 0x00, 0x00,
    /* drop, upper half
     *   00033000
     *   00033000
     *   00333300
     *   00333300
     *   03333330
     *   03333330
     *   33333333
     *   33133333 */
    0x88, 0x18, 0x18, 0x18, 0x18, 0x3C, 0x3C, 0x3C, 0x3C, 0x7E, 0x7E, 0x7E, 0x7E, 0xFF, 0xFF, 0xFF, 0xDF,
    /* drop, lower half
     *   33133333
     *   33113333
     *   33313333
     *   03333330
     *   00333300
     *   00000000
     *   00000000
     *   00000000 */
    0x89, 0xFF, 0xDF, 0xFF, 0xCF, 0xFF, 0xEF, 0x7E, 0x7E, 0x3C, 0x3C, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    /* splash, lower half
     *   00000000
     *   30000003
     *   00000000
     *   03033030
     *   00033000
     *   30333303
     *   03333330
     *   33333333 */
    0x8B, 0x00, 0x00, 0x81, 0x81, 0x00, 0x00, 0x5A, 0x5A, 0x18, 0x18, 0xBD, 0xBD, 0x7E, 0x7E, 0xFF, 0xFF,
    /* rat, rear
     *   00000000
     *   00300003
     *   03000333
     *   30003333
     *   30033333
     *   03033333
     *   00330033
     *   00000030 */
    0x80, 0x00, 0x00, 0x21, 0x21, 0x47, 0x47, 0x8F, 0x8F, 0x9F, 0x9F, 0x5F, 0x5F, 0x33, 0x33, 0x02, 0x02,
    /* rat, head
     *   00033000
     *   33333330
     *   33333130
     *   33333333
     *   33333300
     *   33333000
     *   00033000
     *   00030000 */
    0x82, 0x18, 0x18, 0xFE, 0xFE, 0xFE, 0xFA, 0xFF, 0xFF, 0xFC, 0xFC, 0xF8, 0xF8, 0x18, 0x18, 0x10, 0x10,
    /* rat, other step, rear
     *   00000000
     *   00300003
     *   03000333
     *   30003333
     *   30033333
     *   03033333
     *   00330330
     *   00000300 */
    0x84, 0x00, 0x00, 0x21, 0x21, 0x47, 0x47, 0x8F, 0x8F, 0x9F, 0x9F, 0x5F, 0x5F, 0x36, 0x36, 0x04, 0x04,
    /* rat, other step, head
     *   00033000
     *   33333330
     *   33333130
     *   33333333
     *   33333300
     *   33333000
     *   00033000
     *   00003000 */
    0x86, 0x18, 0x18, 0xFE, 0xFE, 0xFE, 0xFA, 0xFF, 0xFF, 0xFC, 0xFC, 0xF8, 0xF8, 0x18, 0x18, 0x08, 0x08,
    0x00, /* end */
};

static void show_message(const char *text) {
    uint8_t i;
    for (i = 0; i < 5; ++i)
        MESSAGE[i] = text[i];
}

static void show_pay(void) {
    uint8_t i;
    for (i = 0; i < HIGHEST_PAY; ++i)
        LAMPS[i] = i < pay ? TILE_LAMP_LIT : TILE_LAMP_OUT;
}

static void show_water(void) {
    uint8_t height = water >> 1; /* pixels */
    tank_tiles[0] = TILE_TANK_TOP + (height > 8 ? height - 8 : 0);
    tank_tiles[1] = TILE_TANK + (height > 8 ? 8 : height);
}

static void put_object(uint8_t where, uint8_t y, uint8_t x, uint8_t tile, uint8_t attributes) {
    uint8_t *object = objects + where;
    object[0] = y;
    object[1] = x;
    object[2] = tile;
    object[3] = attributes;
}

/* An object at y, x is drawn 16 lines and 8 dots further up and left. */
static void show_objects(void) {
    uint8_t tile = TILE_RAT + (rat & 8 ? 4 : 0);
    uint8_t i, fallen;
    if (rat_quarters < goal_quarters) {
        put_object(RAT, 24, rat, tile, 0);
        put_object(RAT + 4, 24, rat + 8, tile + 2, 0);
    } else {
        put_object(RAT, 24, rat, tile + 2, FLIPPED);
        put_object(RAT + 4, 24, rat + 8, tile, FLIPPED);
    }
    tile = TILE_BUCKET + 6 * pay;
    put_object(BUCKET, 128, bucket - 4, tile, 0);
    put_object(BUCKET + 4, 128, bucket + 4, tile + 2, 0);
    put_object(BUCKET + 8, 128, bucket + 12, tile + 4, 0);
    put_object(SPLASH, splash_timer ? 128 : 0, splash + 4, TILE_SPLASH, 0);
    for (i = 0; i < NUM_DROPS; ++i) {
        fallen = drops[i][1];
        put_object(DROPS + 4 * i, fallen ? fallen + 30 : 0, drops[i][0] + 4, TILE_DROP, fallen < 12 ? BEHIND : 0);
    }
}

/* At least SHORTEST_RUN away where the pipe is that long, else as far as it goes. */
static void choose_goal(void) {
    uint8_t random = next_random() >> 3;
    int16_t run = SHORTEST_RUN + (random & 63);
    int16_t goal;
    if (random & 64)
        run = -run;
    goal = rat + run;
    if (goal < (int16_t)LEFTMOST || goal > (int16_t)RIGHTMOST)
        goal = rat - run;
    if (goal < (int16_t)LEFTMOST)
        goal = LEFTMOST;
    else if (goal > (int16_t)RIGHTMOST)
        goal = RIGHTMOST;
    goal_quarters = (uint16_t)goal << 2;
}

static void move_bucket(void) {
    uint8_t sideways = held & (PAD_LEFT | PAD_RIGHT);
    if (sideways == PAD_LEFT && bucket > LEFTMOST)
        bucket -= BUCKET_SPEED;
    else if (sideways == PAD_RIGHT && bucket < RIGHTMOST)
        bucket += BUCKET_SPEED;
}

static void move_rat(void) {
    uint8_t step = RAT_SPEED[level];
    uint16_t here = rat_quarters;
    uint16_t goal = goal_quarters;
    uint8_t there = 0;
    if (here < goal) {
        here += step;
        there = here >= goal;
    } else {
        here -= step;
        there = here <= goal;
    }
    if (there)
        here = goal;
    rat_quarters = here;
    rat = here >> 2;
    if (there)
        choose_goal();
}

static void catch_drop(void) {
    ++caught;
    if (pay < HIGHEST_PAY)
        ++pay;
    else if (water != 0)
        --water;
    score += pay;
    add_to_digits(SCORE_DIGITS + 4, 5, pay);
    if (--catches_to_level == 0) {
        catches_to_level = CATCHES_PER_LEVEL;
        if (level < LAST_LEVEL) {
            ++level;
            ++*LEVEL_DIGIT;
        }
    }
}

static void miss_drop(uint8_t x) {
    ++missed;
    pay = pay > MISS_COSTS ? pay - MISS_COSTS : 0;
    splash = x;
    splash_timer = SPLASH_FRAMES;
    if (++water == TANK_DEPTH) {
        state = STATE_OVER;
        show_message("OVER ");
    }
}

static void move_drops(void) {
    uint8_t *drop = drops[0];
    uint8_t i, x, distance;
    for (i = 0; i < NUM_DROPS; ++i, drop += 2) {
        if (drop[1] == 0)
            continue;
        drop[1] += DROP_SPEED;
        if (drop[1] < LANDING)
            continue;
        drop[1] = 0;
        x = drop[0];
        distance = x < bucket ? bucket - x : x - bucket;
        if (distance <= REACH)
            catch_drop();
        else
            miss_drop(x);
        show_pay();
        show_water();
        if (++landed == 0 && state == STATE_PLAYING) {
            state = STATE_OVER;
            show_message("DONE ");
        }
    }
}

static void let_drop(void) {
    uint8_t *drop = drops[next_drop];
    next_drop = (next_drop + 1) & (NUM_DROPS - 1);
    drop[0] = rat;
    drop[1] = DROP_SPEED;
    drop_timer = FRAMES_PER_DROP[level];
}

static void play(void) {
    if (splash_timer != 0)
        --splash_timer;
    move_bucket();
    move_rat();
    move_drops();
    if (--drop_timer == 0)
        let_drop();
}

static void clear_board(void) {
    uint8_t i;
    for (i = 0; i < NUM_DROPS; ++i)
        drops[i][1] = 0;
    for (i = 0; i < 5; ++i)
        SCORE_DIGITS[i] = '0';
    *LEVEL_DIGIT = '0';
    pay = 0;
    water = 0;
    bucket = MIDDLE;
    rat = MIDDLE;
    rat_quarters = MIDDLE << 2;
    goal_quarters = MIDDLE << 2;
    splash_timer = 0;
    show_pay();
    show_water();
}

static void start_game(void) {
    uint8_t i;
    clear_board();
    score = 0;
    level = 0;
    caught = 0;
    missed = 0;
    landed = 0;
    next_drop = 0;
    catches_to_level = CATCHES_PER_LEVEL;
    drop_timer = FIRST_DROP;
    for (i = 0; i < 3; ++i)
        next_random(); /* neighbouring seeds part within a few steps */
    choose_goal();
    show_message("LEVEL");
    state = STATE_PLAYING;
}

/* Rows of a tile: low plane, high plane. Shade 3 is black, 2 the water, 1 the inside of the bucket. */
static void fill_rows(uint8_t *row, uint8_t count, uint8_t low, uint8_t high) {
    while (count-- != 0) {
        *row++ = low;
        *row++ = high;
    }
}

static void draw_tank_tiles(void) {
    uint8_t *tile = (uint8_t *)0x8000 + TILE_TANK_TOP * 16;
    uint8_t height;
    for (height = 0; height <= 8; ++height, tile += 16) {
        fill_rows(tile + 2 * (8 - height), height, 0x00, 0xFF);
        fill_rows(tile + (TILE_TANK - TILE_TANK_TOP) * 16 + 2 * (8 - height), height, 0x00, 0xFF);
        fill_rows(tile, 1, 0xFF, 0xFF); /* the floor */
    }
}

/* 24 by 16 pixels: walls of 3, a bottom of 2, and water in between. */
static void draw_bucket_tiles(void) {
    uint8_t *tile = (uint8_t *)0x8000 + TILE_BUCKET * 16;
    uint8_t filled, part, surface, wall;
    for (filled = 0; filled <= HIGHEST_PAY; ++filled) {
        surface = SURFACE[filled];
        for (part = 0; part < 3; ++part) {
            wall = part == 0 ? 0xE0 : part == 2 ? 0x07 : 0x00;
            fill_rows(tile, surface, 0xFF, wall);
            fill_rows(tile + 2 * surface, 14 - surface, wall, 0xFF);
            fill_rows(tile + 28, 2, 0xFF, 0xFF);
            tile += 32;
        }
    }
}

static void draw_scene(void) {
    uint8_t i;
    load_tiles(letters);
    load_tiles(pictures);
    draw_tank_tiles();
    draw_bucket_tiles();
    for (i = 0; i < 20; ++i) {
        *((uint8_t *)0x9840 + i) = TILE_PIPE;
        top_line[i] = ' ';
    }
}

void main(void) {
    draw_scene();
    clear_board();
    show_message("READY");
    bg_palette = 0xE4;
    object_palette = 0xE4;
    lcdc = 0x97; /* LCD, tiles at 8000, objects of 8 by 16, background */
    magic[0] = 'C';
    magic[1] = 'L';
    for (;;) {
        begin_frame();
        if (state == STATE_PLAYING)
            play();
        else if (pressed & PAD_START)
            start_game();
        show_objects();
        end_frame();
    }
}
