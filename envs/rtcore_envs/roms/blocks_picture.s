; Picture transfer of NARROWS (rtcore/Blocks-v0): what main() left in work RAM goes to the screen.

        .module blocks_picture

        BOARD  = 0xC020         ; 12 rows, stride 8, 6 used
        HUD    = 0xC0A0         ; score 5, lines 4, level 2, message 5, next 9
        SHADOW = 0xC0C0         ; 3 objects of 4 bytes
        SCREEN = 0x9800

        .area   _CODE

; void copy_picture(void): well, figures and falling piece; about 640 of the 1140 machine cycles
; of a vertical blank.
_copy_picture::
        ld      de, #BOARD
        row = 0
        .rept   12
        ld      hl, #(SCREEN + 32 * (2 + row) + 2)
        .rept   6
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        inc     e
        inc     e
        row = row + 1
        .endm

        ld      de, #HUD
        ld      hl, #(SCREEN + 32 * 4 + 11)
        .rept   5
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        ld      hl, #(SCREEN + 32 * 7 + 11)
        .rept   4
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        ld      hl, #(SCREEN + 32 * 10 + 11)
        .rept   2
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        ld      hl, #(SCREEN + 32 * 16 + 2)
        .rept   5
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        row = 0
        .rept   3
        ld      hl, #(SCREEN + 32 * (13 + row) + 11)
        .rept   3
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        row = row + 1
        .endm

        ld      de, #SHADOW
        ld      hl, #0xFE00
        .rept   12
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        ret
