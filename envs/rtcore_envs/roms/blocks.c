/* NARROWS: rubble falls into a shaft 6 columns wide and 12 rows high.
 *
 * A piece is rigid while it falls. Where it touches ground it breaks: every cell drops on
 * its own to the ground of its column. A row with all 6 cells is carried off, the rows above
 * move down; the first row carried off by one piece is worth 1 point, the second 2, the third 3.
 * The game ends when a new piece does not fit. RAM map and timing: README.md.
 */
#include "shared.h"

#define WIDTH 6u
#define HEIGHT 12u
#define STRIDE 8u

enum { PHASE_FALL, PHASE_BREAK, PHASE_CLEAR };
enum { TILE_EMPTY, TILE_GROUND, TILE_PIECE, TILE_WALL, TILE_BLANK = 0x20 };

#define SPAWN_POSITION 2u /* row 0, column 2 */
#define LINES_PER_LEVEL 8u
#define LAST_EARNED_LEVEL 15u /* lines lead no further: the levels above it are for games that begin there */
#define LAST_LEVEL 17u
#define REPEAT_FIRST 10u /* frames from a press of LEFT or RIGHT to its first repeat */
#define REPEAT_NEXT 4u   /* frames between repeats */
#define SOFT_DROP 2u     /* frames per row while DOWN is held */
#define HANG_FRAMES 12u  /* a new piece hangs in the mouth: it can be steered, but not dropped */

/* The RAM map that the host reads, beside what shared.h has */
volatile uint16_t __at(0xC008) lines;
volatile uint8_t __at(0xC00E) piece;
volatile uint8_t __at(0xC00F) turn;
volatile uint8_t __at(0xC010) position; /* row * 8 + column, signed column: a cell left of 0 is a wall */
volatile uint8_t __at(0xC011) phase;
volatile uint16_t __at(0xC012) pieces;
volatile uint8_t __at(0xC014) next_piece;
volatile uint8_t __at(0xC017) fall_timer;
volatile uint8_t __at(0xC018) repeat_timer;
volatile uint8_t __at(0xC019) combo;
volatile uint8_t __at(0xC01A) lines_to_level;
volatile uint8_t __at(0xC01B) hang_timer;
uint8_t __at(0xC01E) walls_before[2];
uint8_t __at(0xC020) board[HEIGHT * STRIDE]; /* columns 6 and 7 are walls */
uint8_t __at(0xC080) walls_below[3 * STRIDE];
uint8_t __at(0xC0A0) score_digits[5];
uint8_t __at(0xC0A5) lines_digits[4];
uint8_t __at(0xC0A9) level_digits[2];
uint8_t __at(0xC0AB) message[5];
uint8_t __at(0xC0B0) preview[9];
uint8_t __at(0xC0C0) objects[12];

/* Records as in letters.c */
static const uint8_t stones[] = {
    /* ground
     *   22222222
     *   23333332
     *   23333332
     *   23333332
     *   23333332
     *   23333332
     *   23333332
     *   22222222 */
    0x01, 0x00, 0xFF, 0x7E, 0xFF, 0x7E, 0xFF, 0x7E, 0xFF, 0x7E, 0xFF, 0x7E, 0xFF, 0x7E, 0xFF, 0x00, 0xFF,
    /* piece
     *   22222222
     *   21111112
     *   21111112
     *   21111112
     *   21111112
     *   21111112
     *   21111112
     *   22222222 */
    0x02, 0x00, 0xFF, 0x7E, 0x81, 0x7E, 0x81, 0x7E, 0x81, 0x7E, 0x81, 0x7E, 0x81, 0x7E, 0x81, 0x00, 0xFF,
    /* wall
     *   12121212
     *   21212121
     *   12121212
     *   21212121
     *   12121212
     *   21212121
     *   12121212
     *   21212121 */
    0x03, 0xAA, 0x55, 0x55, 0xAA, 0xAA, 0x55, 0x55, 0xAA, 0xAA, 0x55, 0x55, 0xAA, 0xAA, 0x55, 0x55, 0xAA,
    0x00, /* end */
};

/* Cells of each piece and turn, as row * 8 + column; lower rows first, so that cells of one column
 * break in the right order. A repeated cell stands for "no further cell". */
