#!/bin/sh
# Builds blocks.gb, catch.gb and probe.gb byte for byte the same anywhere, with sdcc 4.2.0.
# Usage: build.sh [OUTPUT_FOLDER]   (default: the folder of this script)
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=$(CDPATH='' cd -- "${1:-$here}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$here"/*.s "$here"/*.c "$here"/*.h .

# -yN leaves the logo bytes 0x104-0x133 at 0xFF; -Z writes both checksums.
pack() { # PROGRAM TITLE
    makebin -Z -yN -yo 2 -yt 0 -yn "$2" "$1.ihx" "$1.gb"
    cp "$1.gb" "$out"
    (cd "$out" && sha256sum "$1.gb" > "$1.gb.sha256")
}

game() { # PROGRAM TITLE
    sdasgb -o "$1_picture.rel" "$1_picture.s"
    sdcc -msm83 --std-c11 --no-std-crt0 -c "$1.c" -o "$1.rel"
    sdcc -msm83 --no-std-crt0 --code-loc 0x0200 --data-loc 0xC200 \
        crt0.rel "$1_picture.rel" "$1.rel" shared.rel letters.rel -o "$1.ihx"
    pack "$1" "$2"
}

sdasgb -o crt0.rel crt0.s
for part in shared letters; do
    sdcc -msm83 --std-c11 --no-std-crt0 -c "$part.c" -o "$part.rel"
done
game blocks NARROWS
game catch CELLAR
sdasgb -o probe.rel probe.s
sdldgb -i probe.ihx probe.rel
pack probe PROBE
