/* What our games share: the machine, the part of the RAM map that is the same in all, small helpers. */
#include <stdint.h>

#ifndef IN_SHARED
#define IN_SHARED extern volatile /* shared.c has them, all others know of them */
#endif

enum { STATE_READY, STATE_PLAYING, STATE_OVER };
enum { PAD_A = 1, PAD_B = 2, PAD_START = 8, PAD_RIGHT = 16, PAD_LEFT = 32, PAD_UP = 64, PAD_DOWN = 128 };

/* Registers */
IN_SHARED uint8_t __at(0xFF40) lcdc;
IN_SHARED uint8_t __at(0xFF44) ly;
IN_SHARED uint8_t __at(0xFF47) bg_palette;
IN_SHARED uint8_t __at(0xFF48) object_palette;

/* The RAM map that the host reads */
IN_SHARED uint8_t __at(0xC000) magic[2];
IN_SHARED uint8_t __at(0xC002) state;
IN_SHARED uint8_t __at(0xC003) level;
IN_SHARED uint16_t __at(0xC004) frame;
IN_SHARED uint16_t __at(0xC006) score;
IN_SHARED uint16_t __at(0xC00A) rng;
IN_SHARED uint8_t __at(0xC00C) held;
IN_SHARED uint8_t __at(0xC00D) pressed;
IN_SHARED uint8_t __at(0xC015) logic_line;
IN_SHARED uint8_t __at(0xC016) logic_line_max;

/* crt0.s and the game's own picture.s */
void wait_vblank(void);
void wait_line0(void);
void copy_picture(void);
uint8_t read_pad(void);

/* shared.c */
uint16_t next_random(void);
void add_to_digits(uint8_t *last, uint8_t num_digits, uint8_t amount);
void load_tiles(const uint8_t *from);
void put_text(uint8_t row, uint8_t column, const char *text);
void begin_frame(void);
void end_frame(void);

extern const uint8_t letters[];
