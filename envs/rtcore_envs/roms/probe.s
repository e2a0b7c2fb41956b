; PROBE: a Game Boy program without a game, for tests of worlds (rtcore_envs/probe.py, README.md).
;
; Every frame it reads the pad into FF81 and counts in FF82/FF83, and that is all: work RAM and high RAM above FF83
; keep what the host writes there. The byte at 0x0160 of the file chooses more:
;   0 still    nothing else
;   1 menus    START leads through FFE1 = 24, 07, 0E, 11, 0A to a game (FFE1 = 0), which begins 6 frames later; the
;              screen is blank for 10
;   2 stuck    as menus, but START at 11 leads back to 07, so that no game ever begins
; In menus FF85 keeps the divider at the last START, and FF86 counts the blank frames down, from 10.

        .module probe

        JOYP   = 0x00
        DIV    = 0x04
        IF     = 0x0F
        LCDC   = 0x40
        LY     = 0x44
        BGP    = 0x47
        IE     = 0xFF

        EDGE   = 0x80           ; keys newly pressed
        HELD   = 0x81           ; bit 0 A, 1 B, 2 SELECT, 3 START, 4 RIGHT, 5 LEFT, 6 UP, 7 DOWN
        COUNT  = 0x82           ; frames, little endian
        LUCK   = 0x85
        WAIT   = 0x86
        STATE  = 0xE1

        .area   _HEADER (ABS)
        .org    0x0100
        nop
        jp      start

        .org    0x0160
mode:   .db     0

        .org    0x0170
start:
        di
        ld      sp, #0xFFFE     ; nothing is pushed but return addresses: FFFC, FFFD
        xor     a, a
        ldh     (IF), a
        ld      a, #0x01        ; only vertical blank may end HALT
        ldh     (IE), a
        halt                    ; the LCD may be switched off in vertical blank only
        nop
        xor     a, a
        ldh     (LCDC), a
        ldh     (EDGE), a
        ldh     (HELD), a
        ldh     (COUNT), a
        ldh     (COUNT + 1), a
        ld      hl, #0x8000     ; tile 0: stripes; the whole map shows it
        ld      b, #8
stripe:
        ld      a, #0xFF
        ld      (hl+), a
        xor     a, a
        ld      (hl+), a
        ld      (hl+), a
        ld      (hl+), a
        dec     b
        jr      nz, stripe
        ld      hl, #0x9800
        ld      bc, #0x0800
clear:                          ; both maps
        xor     a, a
        ld      (hl+), a
        dec     bc
        ld      a, b
        or      a, c
        jr      nz, clear
        ld      a, #0xE4
        ldh     (BGP), a
        ld      a, (mode)
        or      a, a
        jr      z, begin
        ld      a, #0x24
        ldh     (STATE), a
        xor     a, a
        ldh     (WAIT), a
begin:
        ld      a, #0x91        ; LCD and background on, tiles from 8000
        ldh     (LCDC), a

frame:
        xor     a, a
        ldh     (IF), a
        halt
        nop
line0:                          ; the host applies input when line 153 becomes line 0
        ldh     a, (LY)
        or      a, a
        jr      nz, line0
        call    read_pad
        ld      hl, #(0xFF00 + COUNT)
        inc     (hl)
        jr      nz, counted
        inc     hl
        inc     (hl)
counted:
        ld      a, (mode)
        or      a, a
        call    nz, menus
        jr      frame

read_pad:
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
        ldh     a, (HELD)
        cpl
        and     a, b
        ldh     (EDGE), a
        ld      a, b
        ldh     (HELD), a
        ret

menus:
        ldh     a, (WAIT)
        or      a, a
        jr      nz, waiting
        ldh     a, (EDGE)
        and     a, #0x08
        ret     z
        ldh     a, (DIV)
        ldh     (LUCK), a
        ldh     a, (STATE)
        ld      b, #0x07
        cp      a, #0x24
        jr      z, next
        ld      b, #0x0E
        cp      a, #0x07
        jr      z, next
        ld      b, #0x11
        cp      a, #0x0E
        jr      z, next
        cp      a, #0x11
        ret     nz              ; in a game START does nothing
        ld      b, #0x07
        ld      a, (mode)
        cp      a, #2
        jr      z, next
        xor     a, a            ; blank
        ldh     (BGP), a
        ld      a, #10
        ldh     (WAIT), a
        ld      b, #0x0A
next:
        ld      a, b
        ldh     (STATE), a
        ret

waiting:
        dec     a
        ldh     (WAIT), a
        jr      z, show
        cp      a, #4
        ret     nz
        xor     a, a            ; the game begins, unseen
        ldh     (STATE), a
        ret
show:
        ld      a, #0x1B        ; the same stripes in other greys
        ldh     (BGP), a
        ret
