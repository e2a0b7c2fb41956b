"""A recording as an mp4, one picture per tick of real time. Memory does not grow with its length.

Ticks without a frame (skipped, or lost by the recorder) show the frame before them, and say so: the video lasts as
long as the run did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from rtcore.errors import ConfigError
from rtcore.recording.reader import RecordedTick, Recording
from rtcore.recording.schema import FOLDER
from rtcore.report.video.encoder import Mp4Writer, even
from rtcore.report.video.panel import Gap, Moment, Panel, Run
from rtcore.report.video.picture import GROUND, Picture, Pixels, picture_of
from rtcore.results.agreement import COMPLETE
from rtcore.scheduling.dispatch import Source

VIDEO_FILE = "video.mp4"
_MARGIN = 12
#: Of frames that are read at once: so many bytes of them at most.
_BLOCK_BYTES = 1 << 24


class Film(NamedTuple):
    """A finished video."""

    path: Path
    frames: int  #: ticks from the first to the last, those without a frame of their own included
    held: int  #: of these, ticks that show the frame before them
    bytes: int
    width: int  #: in pixels
    height: int


def video_file(recording: Path) -> Path:
    """Where the video of `recording` (its ticks.hdf5) belongs: in the folder of its run, else beside it."""
    folder = recording.parent
    inside = folder.parts[-len(FOLDER.parts) :] == FOLDER.parts
    return (folder.parents[len(FOLDER.parts) - 1] if inside else folder) / VIDEO_FILE


def write_video(
    recordings: Mapping[str, Recording],
    path: Path,
    *,
    max_ticks: int | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Film:
    """Draw recordings side by side, whole or not at all.

    Args:
        recordings: By name, which is the title in its panel; "": that of its world. All at the rate of the first.
        path: The file to be (mp4).
        max_ticks: Only so many rows of each; None: all.
        progress: Gets (frames done, of so many) after each.

    Raises:
        ConfigError: One has no frame.
        RecordError: The disk is full.
    """
    scenes = [Scene(recording, name, max_ticks) for name, recording in recordings.items()]
    canvas = _empty(max(scene.height for scene in scenes), sum(scene.width for scene in scenes))
    areas, left = [], 0
    for scene in scenes:
        areas.append(canvas[: scene.height, left : left + scene.width])
        left += scene.width
    height, width = canvas.shape[:2]
    draft = path.with_name(path.name + ".part")
    num_frames = max(scene.num_frames for scene in scenes)
    try:
        with Mp4Writer(draft, width, height, scenes[0].recording.rate_hz, scenes[0].title) as video:
            for pictures in zip_longest(*(scene.pictures() for scene in scenes)):
                for area, picture in zip(areas, pictures, strict=True):
                    if picture is not None:  # of one that is over, the last picture stays
                        area[...] = picture
                video.add(canvas)
                progress(video.num_frames, num_frames)
        video.move_to(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    held = sum(scene.num_frames - scene.num_rows for scene in scenes)
    return Film(path=path, frames=video.num_frames, held=held, bytes=path.stat().st_size, width=width, height=height)


def moments(ticks: Iterable[RecordedTick]) -> Iterator[tuple[Moment, npt.NDArray[Any] | None]]:
    """Every tick from the first to the last, and its frame; None for a tick that has none of its own."""
    last: RecordedTick | None = None
    for now in ticks:
        header = now.header
        if last is not None:
            # Ticks that were skipped lie just before the next that ran. Others in the gap ran and were lost.
            lost = header.frame_seq - last.header.frame_seq - 1
            for tick in range(last.header.tick + 1, header.tick):
                skipped = lost == 0 or tick >= header.tick - header.skipped_ticks
                yield Moment(tick, last.header, None, Gap.SKIPPED if skipped else Gap.NOT_RECORDED), None
        applied = None if header.source == Source.HELD else now.action
        changed = applied is not None and not np.array_equal(now.requested, now.action)
        yield Moment(header.tick, header, applied, requested=now.requested if changed else None), now.frame
        last = now


def _empty(height: int, width: int) -> Pixels:
    canvas: Pixels = np.empty((height, width, 3), np.uint8)
    canvas[...] = ImageColor.getrgb(GROUND)
    return canvas


class Scene:
    """One recording, tick by tick: its picture and its panel side by side."""

    def __init__(self, recording: Recording, title: str = "", max_ticks: int | None = None) -> None:
        config, world = recording.config, recording.world
        self.recording = recording
        self.title = title or str(config["env_id"]).rpartition("/")[2]
        self.num_rows = min(recording.num_ticks, max_ticks or recording.num_ticks)
        if self.num_rows == 0:
            raise ConfigError(f"{recording.path} holds no frame: nothing to draw. Was its run ended before tick 0?")
        first, last = (int(recording.column("tick", row, row + 1)[0]) for row in (0, self.num_rows - 1))
        self.num_frames = last - first + 1
        self._picture: Picture = picture_of(recording.observation, lambda: _blocks(recording))
        run = Run(
            title=self.title,
            action=recording.action,
            rate_hz=recording.rate_hz,
            meanings=world.get("action_meanings", ()),
            played=bool(recording.about["played"]),
            notes=notes_of(recording),
            head=recording.head,
        )
        self._panel = Panel(run, self._picture.height + 2 * _MARGIN)
        self.height = even(self._panel.height)
        self.width = even(self._picture.width + 2 * _MARGIN + self._panel.width)
        self._canvas = _empty(self.height, self.width)
        top = (self._panel.height - self._picture.height) // 2
        #: Where the observation is: rows and columns.
        self.frame_area = (slice(top, top + self._picture.height), slice(_MARGIN, _MARGIN + self._picture.width))

    def pictures(self) -> Iterator[Pixels]:
        """Each valid until the next."""
        for moment, frame in moments(self.recording.ticks(0, self.num_rows)):
            yield self.draw(moment, frame)

    def draw(self, moment: Moment, frame: npt.NDArray[Any] | None) -> Pixels:
        """(height, width, 3), RGB; valid until the next call. `frame` None: the one before stays."""
        if frame is not None:
            self._canvas[self.frame_area] = self._picture.draw(frame)
        left = self._picture.width + 2 * _MARGIN
        self._canvas[: self._panel.height, left : left + self._panel.width] = self._panel.draw(moment)
        return self._canvas


def notes_of(recording: Recording) -> list[str]:
    """What is missing in the recording; nothing if it is complete."""
    notes = [] if recording.is_finished else ["recording unfinished: end is missing"]
    if recording.lost_frames:
        notes.append(f"recording lost {recording.lost_frames:,} frames")
    if recording.is_finished and recording.end != COMPLETE and not notes:
        notes.append(f"recording: {recording.end}")
    return notes


def _blocks(recording: Recording) -> Iterator[npt.NDArray[Any]]:
    rows = max(1, _BLOCK_BYTES // recording.observation.nbytes)
    for begin in range(0, recording.num_ticks, rows):
        yield recording.column("frame", begin, begin + rows)
