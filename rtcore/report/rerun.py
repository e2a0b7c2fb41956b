"""A run in Rerun (https://rerun.io): what was seen and applied, delays, a lane for each worker. Extra `rtcore[rerun]`.

Two timelines: `tick`, the number, and `time`, where that tick stands on the run's grid. Written to a file, of a run
that was kept, or told to a viewer while the run goes on.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from rtcore.clock import NS_PER_S
from rtcore.errors import ConfigError, key_of
from rtcore.files.whole import whole_file
from rtcore.host.extras import import_extra
from rtcore.learn.ticks import TickReader
from rtcore.memory.layout import FRAME_HEADER, FrameHeader
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, TICKS_FILE
from rtcore.report.lanes import bar_of, lane_name, shade_of
from rtcore.results.axis import TickAxis
from rtcore.results.folder import RunFolder
from rtcore.results.rows import TICKS, InferenceRow, TickRow
from rtcore.results.run_record import RunRecord, action_text
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.spaces.image import arrays_of, image_in, specs_of

#: Numbers of an observation, or of an action, that are drawn as curves: of more, only the first ones.
_MOST_CURVES = 32
#: Frames that are read from a recording at once.
_BLOCK_BYTES = 1 << 24
#: Ticks of a run that goes on that are told at once.
_MOST_AT_ONCE = 256


def require_rerun() -> Any:
    """The module rerun; ConfigError if it is not installed."""
    return import_extra("rerun", "a view in Rerun", "rerun")


class RerunStream:
    """Tells Rerun the rows of one run, in any number of pieces, each row once.

    Args:
        name: Of the run.
        period_ns: From tick to tick.
        head: Index of the head; -1: there is none.
    """

    def __init__(self, name: str, period_ns: float, head: int) -> None:
        self._rerun = require_rerun()
        #: Where it goes is up to the program: `save`, `spawn`, `connect_grpc`.
        self.stream = self._rerun.RecordingStream("rtcore", recording_id=name)
        self._period_s = period_ns / NS_PER_S
        self._head = head

    def add_ticks(self, rows: Sequence[TickRow]) -> None:
        """What governed each tick, what was applied, how old its frame was, how late it began, what it paid."""
        if not rows:
            return
        table = TICKS.table(rows)
        acted = table[table["kind"] == "acted"]
        for entity, of, column in (
            ("tick/lateness_us", table, "lateness_us"),
            ("tick/reward", table, "reward"),
            ("action/delay_ticks", acted, "delay_ticks"),
            ("action/worker", acted, "worker"),
        ):
            self._curves(entity, of["tick"], of[column][:, np.newaxis])
        self._states("tick/kind", [(float(row.tick), shade_of(row, self._head)) for row in rows])
        applied = [(row.tick, [float(number) for number in row.applied_action.split()]) for row in rows]
        applied = [(tick, numbers) for tick, numbers in applied if numbers]
        if applied:
            ticks, numbers = zip(*applied, strict=True)
            self._curves("action/applied", np.array(ticks), np.array(numbers))

    def add_jobs(self, jobs: Iterable[InferenceRow], axis: TickAxis) -> None:
        """A lane for each worker: computing, in the name of what became of it; then waiting; then nothing."""
        lanes: dict[int, list[tuple[float, str]]] = defaultdict(list)
        for bar in sorted((bar_of(job, axis) for job in jobs), key=lambda bar: bar.start):
            lane = lanes[bar.worker]
            # An answer that still waits as the next inference begins gives way to it.
            while lane and lane[-1][0] > bar.start:
                lane.pop()
            lane.append((bar.start, key_of(bar.outcome)))
            if bar.until > bar.end:
                lane.append((bar.end, "waiting"))
            lane.append((max(float(bar.until), bar.end), ""))
        for worker, lane in lanes.items():
            self._states(f"lanes/{lane_name(worker, self._head)}", lane)

    def add_frames(
        self, ticks: npt.NDArray[Any], parts: Mapping[str, npt.NDArray[Any]], observation: ObservationSpec
    ) -> None:
        """What was seen after these ticks.

        Args:
            ticks: (n,) their numbers.
            parts: By name, (n, *shape) each; of a Box one, "".
            observation: What they are.
        """
        image_of = image_in(observation)
        if image_of is not None:
            blobs = [_png(image_of.of_part(frame)) for frame in parts[image_of.name]]
            columns = self._rerun.EncodedImage.columns(blob=blobs, media_type=["image/png"] * len(blobs))
            self._send("observation/image", ticks, columns)
        for name, spec in specs_of(observation).items():
            if image_of is None or (name and len(spec.shape) == 1):
                self._curves(f"observation/{name or 'values'}", ticks, parts[name].reshape(len(ticks), -1))

    def _curves(self, entity: str, ticks: npt.NDArray[Any], values: npt.NDArray[Any]) -> None:
        """`values` (n, k): k curves."""
        shown = np.asarray(values[:, :_MOST_CURVES], np.float64)
        if shown.size:
            columns = self._rerun.Scalars.columns(scalars=shown.ravel())
            self._send(entity, ticks, columns.partition([shown.shape[1]] * len(shown)))

    def _states(self, entity: str, changes: Sequence[tuple[float, str]]) -> None:
        ticks, names = zip(*changes, strict=True)
        self._send(entity, np.array(ticks), self._rerun.StateChange.columns(state=list(names)))

    def _send(self, entity: str, ticks: npt.NDArray[Any], columns: Any) -> None:
        self.stream.send_columns(
            entity,
            indexes=[
                self._rerun.TimeColumn("tick", sequence=np.floor(ticks).astype(np.int64)),
                self._rerun.TimeColumn("time", duration=ticks * self._period_s),
            ],
            columns=columns,
        )


class LiveRerun:
    """Tells Rerun what is new of a run that goes on.

    Args:
        name: Of the run.
        where: "spawn" (a viewer on this machine), the address of one, or a file (.rrd).
        reader: Of its ticks: every frame and action, as long as it is asked often enough.
        action: Its action space.
        observation: Its observations.
        period_ns: From tick to tick.
        head: Index of the head; -1: there is none.
    """

    def __init__(
        self,
        name: str,
        where: str,
        *,
        reader: TickReader,
        action: ActionSpec,
        observation: ObservationSpec,
        period_ns: float,
        head: int,
    ) -> None:
        self._told = RerunStream(name, period_ns, head)
        self._reader, self._action, self._observation = reader, action, observation
        self._period_ns = period_ns
        self._next_log_seq = 0
        stream = self._told.stream
        if where == "spawn":
            stream.spawn()
        elif "://" in where:
            stream.connect_grpc(where)
        else:
            stream.save(where)

    def update(self, record: RunRecord) -> None:
        """Everything since the last time. `record`: of the run, refreshed."""
        while (ticks := self._reader.take(_MOST_AT_ONCE)) is not None:
            rows = ticks.rows
            headers = [FrameHeader(*row) for row in rows[list(FRAME_HEADER.fields)].tolist()]
            applied = [action_text(self._action.decode(action)) for action in rows["action"]]
            self._told.add_ticks([TickRow.of(header, text) for header, text in zip(headers, applied, strict=True)])
            parts = ticks.frames if isinstance(ticks.frames, dict) else {"": ticks.frames}
            self._told.add_frames(rows["tick"], parts, self._observation)
        jobs = [job for job in list(record.jobs) if job.log_seq >= self._next_log_seq]
        if jobs:
            self._next_log_seq = jobs[-1].log_seq + 1
            axis = TickAxis(list(record.ticks), self._period_ns)
            self._told.add_jobs([InferenceRow.of(job) for job in jobs], axis)

    def close(self) -> None:
        """What was told is there."""
        self._told.stream.disconnect()


def write_rrd(run: RunFolder, path: Path) -> Path:
    """A run that was kept as a file for Rerun, whole or not at all; with its frames, if they were recorded.

    Args:
        run: Its folder.
        path: The file to be (rrd).

    Returns:
        `path`.

    Raises:
        ConfigError: rerun is not installed, the run has no ticks, or its recording is damaged.
    """
    if not run.ticks or not run.period_ns:
        raise ConfigError(f"{run.path}: no tick is recorded, or the tick rate is not known: nothing to show")
    with whole_file(path) as draft, ExitStack() as stack:
        told = RerunStream(run.path.resolve().name, run.period_ns, run.head)
        told.stream.save(draft)
        stack.callback(told.stream.disconnect)
        told.add_ticks(run.ticks)
        told.add_jobs(run.jobs, run.axis)
        if (run.path / FOLDER / TICKS_FILE).is_file():
            recording = stack.enter_context(Recording(run.path))
            rows = max(1, _BLOCK_BYTES // recording.observation.nbytes)
            for first in range(0, recording.num_ticks, rows):
                ticks, frames = (recording.column(name, first, first + rows) for name in ("tick", "frame"))
                told.add_frames(ticks, arrays_of(recording.observation, frames), recording.observation)
    return path


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    """(height, width, 1 or 3), without loss, quickly."""
    file = io.BytesIO()
    Pillow.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()
