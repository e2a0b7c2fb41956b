"""The tick-by-tick and job-by-job record of a run, kept in memory for pictures and streamed to CSV.

Real runs drain it from shared memory, simulated runs feed it directly: both give the same files.
"""

from __future__ import annotations

import contextlib
import csv
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rtcore.errors import RecordError
from rtcore.memory.layout import FrameHeader
from rtcore.memory.shared import SharedRun
from rtcore.results.agreement import RowCounts
from rtcore.results.contract import Contract
from rtcore.results.part_ages import PartAges
from rtcore.results.rows import INFERENCES, TICKS, InferenceRow, TickRow
from rtcore.results.worst_stretch import WorstStretch
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.scheduling.jobs import JobRow
from rtcore.spaces.parts import Part

#: How much is kept in memory for the timeline and the live view.
_RECENT_TICKS = 8192
_RECENT_JOBS = 16384
RECENT_EPISODES = 4096


@contextlib.contextmanager
def writing_to(folder: Path | None) -> Iterator[None]:
    """What the disk refuses within the block is an error of ours, with a name and a place."""
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"the run's files in {folder} cannot be written: {error.strerror or error}; free some room, "
            "or give another folder with --out"
        ) from error


class Episode(NamedTuple):
    """An episode that ended: the tick it ended at, how many ticks it took, the sum of its rewards."""

    end_tick: int
    num_ticks: int
    total_reward: float


class Score(NamedTuple):
    """Sum of the rewards in a record, of every episode, the unfinished one included."""

    points: float = 0.0  #: sum of all rewards
    ticks: int = 0  #: in so many ticks
    unfinished: Episode | None = None  #: the episode under way: up to its newest tick

    @property
    def per_1000_ticks(self) -> float:
        """NaN before the first tick."""
        return 1000 * self.points / self.ticks if self.ticks else math.nan


class Episodes:
    """The newest episodes, and how many there were before them, so that memory does not grow with the run.

    One thread adds; any may read.
    """

    def __init__(self) -> None:
        self._kept: deque[Episode] = deque(maxlen=RECENT_EPISODES)
        self.dropped = 0  #: older than those that are kept
        self.dropped_return = 0.0  #: sum of what these returned
        self.points = 0.0  #: sum of all rewards since the first tick that was seen
        self.unfinished: Episode | None = None
        self._newest: FrameHeader | None = None
        self._points_before = 0.0  #: of the episodes before the newest one, less what was paid before the first tick

    def see(self, header: FrameHeader) -> None:
        """A tick, in order. If one is missing the points stay right, unless it was the last of its episode."""
        before = self._newest
        if before is None:
            self._points_before = header.reward - header.episode_return
        elif header.episode != before.episode:
            self._points_before += before.episode_return
        self._newest = header
        self.points = self._points_before + header.episode_return
        episode = Episode(header.tick, header.episode_ticks, header.episode_return)
        is_over = header.kind != TickKind.RESET and bool(header.terminated or header.truncated)
        self.unfinished = None if is_over else episode
        if is_over:
            self.add(episode)

    def add(self, episode: Episode) -> None:
        if len(self._kept) == RECENT_EPISODES:
            self.dropped += 1
            self.dropped_return += self._kept[0].total_reward
        self._kept.append(episode)

    @property
    def count(self) -> int:
        """Of all that ended."""
        return self.dropped + len(self._kept)

    def newest(self, count: int = RECENT_EPISODES) -> list[Episode]:
        """At most `count`, in the order in which they ended."""
        while True:
            try:
                return list(islice(self._kept, max(0, len(self._kept) - count), None))
            except RuntimeError:  # one was added meanwhile
                continue

    def since(self, number: int) -> list[Episode]:
        """From episode `number` on, counted from 0; of those, what is kept."""
        return self.newest(max(0, self.count - number))