static const uint8_t SHAPES[6][4][3] = {
    {{0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}},       /* grain */
    {{0, 1, 1}, {8, 0, 0}, {0, 1, 1}, {8, 0, 0}},       /* pair */
    {{0, 1, 2}, {16, 8, 0}, {0, 1, 2}, {16, 8, 0}},     /* bar */
    {{8, 9, 0}, {8, 0, 1}, {9, 0, 1}, {8, 9, 1}},       /* corner */
    {{9, 0, 0}, {8, 1, 1}, {9, 0, 0}, {8, 1, 1}},       /* slant */
    {{0, 2, 2}, {16, 0, 0}, {0, 2, 2}, {16, 0, 0}},     /* gate */
};
static const uint8_t CELLS[6] = {1, 2, 3, 3, 2, 2};
static const uint8_t DEAL[8] = {0, 1, 2, 3, 4, 5, 1, 3};
static const uint8_t FRAMES_PER_ROW[LAST_LEVEL + 1] = {24, 22, 20, 18, 16, 14, 12, 11, 10,
                                                           9,  8,  7,  6,  5,  4,  4,  3,  2};

static uint8_t deal(void) {
    return DEAL[(uint8_t)(next_random() >> 3) & 7];
}

static uint8_t fits(uint8_t where, uint8_t how) {
    const uint8_t *cell = SHAPES[piece][how];
    const uint8_t *at = board + (int8_t)where;
    return !(at[cell[0]] | at[cell[1]] | at[cell[2]]);
}

static void show_message(const char *text) {
    uint8_t i;
    for (i = 0; i < 5; ++i)
        message[i] = text[i];
}

static void show_preview(void) {
    const uint8_t *cell = SHAPES[next_piece][0];
    uint8_t i;
    for (i = 0; i < 9; ++i)
        preview[i] = TILE_EMPTY;
    for (i = 0; i < 3; ++i) {
        uint8_t at = cell[i];
        preview[at < 8 ? at : at - 5] = TILE_PIECE;
    }
}

/* The falling piece is made of objects; row 0 of the well is at line 16, column 0 at dot 16. */
static void show_piece(void) {
    const uint8_t *cell = SHAPES[piece][turn];
    uint8_t *object = objects;
    uint8_t count = (state == STATE_PLAYING && phase == PHASE_FALL) || state == STATE_OVER ? CELLS[piece] : 0;
    uint8_t i, at;
    for (i = 0; i < 3; ++i) {
        at = position + cell[i];
        object[0] = i < count ? (uint8_t)((at & 0xF8) + 32) : 0;
        object[1] = (uint8_t)((at & 7) << 3) + 24;
        object[2] = TILE_PIECE;
        object += 4;
    }
}

static void spawn(void) {
    piece = next_piece;
    next_piece = deal();
    turn = 0;
    position = SPAWN_POSITION;
    fall_timer = FRAMES_PER_ROW[level];
    hang_timer = HANG_FRAMES;
    phase = PHASE_FALL;
    show_preview();
    if (!fits(position, turn)) {
        state = STATE_OVER;
        show_message("OVER ");
    }
}

static void start_game(void) {
    uint8_t i;
    for (i = 0; i < HEIGHT * STRIDE; ++i)
        board[i] = (i & 7) < WIDTH ? TILE_EMPTY : TILE_WALL;
    for (i = 0; i < 11; ++i)
        score_digits[i] = '0'; /* score, lines and level lie side by side */
    score = 0;
    lines = 0;
    level = 0;
    pieces = 0;
    lines_to_level = LINES_PER_LEVEL;
    state = STATE_PLAYING;
    show_message("     ");
    for (i = 0; i < 4; ++i)
        next_piece = deal(); /* neighbouring seeds part within a few steps */
    spawn();
}

static void try_turn(uint8_t how) {
    uint8_t nudge;
    for (nudge = 0; nudge < 3; ++nudge) {
        if (fits(position - nudge, how)) {
            position -= nudge;
            turn = how;
            return;
        }
    }
}

static void try_shift(uint8_t step) {
    if (fits(position + step, turn))
        position += step;
}

