; Picture transfer of CELLAR (rtcore/Catch-v0): what main() left in work RAM goes to the screen.

        .module catch_picture

        TOP    = 0xC080         ; the top line: 20 tiles
        TANK   = 0xC094         ; the tile of the tank's upper line, of its lower line
        SHADOW = 0xC0A0         ; 14 objects of 4 bytes
        SCREEN = 0x9800

        .area   _CODE

; void copy_picture(void): top line, tank and objects; about 600 of the 1140 machine cycles
; of a vertical blank.
_copy_picture::
        ld      de, #TOP
        ld      hl, #SCREEN
        .rept   20
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm

        line = 16
        .rept   2
        ld      a, (de)
        inc     e
        ld      hl, #(SCREEN + 32 * line)
        .rept   20
        ld      (hl+), a
        .endm
        line = line + 1
        .endm

        ld      de, #SHADOW
        ld      hl, #0xFE00
        .rept   56
        ld      a, (de)
        inc     e
        ld      (hl+), a
        .endm
        ret
