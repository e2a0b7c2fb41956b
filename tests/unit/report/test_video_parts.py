"""What a video shows of an observation, an action and a tick: arrays in, arrays out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image, ImageDraw

from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS
from rtcore.report.video.action import HEIGHT, WIDTH, Bars, Cells, Pad, buttons_of, name_of, view_of
from rtcore.report.video.panel import MIN_HEIGHT, Gap, Moment, Panel, Run, actor, clock_text, delay, put_off, verdict
from rtcore.report.video.picture import BarsPicture, ImagePicture, picture_of
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.spaces import ActionSpec, ObservationSpec
from tests.support.filmed import KEYS, RATE_HZ, header

pytestmark = pytest.mark.unit

LIT = "#00FF10"


def picture(space, frames=()):
    return picture_of(ObservationSpec.from_space(space), lambda: [np.array(frames)] if len(frames) else [])


def action_pixels(spec, action, meanings=()):
    """The room of an action, drawn."""
    image = Image.new("RGB", (WIDTH + 20, HEIGHT + 20))
    view_of(spec, meanings).draw(ImageDraw.Draw(image), 10, 10, action, LIT)
    return np.asarray(image)


def lit(pixels, colour=LIT):
    """How many pixels are of this colour."""
    return int((pixels == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(axis=-1).sum())


# -- observations ------------------------------------------------------------------------------------------------

IMAGES = {
    "grey": (spaces.Box(0, 255, (84, 84), np.uint8), 5, lambda frame: frame),
    "one channel": (spaces.Box(0, 255, (84, 84, 1), np.uint8), 5, lambda frame: frame[..., 0]),
    "RGB": (spaces.Box(0, 255, (144, 160, 3), np.uint8), 3, lambda frame: frame),
    "RGB, high": (spaces.Box(0, 255, (210, 160, 3), np.uint8), 2, lambda frame: frame),
    "odd sides": (spaces.Box(0, 255, (33, 51, 3), np.uint8), 13, lambda frame: frame),
    "wide": (spaces.Box(0, 255, (150, 600, 3), np.uint8), 1, lambda frame: frame),
    "larger than the video": (spaces.Box(0, 255, (720, 1280, 3), np.uint8), 1, lambda frame: frame),
    "channels first": (spaces.Box(0, 255, (3, 64, 64), np.uint8), 7, lambda frame: np.moveaxis(frame, 0, -1)),
    "stack of grey": (spaces.Box(0, 255, (4, 84, 84), np.uint8), 5, lambda frame: frame[-1]),
    "stack on the last axis": (spaces.Box(0, 255, (84, 84, 4), np.uint8), 5, lambda frame: frame[..., -1]),
    "stack of RGB": (spaces.Box(0, 255, (4, 96, 96, 3), np.uint8), 4, lambda frame: frame[-1]),
    "RGB stacked as channels": (spaces.Box(0, 255, (96, 96, 12), np.uint8), 4, lambda frame: frame[..., -3:]),
    "one bit": (spaces.Box(0, 1, (84, 84), np.bool_), 5, lambda frame: frame * 255),
    "few levels": (spaces.Box(0, 3, (84, 84), np.uint8), 5, lambda frame: frame * 85),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_is_drawn_pixel_by_pixel_scaled_by_a_whole_number(kind):
    space, scale, pixels_of = IMAGES[kind]
    space.seed(3)
    frame = space.sample()
    drawn = picture(space)
    assert isinstance(drawn, ImagePicture)
    expected = pixels_of(frame)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., np.newaxis], 3, axis=2)
    assert (drawn.height, drawn.width) == (expected.shape[0] * scale, expected.shape[1] * scale)
    pixels = drawn.draw(frame)
    assert pixels.shape == (drawn.height, drawn.width, 3)
    for row, column in ((0, 0), (scale - 1, scale - 1)):
        assert np.array_equal(pixels[row::scale, column::scale], expected), (row, column)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_a_float_image_goes_from_black_to_white_over_its_bounds(low, high):
    drawn = picture(spaces.Box(low, high, (42, 42, 3), np.float32))
    frame = np.full((42, 42, 3), low, np.float32)
    frame[:, 21:] = high
    frame[0, 0] = np.nan
    frame[0, 1] = high + 1
    pixels = drawn.draw(frame)
    assert (pixels[-1, 0].tolist(), pixels[-1, -1].tolist()) == ([0, 0, 0], [255, 255, 255])
    assert (pixels[0, 0].tolist(), pixels[0, 10].tolist()) == ([0, 0, 0], [255, 255, 255])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (17,), np.float64),
        spaces.Box(0, 255, (128,), np.uint8),
        spaces.Box(0, 255, (7, 7, 3), np.uint8),
        spaces.Box(-np.inf, np.inf, (64, 64), np.float32),
        spaces.Box(0, 1, (9, 9, 40), np.float32),
        spaces.Box(-1, 1, (), np.float32),
    ],
    ids=str,
)
def test_what_is_no_image_is_drawn_as_bars_that_follow_its_elements(space):
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 9, (8, *space.shape)).astype(space.dtype)
    drawn = picture(space, frames)
    assert isinstance(drawn, BarsPicture)
    pixels = [drawn.draw(frame).copy() for frame in frames[:2]]
    assert pixels[0].shape == (drawn.height, drawn.width, 3)
    assert not np.array_equal(*pixels)
    assert np.array_equal(pixels[0], drawn.draw(frames[0]))


def test_a_bar_is_as_long_as_its_value_in_the_range_that_the_recording_has():
    frames = np.array([[0.0, -10.0], [5.0, 10.0], [10.0, np.nan]], np.float64)
    drawn = picture(spaces.Box(-np.inf, np.inf, (2,), np.float64), frames)
    colour = "#56B4E9"
    first, second = (slice(0, 40), slice(40, 80))
    counts = [[lit(drawn.draw(frame)[rows], colour) for rows in (first, second)] for frame in frames]
    assert counts[2][0] == pytest.approx(2 * counts[1][0], rel=0.02)
    assert counts[0][1] == pytest.approx(counts[1][1], rel=0.02), "to both sides of 0"
    assert counts[0][0] < counts[1][0] / 20
    left, right = (
        (drawn.draw(frame)[second] == (0x56, 0xB4, 0xE9)).all(-1).any(0).nonzero()[0] for frame in frames[:2]
    )
    assert abs(int(left.max()) - int(right.min())) <= 1


def test_a_dict_is_drawn_as_its_first_image_or_else_as_bars_of_all_parts():
    place, camera = spaces.Box(-5, 5, (3,), np.float32), spaces.Box(0, 255, (84, 84), np.uint8)
    space = spaces.Dict({"arm": spaces.Dict({"place": place}), "camera": camera, "speed": place, "up": camera})
    spec = ObservationSpec.from_space(space)
    frame = np.zeros(spec.shape, np.uint8)
    parts = spec.unpack(frame)
    parts["arm/place"][...], parts["speed"][...] = [1, 2, 3], [4, 5, 6]
    parts["camera"].flat = np.arange(84 * 84) % 251
    seen = picture(space)
    assert isinstance(seen, ImagePicture)
    assert np.array_equal(seen.draw(frame)[::5, ::5, 0], parts["camera"])
    without = spaces.Dict({"arm": spaces.Dict({"place": place}), "speed": place})
    frame = np.concatenate([frame[:16], parts["speed"].view(np.uint8), np.zeros(4, np.uint8)])
    blind = picture(without, [frame])
    assert isinstance(blind, BarsPicture)
    assert blind.values(frame).tolist() == [1, 2, 3, 4, 5, 6]
    assert blind.values(np.stack([frame] * 2)).shape == (2, 6)


# -- actions -----------------------------------------------------------------------------------------------------


def test_names_are_taken_apart_into_buttons():
    assert buttons_of("UPRIGHTFIRE") == {"UP", "RIGHT", "FIRE"}
    assert buttons_of("DOWNLEFT") == {"DOWN", "LEFT"}
    assert [buttons_of(name) for name in ("NOOP", "no-op", "A", "Select")] == [set(), set(), {"A"}, {"SELECT"}]
    assert [buttons_of(name) for name in ("FASTER", "IDLE", "LANE_LEFT", "TURN")] == [None] * 4


def test_a_pad_lights_the_buttons_of_the_action_and_no_others():
    spec = ActionSpec.from_space(spaces.Discrete(3, start=4))
    meanings = ["NOOP", "UP", "UPRIGHTFIRE"]
    assert isinstance(view_of(spec, meanings), Pad)
    nothing, up, three = (lit(action_pixels(spec, np.int64(action), meanings)) for action in (4, 5, 6))
    assert nothing == lit(action_pixels(spec, None, meanings)) == 0
    assert 2 * up < three < 4 * up
    assert name_of(spec, np.int64(6), meanings) == "UPRIGHTFIRE"


def test_each_key_of_a_game_boy_lights_its_own_place():
    spec = ActionSpec.from_space(spaces.Discrete(7))
    drawn = [action_pixels(spec, np.int64(action), KEYS) for action in range(7)]
    assert len({pixels.tobytes() for pixels in drawn}) == 7
    where = [(pixels == (0, 255, 16)).all(-1) for pixels in drawn[:6]]
    assert not np.logical_and.reduce([where[0], where[1]]).any()
    left, up, right, down = (np.argwhere(where[index]).mean(axis=0) for index in (2, 3, 4, 5))
    assert left[1] < up[1] < right[1]
    assert up[0] < left[0] < down[0]


@pytest.mark.parametrize("count", [1, 2, 18, 72])
def test_an_action_without_a_name_lights_its_cell_and_says_its_number(count):
    spec = ActionSpec.from_space(spaces.Discrete(count, start=3))
    assert isinstance(view_of(spec), Cells)
    drawn = [action_pixels(spec, np.int64(action)) for action in range(3, 3 + count)]
    assert len({pixels.tobytes() for pixels in drawn}) == count
    assert name_of(spec, np.int64(3)) == "action 3"
    assert name_of(spec, np.int64(3), ["too", "many", "names"] * count) == "action 3", "names of other actions are none"


def test_numbers_are_bars_from_zero_to_both_sides():
    spec = ActionSpec.from_space(spaces.Box(-2, 2, (2,), np.float32))
    assert isinstance(view_of(spec), Bars)
    full, half = (lit(action_pixels(spec, np.array([value, 0], np.float32))) for value in (-2, 1))
    idle = lit(action_pixels(spec, np.zeros(2, np.float32)))
    assert full - idle == pytest.approx(2 * (half - idle), rel=0.05)
    assert name_of(spec, np.array([1.5, -0.25], np.float32)) == "1.5, -0.25"


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 4, 2]),
        spaces.MultiBinary(12),
        spaces.Box(-np.inf, np.inf, (3,), np.float64),
        spaces.Box(-1, 1, (500,), np.float32),
        spaces.Discrete(5000),
    ],
    ids=str,
)
def test_every_kind_of_action_has_its_drawing(space):
    spec = ActionSpec.from_space(space)
    rng = np.random.default_rng(1)
    one, other = (np.asarray(spec.sample(rng)) for _ in range(2))
    assert not np.array_equal(action_pixels(spec, one), action_pixels(spec, other))
    assert lit(action_pixels(spec, None)) == 0
    assert isinstance(name_of(spec, one), str)


# -- ticks -------------------------------------------------------------------------------------------------------

RUN = Run("World-v0", ActionSpec.from_space(spaces.Discrete(7)), RATE_HZ, KEYS)
MOMENT = Moment(1200, header(1200, worker=3), np.int64(2))
HELD = {"source": Source.HELD, "worker": -1, "obs_tick": -1, "due_tick": -1, "outcome": -1}
NOOP = HELD | {"source": Source.NOOP}

TICKS = [
    (MOMENT, "on time", OUTCOME_COLOURS["on_time"], "worker 3", "delay 3 ticks, 50 ms"),
    (
        Moment(9, header(9, outcome=Outcome.LATE, due_tick=7, obs_tick=8, policy_version=12), np.int64(0)),
        "late by 2 ticks",
        OUTCOME_COLOURS["late"],
        "worker 0, weights 12",
        "delay 1 tick, 17 ms",
    ),
    (
        Moment(9, header(9, outcome=Outcome.LATE, due_tick=7, chunk_index=2), np.int64(0)),
        "late",
        OUTCOME_COLOURS["late"],
        "worker 0",
        "delay 3 ticks, 50 ms",
    ),
    (Moment(9, header(9, kind=TickKind.MISSED, **NOOP), None), "missed", KIND_COLOURS["missed"], "no-op", "delay -"),
    (
        Moment(9, header(9, kind=TickKind.IDLE, **NOOP | {"source": Source.REPEAT}), None),
        "idle",
        KIND_COLOURS["idle"],
        "repeat of the last",
        "delay -",
    ),
    (
        Moment(9, header(9, kind=TickKind.LEAD_IN, **HELD), None),
        "lead in",
        KIND_COLOURS["lead_in"],
        "world held",
        "delay -",
    ),
    (Moment(9, header(9, kind=TickKind.RESET, **HELD), None), "reset", KIND_COLOURS["reset"], "world reset", "delay -"),
    (Moment(10, header(9), None, Gap.SKIPPED), "skipped: frame held", KIND_COLOURS["skipped"], "nobody", "delay -"),
    (Moment(10, header(9), None, Gap.NOT_RECORDED), "not recorded: frame held", "#5F6570", "unknown", "delay -"),
]


@pytest.mark.parametrize(("moment", "text", "colour", "who", "age"), TICKS, ids=[text for _, text, *_ in TICKS])
def test_a_tick_is_put_into_words_and_a_colour(moment, text, colour, who, age):
    assert verdict(moment) == (text, colour)
    assert actor(moment) == who
    assert delay(moment, RATE_HZ) == age
    assert lit(Panel(RUN).draw(moment), colour) > 1000


def test_the_actions_of_a_program_are_not_put_down_to_a_worker():
    assert actor(MOMENT, played=True) == "the program"


def test_a_head_is_called_that_and_what_stands_in_for_it_a_base_action():
    worker = MOMENT.header.worker
    assert actor(MOMENT, head=worker) == "head"
    assert actor(MOMENT, head=worker + 1) == f"worker {worker}, base action"


def test_panels_differ_in_everything_that_they_say():
    base = MOMENT.header
    moments = [
        MOMENT,
        MOMENT._replace(tick=1201),
        MOMENT._replace(action=np.int64(3)),
        MOMENT._replace(action=None),
        *(
            MOMENT._replace(header=base._replace(**{name: value}))
            for name, value in {
                "episode": 2,
                "episode_return": 5.0,
                "reward": 1.0,
                "terminated": 1,
                "truncated": 1,
                "worker": 4,
                "policy_version": 7,
                "obs_tick": base.obs_tick - 1,
                "outcome": Outcome.LATE,
                "kind": TickKind.MISSED,
            }.items()
        ),
        *(moment for moment, *_ in TICKS[1:]),
    ]
    drawn = [Panel(RUN).draw(moment).tobytes() for moment in moments]
    assert len(set(drawn)) == len(moments)
    runs = [RUN._replace(title="Other-v0"), RUN._replace(notes=["recording lost 3 frames"]), RUN._replace(meanings=())]
    runs += [RUN._replace(head=MOMENT.header.worker), RUN._replace(head=7)]
    assert len({Panel(run).draw(MOMENT).tobytes() for run in [RUN, *runs]}) == 6


def test_the_strip_shows_the_ticks_before_and_forgets_the_oldest():
    panel = Panel(RUN)
    missed = Moment(0, header(0, kind=TickKind.MISSED, **NOOP), None)
    panel.draw(missed)
    counts = [lit(panel.draw(MOMENT._replace(tick=tick)), KIND_COLOURS["missed"]) for tick in range(1, 70)]
    assert counts[0] > 0
    assert counts[:60] == [counts[0]] * 60
    assert counts[-1] == 0


def test_a_panel_is_as_high_as_the_picture_and_never_too_low_for_its_text():
    assert Panel(RUN, 100).draw(MOMENT).shape == (MIN_HEIGHT, Panel.width, 3)
    assert Panel(RUN, 745).draw(MOMENT).shape == (745, Panel.width, 3)


@pytest.mark.parametrize(
    ("tick", "rate", "text"),
    [(0, RATE_HZ, "0:00.00"), (3600, Fraction(60), "1:00.00"), (1, Fraction(3), "0:00.33"), (360_000, 50, "120:00.00")],
)
def test_a_tick_is_at_its_exact_time(tick, rate, text):
    assert clock_text(tick, Fraction(rate)) == text


def test_a_tick_says_by_how_much_it_was_put_off_and_no_other_does():
    rate = Fraction(50)
    on_time, after = header(4, deadline_ns=80_000_000), header(5, deadline_ns=154_000_000)
    assert put_off(Moment(5, after, None), on_time, rate) == "+54 ms"
    assert put_off(Moment(5, header(5, deadline_ns=100_000_001), None), on_time, rate) == ""
    # Of skipped or lost ticks between the two nothing is known of where the time went.
    assert put_off(Moment(6, header(6, deadline_ns=154_000_000), None), on_time, rate) == ""
    assert put_off(Moment(5, after, None, Gap.SKIPPED), on_time, rate) == ""
    assert put_off(Moment(5, after, None), None, rate) == ""


def test_the_panel_shows_that_a_tick_was_put_off():
    panels = [Panel(Run("World", ActionSpec.from_space(spaces.Discrete(3)), Fraction(50))) for _ in range(2)]
    before = Moment(4, header(4, deadline_ns=80_000_000), None)
    assert np.array_equal(*(panel.draw(before) for panel in panels))
    drawn = [
        panel.draw(Moment(5, header(5, deadline_ns=deadline_ns), None))
        for panel, deadline_ns in zip(panels, (100_000_000, 154_000_000), strict=True)
    ]
    rows = np.flatnonzero((drawn[0] != drawn[1]).any(axis=(1, 2)))
    assert 36 <= rows.min() <= rows.max() < 58, "in the line of the time"