static void steer(void) {
    uint8_t sideways = held & (PAD_LEFT | PAD_RIGHT);
    if (pressed & PAD_A)
        try_turn((turn + 1) & 3);
    if (pressed & PAD_UP)
        try_turn((turn - 1) & 3);
    if (pressed & (PAD_LEFT | PAD_RIGHT))
        repeat_timer = REPEAT_FIRST;
    else if (sideways && --repeat_timer == 0)
        repeat_timer = REPEAT_NEXT;
    else
        return;
    if (sideways == PAD_LEFT)
        try_shift(0xFF);
    else if (sideways == PAD_RIGHT)
        try_shift(1);
}

static void fall(void) {
    steer();
    if (hang_timer != 0) {
        --hang_timer;
        return;
    }
    if (pressed & PAD_B) {
        while (fits(position + STRIDE, turn))
            position += STRIDE;
        phase = PHASE_BREAK;
        return;
    }
    if ((held & PAD_DOWN) && fall_timer > SOFT_DROP)
        fall_timer = SOFT_DROP;
    if (--fall_timer != 0)
        return;
    fall_timer = FRAMES_PER_ROW[level];
    if (fits(position + STRIDE, turn))
        position += STRIDE;
    else
        phase = PHASE_BREAK;
}

static void break_piece(void) {
    const uint8_t *cell = SHAPES[piece][turn];
    uint8_t count = CELLS[piece];
    uint8_t i, at;
    for (i = 0; i < count; ++i) {
        at = position + cell[i];
        while (board[at + STRIDE] == TILE_EMPTY)
            at += STRIDE;
        board[at] = TILE_GROUND;
    }
    ++pieces;
    combo = 0;
    phase = PHASE_CLEAR;
}

static void count_line(void) {
    ++combo;
    score += combo;
    ++lines;
    add_to_digits(score_digits + 4, 5, combo);
    add_to_digits(lines_digits + 3, 4, 1);
    if (--lines_to_level == 0) {
        lines_to_level = LINES_PER_LEVEL;
        if (level != LAST_EARNED_LEVEL && level != LAST_LEVEL) {
            ++level;
            add_to_digits(level_digits + 1, 2, 1);
        }
    }
}

/* One row a frame, the lowest first. */
static void clear_line(void) {
    uint8_t at = HEIGHT * STRIDE;
    uint8_t *row;
    do {
        at -= STRIDE;
        row = board + at;
        if (row[0] && row[1] && row[2] && row[3] && row[4] && row[5]) {
            for (; at != 0; --at, --row)
                row[STRIDE - 1] = row[-1];
            for (at = 0; at < WIDTH; ++at)
                board[at] = TILE_EMPTY;
            count_line();
            return;
        }
    } while (at != 0);
    spawn();
}

static void play(void) {
    if (phase == PHASE_FALL)
        fall();
    else if (phase == PHASE_BREAK)
        break_piece();
    else
        clear_line();
}

static void draw_scene(void) {
    uint8_t i;
    load_tiles(letters);
    load_tiles(stones);
    for (i = 2; i < 15; ++i) {
        *((uint8_t *)0x9801 + (uint16_t)i * 32) = TILE_WALL;
        *((uint8_t *)0x9808 + (uint16_t)i * 32) = TILE_WALL;
    }
    for (i = 2; i < 8; ++i)
        *((uint8_t *)0x9800 + 14 * 32 + i) = TILE_WALL;
    put_text(1, 11, "NARROWS");
    put_text(3, 11, "SCORE");
    put_text(6, 11, "LINES");
    put_text(9, 11, "LEVEL");
    put_text(12, 11, "NEXT");
}

void main(void) {
    uint8_t i;
    draw_scene();
    walls_before[0] = walls_before[1] = TILE_WALL;
    for (i = 0; i < 3 * STRIDE; ++i)
        walls_below[i] = TILE_WALL;
    for (i = 0; i < 11; ++i)
        score_digits[i] = '0';
    show_message("READY");
    bg_palette = 0xE4;
    object_palette = 0xE4;
    lcdc = 0x93; /* LCD, tiles at 8000, objects, background */
    magic[0] = 'N';
    magic[1] = 'W';
    for (;;) {
        begin_frame();
        if (state == STATE_PLAYING)
            play();
        else if (pressed & PAD_START)
            start_game();
        show_piece();
        end_frame();
    }
}
