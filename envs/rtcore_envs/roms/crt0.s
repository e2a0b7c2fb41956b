; Start-up code, picture transfer and pad reading of NARROWS (the rom of rtcore/Blocks-v0).
;
; The order inside one frame is the contract with the host (see README.md, "Timing"):
; vertical blank -> copy picture -> wait for line 0 -> read pad -> game logic.
; Interrupts stay off; HALT only waits for the vertical blank flag.

        .module crt0
        .globl  _main

        JOYP   = 0x00
        IF     = 0x0F
        LCDC   = 0x40
        LY     = 0x44
        IE     = 0xFF

        BOARD  = 0xC020         ; 12 rows, stride 8, 6 used
        HUD    = 0xC0A0         ; score 5, lines 4, level 2, message 5, next 9
        SHADOW = 0xC0C0         ; 3 objects of 4 bytes
        SCREEN = 0x9800

        .area   _HEADER (ABS)
        .org    0x0100
        nop
        jp      start

        .org    0x0150
start:
        di
        ld      sp, #0xE000
        xor     a, a
        ldh     (IF), a
        ld      a, #0x01        ; only vertical blank may end HALT
        ldh     (IE), a
        halt                    ; the LCD may be switched off in vertical blank only
        nop
        xor     a, a
        ldh     (LCDC), a
        ld      hl, #0xC000     ; work RAM, but for the stack page
        ld      bc, #0x1F00
        call    clear
        ld      hl, #0x8000
        ld      bc, #0x2000
        call    clear
        ld      hl, #0xFE00
        ld      bc, #0x00A0
        call    clear
        call    _main           ; never returns
hang:
        jr      hang

clear:                          ; BC bytes from HL on become 0
        xor     a, a
        ld      (hl+), a
        dec     bc
        ld      a, b
        or      a, c
        jr      nz, clear
        ret

        .area   _CODE

; void wait_vblank(void): sleeps until line 144.
_wait_vblank::
        xor     a, a
        ldh     (IF), a
        halt
        nop
        ret

; void wait_line0(void): the host applies input when line 153 becomes line 0.
_wait_line0::
        ldh     a, (LY)
        or      a, a
        jr      nz, _wait_line0
        ret

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

; uint8_t read_pad(void): bit 0 A, 1 B, 2 SELECT, 3 START, 4 RIGHT, 5 LEFT, 6 UP, 7 DOWN.
_read_pad::
        ld      a, #0x20
        ldh     (JOYP), a
        ldh     a, (JOYP)
        ldh     a, (JOYP)
        cpl
        and     a, #0x0F
        swap    a
        ld      b, a
        ld      a, #0x10
        ldh     (JOYP), a
        ldh     a, (JOYP)
        ldh     a, (JOYP)
        cpl
        and     a, #0x0F
        or      a, b
        ld      b, a
        ld      a, #0x30
        ldh     (JOYP), a
        ld      a, b
        ret
