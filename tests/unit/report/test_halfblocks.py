"""An image drawn with characters, and the place that the live view gives it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.report.halfblocks import half_blocks
from rtcore.report.live import LiveFrame
from rtcore.spaces import ObservationSpec
from rtcore.spaces.image import WorldImage
from tests.support.made_up_runs import header_of, made_up_run

pytestmark = pytest.mark.unit

BLACK, GREY, WHITE = "#000000", "#888888", "#ffffff"
#: Two cells high: black over white, white over white, grey over black; all black below.
PIXELS = np.array([[0, 255, 0x80], [255, 255, 0], [0, 0, 0], [0, 0, 0]], np.uint8)[..., np.newaxis]


def in_terminal(image: object, width: int = 80, height: int = 24, encoding: str = "utf-8", **settings: object) -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    settings = {"color_system": "truecolor", "_environ": {"TERM": "xterm"}} | settings
    console = Console(file=out, force_terminal=True, width=width, height=height, **settings)
    stats, record = made_up_run()
    console.print(LiveFrame(stats, record, header_of(stats), image=image))
    out.flush()
    return raw.getvalue().decode(encoding)


def test_a_cell_is_two_pixels_one_above_the_other():
    first, second = half_blocks(PIXELS, 3, 2, colours=True)
    assert first == [("▀", f"{BLACK} on {WHITE}"), (" ", f"on {WHITE}"), ("▀", f"{GREY} on {BLACK}")]
    assert second == [("   ", f"on {BLACK}")]


def test_colours_are_those_of_the_image():
    red_over_blue = np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8)
    assert half_blocks(red_over_blue, 1, 1, colours=True) == [[("▀", "#ff0000 on #0000ff")]]


def test_without_colours_a_cell_is_a_shade():
    assert half_blocks(PIXELS, 3, 2, colours=False) == [[("▒█░", "")], [("   ", "")]]


@pytest.mark.parametrize(
    ("shape", "room", "cells"),
    [
        ((84, 84), (36, 18), (36, 18)),
        ((84, 84), (36, 10), (20, 10)),
        ((210, 160), (48, 40), (48, 32)),
        ((4, 3), (10, 9), (9, 6)),
        ((84, 84), (200, 100), (168, 84)),
        ((21, 21), (21, 30), (21, 11)),
    ],
)
def test_an_image_keeps_its_proportions_in_the_room_there_is(shape, room, cells):
    lines = half_blocks(np.zeros((*shape, 1), np.uint8), *room, colours=True)
    assert (sum(len(text) for text, _ in lines[0]), len(lines)) == cells
    assert len({sum(len(text) for text, _ in line) for line in lines}) == 1


def test_the_live_view_shows_the_world_beside_its_facts():
    image = np.full((84, 84, 1), 255, np.uint8)
    shown, without = in_terminal(image), in_terminal(None)
    assert "48;2;255;255;255m" in shown
    assert "48;2;" not in without
    for text in ("Toy-v0", "acted 100%", "points", "w00"):
        assert text in shown


def test_without_colours_the_live_view_shows_shades():
    shown = in_terminal(np.full((84, 84, 1), 255, np.uint8), no_color=True)
    assert "█" * 32 in shown
    assert "48;2;" not in shown


@pytest.mark.parametrize("terminal", [{"width": 59}, {"height": 8}, {"encoding": "ascii"}], ids=str)
def test_where_the_world_cannot_be_drawn_there_is_all_the_rest(terminal: dict):
    shown = in_terminal(np.full((84, 84, 1), 255, np.uint8), **terminal)
    assert "48;2;" not in shown
    assert "Toy-v0" in shown


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (200, 60)])
def test_nothing_is_wider_or_higher_than_the_terminal(width: int, height: int):
    lines = in_terminal(np.zeros((84, 84, 1), np.uint8), width, height, no_color=True).splitlines()
    plain = [Console().render_str(line).plain for line in lines]
    assert len(lines) <= height
    assert max(len(line.replace("\x1b[0m", "").replace("\x1b[1m", "")) for line in plain) <= width


def ring_with(values: list[int]) -> FrameRing:
    spec = ObservationSpec((8, 8), "uint8", (0,), (255,))
    ring = FrameRing.private(spec, 8, 4)
    for value in values:
        ring.publish(np.full((8, 8), value, np.uint8), FrameHeader(ring.next_seq), bytes(8))
    return ring


def test_the_newest_frame_is_seen_and_no_reader_counts_as_lapped():
    ring = ring_with([1, 2, 3, 4, 5, 6])
    see = WorldImage(ObservationSpec((8, 8), "uint8", (0,), (255,)), ring.newest_frame)
    assert np.array_equal(see(), np.full((8, 8, 1), 6))
    assert ring.lapped_reads == 0


def test_a_frame_that_was_lapped_while_it_was_copied_is_not_shown():
    ring = ring_with([1, 2])
    see = WorldImage(ObservationSpec((8, 8), "uint8", (0,), (255,)), ring.newest_frame)
    before = see()
    ring.sequence.begin(ring.next_seq + 3)  # the writer comes round to the frame that is read
    assert ring.newest_frame() is None
    assert see() is before
    assert ring.lapped_reads == 0


def test_before_the_first_frame_and_without_an_image_nothing_is_seen():
    image, vector = ObservationSpec((8, 8), "uint8", (0,), (255,)), ObservationSpec((4,), "float32", (0.0,), (1.0,))
    assert WorldImage(image, ring_with([]).newest_frame)() is None
    assert WorldImage(vector, FrameRing.private(vector, 8, 4).newest_frame)() is None


def test_who_mapped_the_ring_before_the_world_was_known_sees_the_same():
    as_bytes = np.arange(64, dtype=np.uint8)
    see = WorldImage(ObservationSpec((8, 8), "uint8", (0,), (255,)), lambda: as_bytes)
    assert np.array_equal(see()[..., 0], as_bytes.reshape(8, 8))
