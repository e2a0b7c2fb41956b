"""Copies frames and job records from a run's rings into a recording, and counts those that were overwritten before.

It only reads: the writer of the rings never waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from rtcore.memory.ring import FrameRing, JobLog
from rtcore.recording.writer import RecordingWriter
from rtcore.scheduling.jobs import JobRow

#: Records that are given up at most, beside those that are overwritten, when the recorder was too slow.
_MOST_LEAD = 64


class RingReader:
    """From frame `first_frame` and record `first_job` on. `log` None: jobs come through `add_job`."""

    def __init__(
        self, writer: RecordingWriter, ring: FrameRing, log: JobLog | None, first_frame: int, first_job: int
    ) -> None:
        self._writer = writer
        self._ring = ring
        self._log = log
        self._next_frame = first_frame
        self._next_job = first_job

    def collect(self, report: Callable[[], None] = lambda: None) -> None:
        """Everything that is there by now. `report`: called after each piece; large frames take seconds to write."""
        self._collect_frames(report)
        if self._log is not None:
            self._collect_jobs(self._log)

    def add_job(self, row: JobRow) -> None:
        """One record of the job log, of a run without a ring of them (virtual clock)."""
        jobs = self._writer.jobs
        jobs.rows[jobs.room[0]] = row
        self._writer.took_jobs(1)

    def _collect_frames(self, report: Callable[[], None]) -> None:
        ring, writer = self._ring, self._writer
        while (there := ring.sequence.newest() + 1 - self._next_frame) > 0:
            begin, end = writer.ticks.room
            end = min(end, begin + there)
            kept = writer.kept[begin:end] if writer.kept is not None else None
            lapped = ring.copy_rows(self._next_frame, writer.ticks.rows[begin:end], writer.frames[begin:end], kept)
            if lapped:
                resume = ring.sequence.resume_at(_MOST_LEAD)
                writer.lost_frames += resume - self._next_frame
                self._next_frame = resume
                continue
            self._next_frame += end - begin
            writer.took_ticks(end - begin)
            report()

    def _collect_jobs(self, log: JobLog) -> None:
        writer = self._writer
        while (there := log.sequence.newest() + 1 - self._next_job) > 0:
            begin, end = writer.jobs.room
            end = min(end, begin + there)
            lapped = log.copy_rows(self._next_job, writer.jobs.rows[begin:end])
            if lapped:
                resume = log.sequence.resume_at(_MOST_LEAD)
                writer.lost_jobs += resume - self._next_job
                self._next_job = resume
                continue
            self._next_job += end - begin
            writer.took_jobs(end - begin)
