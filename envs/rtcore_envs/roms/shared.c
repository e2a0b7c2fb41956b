/* What our games share. */
#define IN_SHARED volatile
#include "shared.h"

/* xorshift with the triple (7, 9, 8), period 65535 (Marsaglia 2003; 16-bit triple by exhaustive search). */
uint16_t next_random(void) {
    uint16_t x = rng;
    if (x == 0)
        x = 0xACE1;
    x ^= x << 7;
    x ^= x >> 9;
    x ^= x << 8;
    rng = x;
    return x;
}

void add_to_digits(uint8_t *last, uint8_t num_digits, uint8_t amount) {
    *last += amount;
    while (*last > '9') {
        *last -= 10;
        if (--num_digits == 0)
            return;
        --last;
        ++*last;
    }
}

/* Records: tile number, then 16 bytes; number 0 ends. */
void load_tiles(const uint8_t *from) {
    uint8_t *to;
    uint8_t i;
    while (*from != 0) {
        to = (uint8_t *)0x8000 + (uint16_t)*from++ * 16;
        for (i = 0; i < 16; ++i)
            *to++ = *from++;
    }
}

void put_text(uint8_t row, uint8_t column, const char *text) {
    uint8_t *at = (uint8_t *)0x9800 + (uint16_t)row * 32 + column;
    while (*text)
        *at++ = *text++;
}

void begin_frame(void) {
    uint8_t pad;
    wait_vblank();
    copy_picture();
    wait_line0();
    pad = read_pad();
    pressed = pad & ~held;
    held = pad;
    ++frame;
}

void end_frame(void) {
    logic_line = ly;
    if (logic_line > logic_line_max)
        logic_line_max = logic_line;
}
