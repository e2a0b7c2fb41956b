; Start-up code, waiting and pad reading of our games.
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
