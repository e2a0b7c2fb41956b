"""What is said of a tick beside its picture: when, which action, whose, how old, with which outcome."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from PIL.ImageColor import getrgb

from rtcore.errors import counted, key_of
from rtcore.memory.layout import FrameHeader
from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS
from rtcore.report.video.action import HEIGHT as ACTION_HEIGHT
from rtcore.report.video.action import name_of, view_of
from rtcore.report.video.picture import DIM, GROUND, TEXT, UNLIT, Pixels, cut, font, quantity
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.spaces import ActionSpec

#: Of the panel. It is as high as the video, and no lower than this.
WIDTH, MIN_HEIGHT = 288, 420
_MARGIN = 12
_COLUMNS = 31
_ACTION_Y = 112
_STRIP_TICKS = 66
_CELL = 4
_NOT_RECORDED = "#5F6570"


class Gap(Enum):
    """Why there is no frame of a tick."""

    SKIPPED = "skipped"  #: it never ran: the tick before it took too long
    NOT_RECORDED = "not recorded"  #: the recorder lost it


class Moment(NamedTuple):
    """One tick of real time. In a gap, `header` is that of the last tick before it."""

    tick: int
    header: FrameHeader
    action: npt.NDArray[Any] | None  #: what was applied; None in a gap and where the world was held or reset
    gap: Gap | None = None
    requested: npt.NDArray[Any] | None = None  #: what was asked for, where that is another action; else None


class Run(NamedTuple):
    """What is the same at all ticks."""

    title: str
    action: ActionSpec
    rate_hz: Fraction
    meanings: Sequence[str] = ()  #: names of the actions
    played: bool = False  #: a program chose the actions
    head: int = -1  #: index of the worker that is the head of a policy with two speeds; -1: there is none
    notes: Sequence[str] = ()  #: what a viewer must know of the recording


def verdict(moment: Moment) -> tuple[str, str]:
    """What became of this tick, and its colour."""
    header = moment.header
    if moment.gap is Gap.SKIPPED:
        return "skipped: frame held", KIND_COLOURS["skipped"]
    if moment.gap is Gap.NOT_RECORDED:
        return "not recorded: frame held", _NOT_RECORDED
    kind = TickKind(header.kind)
    if kind is not TickKind.ACTED:
        return key_of(kind).replace("_", " "), KIND_COLOURS[key_of(kind)]
    outcome = Outcome(header.outcome) if header.outcome in list(Outcome) else Outcome.ON_TIME
    text = key_of(outcome).replace("_", " ")
    # The first action of a late chunk was missing; the later ones may be for their very ticks.
    late_ticks = header.tick - header.due_tick - header.chunk_index
    if outcome is Outcome.LATE and late_ticks > 0:
        text += f" by {counted(late_ticks, 'tick')}"
    return text, OUTCOME_COLOURS[key_of(outcome)]


def actor(moment: Moment, *, played: bool = False, head: int = -1) -> str:
    """Who acted. `played`, `head`: as of `Run`."""
    header = moment.header
    if moment.gap is not None:
        return "nobody" if moment.gap is Gap.SKIPPED else "unknown"
    source = Source(header.source)
    if source is Source.POLICY:
        weights = f", weights {header.policy_version}" if header.policy_version > 0 else ""
        if played:
            return "the program"
        base = ", base action" if head >= 0 else ""
        return f"head{weights}" if header.worker == head else f"worker {header.worker}{base}{weights}"
    return "world reset" if header.kind == TickKind.RESET else source.meaning


def delay(moment: Moment, rate_hz: Fraction) -> str:
    """How old the frame was that the applied action was chosen from."""
    header = moment.header
    if moment.gap is not None or header.obs_tick < 0:
        return "delay -"
    ticks = header.tick - header.obs_tick
    return f"delay {counted(ticks, 'tick')}, {float(ticks * 1000 / rate_hz):.0f} ms"


def put_off(moment: Moment, before: FrameHeader | None, rate_hz: Fraction) -> str:
    """How much later than a period after the tick before it a tick was due (`--overrun stretch`), in whole ms.

    Nothing if it was not, or if that tick is not known.
    """
    header = moment.header
    if moment.gap is not None or before is None or header.tick != before.tick + 1:
        return ""
    late_ms = round((header.deadline_ns - before.deadline_ns) / 1e6 - float(1000 / rate_hz))
    return f"+{late_ms:,} ms" if late_ms > 0 else ""


def clock_text(tick: int, rate_hz: Fraction) -> str:
    """When a tick was due, after tick 0, if none was put off: minutes, seconds, hundredths."""
    hundredths = int(tick * 100 / rate_hz)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


class Panel:
    """Draws the moments of one run, in order: it keeps the tick before, and the colours of the last for its strip."""

    width = WIDTH

    def __init__(self, run: Run, height: int = MIN_HEIGHT) -> None:
        self.height = max(MIN_HEIGHT, height)
        self._run = run
        self._view = view_of(run.action, run.meanings)
        self._still = self._draw_still()
        self._strip = np.empty((_STRIP_TICKS, 3), np.uint8)
        self._strip[:] = getrgb(UNLIT)
        self._before: FrameHeader | None = None

    def draw(self, moment: Moment) -> Pixels:
        """(height, width, 3), RGB."""
        text, colour = verdict(moment)
        image = self._still.copy()
        pen = ImageDraw.Draw(image)
        self._draw_progress(pen, moment)
        self._before = moment.header
        self._draw_action(pen, moment, colour)
        top = _ACTION_Y + ACTION_HEIGHT + 84
        pen.rectangle((_MARGIN, top, WIDTH - _MARGIN, top + 28), colour)
        pen.text((WIDTH // 2, top + 14), text.upper(), _readable_on(colour), font(14, bold=True), anchor="mm")
        pixels = np.array(image)
        self._draw_strip(pixels[top + 36 : top + 36 + 3 * _CELL, _MARGIN : _MARGIN + _STRIP_TICKS * _CELL], colour)
        return pixels

    def _draw_still(self) -> Image.Image:
        image = Image.new("RGB", (WIDTH, self.height), GROUND)
        pen = ImageDraw.Draw(image)
        pen.text((_MARGIN, 10), cut(self._run.title, _COLUMNS), TEXT, font(14, bold=True))
        bottom = _ACTION_Y + ACTION_HEIGHT + 144
        for row, note in enumerate(self._run.notes):
            pen.text((_MARGIN, bottom + row * 16), cut(note, 36), OUTCOME_COLOURS["late"], font(12))
        return image

    def _draw_progress(self, pen: ImageDraw.ImageDraw, moment: Moment) -> None:
        header = moment.header
        reward = "" if moment.gap is not None or not header.reward else f"reward {quantity(header.reward)}"
        over = "terminated" if header.terminated else "truncated" if header.truncated else ""
        time = clock_text(moment.tick, self._run.rate_hz)
        for row, (left, right) in enumerate(
            (
                (f"tick {moment.tick:,}", f"{put_off(moment, self._before, self._run.rate_hz)}  {time}"),
                (f"episode {header.episode}", f"return {quantity(header.episode_return)}"),
                (reward, over if moment.gap is None else ""),
            )
        ):
            y = 36 + row * 22
            pen.text((_MARGIN, y), left, TEXT if row == 0 else DIM, font(14))
            pen.text((WIDTH - _MARGIN, y), right, TEXT if row == 0 else DIM, font(14), anchor="ra")

    def _draw_action(self, pen: ImageDraw.ImageDraw, moment: Moment, colour: str) -> None:
        run, action = self._run, moment.action
        self._view.draw(pen, _MARGIN, _ACTION_Y, action, colour)
        name = "-" if action is None else name_of(run.action, action, run.meanings)
        y = _ACTION_Y + ACTION_HEIGHT + 8
        pen.text((_MARGIN, y), cut(name, 22), TEXT, font(20, bold=True))
        pen.text((_MARGIN, y + 30), cut(actor(moment, played=run.played, head=run.head), _COLUMNS), TEXT, font(14))
        pen.text((_MARGIN, y + 50), delay(moment, run.rate_hz), TEXT, font(14))
        if moment.requested is not None:
            asked = f"asked: {name_of(run.action, moment.requested, run.meanings)}"
            pen.text((WIDTH - _MARGIN, y + 50), cut(asked, 18), OUTCOME_COLOURS["late"], font(14), anchor="ra")

    def _draw_strip(self, out: Pixels, colour: str) -> None:
        """A cell per tick, the newest on the right."""
        self._strip[:-1] = self._strip[1:]
        self._strip[-1] = getrgb(colour)
        cells = np.repeat(self._strip, _CELL, axis=0)
        cells[_CELL - 1 :: _CELL] = getrgb(GROUND)
        out[...] = cells


def _readable_on(colour: str) -> str:
    red, green, blue = getrgb(colour)[:3]
    return "#000000" if 0.3 * red + 0.6 * green + 0.1 * blue > 120 else "#FFFFFF"
