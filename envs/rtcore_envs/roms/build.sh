#!/bin/sh
# Builds blocks.gb and probe.gb byte for byte the same anywhere, with sdcc 4.2.0.
# Usage: build.sh [OUTPUT_FOLDER]   (default: the folder of this script)
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=$(CDPATH='' cd -- "${1:-$here}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$here/crt0.s" "$here/blocks.c" "$here/tiles.c" "$here/probe.s" .
sdasgb -o crt0.rel crt0.s
sdcc -msm83 --std-c11 --no-std-crt0 -c blocks.c -o blocks.rel
sdcc -msm83 --std-c11 --no-std-crt0 -c tiles.c -o tiles.rel
sdcc -msm83 --no-std-crt0 --code-loc 0x0200 --data-loc 0xC200 crt0.rel blocks.rel tiles.rel -o blocks.ihx
# -yN leaves the logo bytes 0x104-0x133 at 0xFF; -Z writes both checksums.
makebin -Z -yN -yo 2 -yt 0 -yn NARROWS blocks.ihx blocks.gb
sdasgb -o probe.rel probe.s
sdldgb -i probe.ihx probe.rel
makebin -Z -yN -yo 2 -yt 0 -yn PROBE probe.ihx probe.gb
cp blocks.gb probe.gb "$out"
cd "$out"
sha256sum blocks.gb > blocks.gb.sha256
sha256sum probe.gb > probe.gb.sha256