class RunRecord:
    """Rows of one run. `folder` gets actions.csv and jobs.csv as they come in; None keeps them in memory only."""

    def __init__(
        self,
        folder: Path | None,
        decode_action: Callable[[bytes], Any],
        contract: Contract | None = None,
        stamped: Sequence[Part] = (),
    ) -> None:
        """`stamped`: the parts of the observation that have time stamps."""
        self.ticks: deque[FrameHeader] = deque(maxlen=_RECENT_TICKS)
        self.jobs: deque[JobRow] = deque(maxlen=_RECENT_JOBS)
        self.episodes = Episodes()
        self.worst = WorstStretch(self.ticks, self.jobs)
        self.num_ticks = 0
        self.num_jobs = 0
        self.booked_jobs = 0
        self.lost_ticks = 0
        self.lost_jobs = 0
        self.contract = contract  #: sees every tick
        self.part_ages = PartAges(stamped)
        self._decode = decode_action
        self._files: list[TextIO] = []
        self._paths: list[Path] = []
        self._tick_writer = self._open(folder, "actions.csv", TICKS.columns)
        self._job_writer = self._open(folder, "jobs.csv", INFERENCES.columns)

    def add_tick(
        self, header: FrameHeader, action: bytes, requested: bytes | None = None, stamps: bytes | None = None
    ) -> None:
        """One tick, in order. `requested`: the action asked for, where `action` may be another one. `stamps`: when the
        parts of its frame were measured."""
        self.ticks.append(header)
        self.num_ticks += 1
        self.worst.add(header)
        self.booked_jobs += header.booked_jobs
        self.episodes.see(header)
        if stamps:
            self.part_ages.add(header.publish_ns, stamps)
        if self.contract is not None:
            self.contract.see(header)
        if self._tick_writer is not None:
            text = "" if header.source == Source.HELD else action_text(self._decode(action))
            asked = text if requested in (None, action) else action_text(self._decode(requested))
            self._tick_writer.writerow(TICKS.written(TickRow.of(header, text, asked)))

    def add_job(self, job: JobRow) -> None:
        """One resolved job, in order of its end."""
        self.jobs.append(job)
        self.num_jobs += 1
        if self._job_writer is not None:
            self._job_writer.writerow(INFERENCES.written(InferenceRow.of(job)))

    @property
    def score(self) -> Score:
        """The rewards so far."""
        return Score(self.episodes.points, self.num_ticks + self.lost_ticks, self.episodes.unfinished)

    @property
    def rows(self) -> RowCounts:
        """What was taken in, and how much of it is on disk: whole lines, counted there. Once it is closed."""
        on_disk: list[int | None] = [_lines_in(path) - 1 for path in self._paths]
        return RowCounts(self.num_ticks, self.num_jobs, self.booked_jobs, *(on_disk or [None, None]))

    def flush(self) -> None:
        """What is recorded is in the file, whatever happens next."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Every file, also if one of them cannot be written to its end: that is raised afterwards."""
        files, self._files = self._files, []
        self._tick_writer = self._job_writer = None
        with contextlib.ExitStack() as stack:
            for file in files:
                stack.callback(file.close)

    def _open(self, folder: Path | None, name: str, columns: tuple[str, ...]) -> Any:
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("w", newline="")
        self._files.append(file)
        self._paths.append(folder / name)
        writer = csv.writer(file)
        writer.writerow(columns)
        return writer


class Drain:
    """Reads a run's ring headers and job log as they grow. Rows overwritten before they were read are counted."""

    def __init__(
        self, shared: SharedRun, phase_seq: int, first_frame: int | None = None, first_job: int | None = None
    ) -> None:
        """Begins with the rows of these numbers, by default with the next ones."""
        self._ring = shared.ring
        self._log = shared.log
        self._next_frame = shared.ring.sequence.newest() + 1 if first_frame is None else first_frame
        self._next_job = shared.log.sequence.newest() + 1 if first_job is None else first_job
        self._phase_seq = phase_seq

    def into(self, record: RunRecord) -> None:
        """Move everything new into `record`."""
        newest = self._ring.sequence.newest()
        while self._next_frame <= newest:
            seq = self._next_frame
            _, header = self._ring.read_header(seq)
            action, requested = self._ring.read_action(seq), self._ring.read_requested(seq)
            stamps = self._ring.read_stamps(seq)
            # `requested` may be None because there is none, or because it was overwritten just now.
            if header is None or action is None or not self._ring.is_there(seq):
                self._next_frame = max(seq + 1, self._ring.sequence.resume_at())
                record.lost_ticks += self._next_frame - seq
                continue
            self._next_frame = seq + 1
            if header.phase_seq == self._phase_seq:
                record.add_tick(header, action, requested, stamps)
        for job in self.jobs(record):
            record.add_job(job)

    def jobs(self, record: RunRecord | None = None) -> list[JobRow]:
        """New job rows of this phase."""
        rows: list[JobRow] = []
        newest = self._log.sequence.newest()
        while self._next_job <= newest:
            _, row = self._log.read(self._next_job)
            if row is None:
                resume = max(self._next_job + 1, self._log.sequence.resume_at())
                if record is not None:
                    record.lost_jobs += resume - self._next_job
                self._next_job = resume
                continue
            self._next_job += 1
            if row.phase_seq == self._phase_seq:
                rows.append(row)
        return rows


def _lines_in(path: Path) -> int:
    """Whole ones; 0 of what is no file that can be read (any more)."""
    try:
        if not path.is_file():
            return 0
        with path.open("rb") as file:
            return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def action_text(action: Any) -> str:
    """A decoded action as it stands in actions.csv."""
    if hasattr(action, "tolist"):
        return " ".join(f"{value:.6g}" for value in action.ravel().tolist())
    return str(action)
