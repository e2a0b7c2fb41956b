"""The recorder process: frames and job records out of a run's rings into the recording, until the order to end.

Owns: the recording. Reads: ring and job log, mapped read-only. Reports to the supervisor once a second. It can delay no
tick: no process waits for it, and frames that the ring overwrites before they are copied are counted. Exits: on the
supervisor's order, once the file is closed and Minari's view of it made; with the fork server; or with a named error
when the disk refuses a write.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from rtcore.channel import Channel
from rtcore.clock import NS_PER_S, Clock, MonotonicClock
from rtcore.errors import ChannelError, RtcoreError
from rtcore.files.outside import has_sums, write_sums
from rtcore.memory.ring import FrameRing
from rtcore.memory.shared import SharedRun
from rtcore.messages import End, Ready, Recorded, RecorderBoot
from rtcore.realtime import keep_off
from rtcore.recording.minari import write_minari
from rtcore.recording.reader import Recording
from rtcore.recording.ring_reader import RingReader
from rtcore.recording.schema import FOLDER
from rtcore.recording.writer import RecordingWriter, end_of, reason_of
from rtcore.spaces import ActionSpec, ObservationSpec

#: Below the workers, above learners: frames that it has no time for are lost, a learner only learns later.
_NICENESS = 10
#: Longest pause between two reads of the ring; shorter where the ring is overwritten sooner.
_LONGEST_PAUSE_S = 0.25
_REPORT_EVERY_NS = NS_PER_S
#: After this time rows are written even if they do not fill a chunk.
_WRITE_AT_LEAST_NS = 2 * NS_PER_S
#: How long Minari's view may take if the run was stopped by its user, who waits.
_SOON_NS = 4 * NS_PER_S


def main(boot: RecorderBoot, channel: Channel) -> None:
    """Process entry."""
    run, layout, observation = boot.run, boot.layout, boot.observation
    shared = SharedRun.attach(boot.run_id, layout, observation, readonly=True)
    ring, log = shared.ring, shared.log
    about = boot.about | {"first_frame_seq": boot.first_frame_seq, "first_log_seq": boot.first_log_seq}
    writer = make_writer(Path(boot.folder), ring, observation, action=boot.action, rate_hz=run.rate_hz, about=about)
    reader = RingReader(writer, ring, log, boot.first_frame_seq, boot.first_log_seq)
    gc.collect()
    gc.freeze()
    # Only now: until here the start of the run waited for this process.
    _lower_priority(run.config.host.env_cpu)
    channel.send(Ready())
    pause_s = min(_LONGEST_PAUSE_S, layout.ring_slots / 4 / float(run.rate_hz))
    RecorderLoop(writer, reader, channel, pause_s, MonotonicClock()).run()


def make_writer(
    folder: Path,
    ring: FrameRing,
    observation: ObservationSpec,
    action: ActionSpec,
    rate_hz: Fraction,
    about: dict[str, Any],
) -> RecordingWriter:
    """An empty recording in the run's folder `folder`."""
    row = ring.row_dtype(np.dtype((action.np_dtype, action.shape)))
    return RecordingWriter(
        folder=folder / FOLDER,
        observation=observation,
        action=action,
        rate_hz=rate_hz,
        row_dtype=row,
        about=about,
        kept=ring.kept,
    )


def finish(writer: RecordingWriter, progress: Callable[[int, int], None] = lambda done, of: None) -> str:
    """Close the recording, make its checksum and Minari's view; returns what went wrong with these, "" if nothing.

    RecordError if the recording itself cannot be written to its end. `progress`: as of `write_minari`; if it
    raises OSError, the view is left out.
    """
    writer.close()
    path = writer.path
    try:
        size = path.stat().st_size
        write_sums(path.parent, [path.name], lambda done: progress(done, size))
        with Recording(path, is_known=True) as recording:
            write_minari(recording, progress)
    except (OSError, RuntimeError) as error:
        what = "view for Minari" if has_sums(path) else "checksum and view for Minari"
        again = f"python -m rtcore.cli.mend {path}"
        return f"the recording is whole, but not its {what}: {reason_of(error)}. {again} makes it"
    return ""


def _lower_priority(env_cpu: int | None) -> None:
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if env_cpu is not None:
        keep_off(env_cpu)


class RecorderLoop:
    """Read the ring, write, report; until the order to end."""

    def __init__(
        self, writer: RecordingWriter, reader: RingReader, channel: Channel, pause_s: float, clock: Clock
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._channel = channel
        self._pause_s = pause_s
        self._clock = clock
        self._reported_ns = self._wrote_ns = clock.now_ns()
        self._flushed = writer.written
        self._soon = False
        self._is_orphan = False

    def run(self) -> None:
        """Until the order to end: then everything is closed.

        If the supervisor is gone, what there is is kept, as unfinished: the env process may tick on for a moment, and
        nobody knows what the run came to.
        """
        try:
            while not self._must_end():
                self._reader.collect(self._report)
                self._flush_now_and_then()
                self._report()
            self._reader.collect(self._report)
            if self._is_orphan:
                self._writer.flush(everything=True)
                self._writer.abandon()
                return
            note = finish(self._writer, self._reporting())
        except RtcoreError as error:
            self._channel.post(Recorded(self._writer.counts, failed_with=str(error)))
            self._writer.abandon()
            raise
        counts = self._writer.counts
        self._channel.send(Recorded(counts, end_of(counts), note))

    def _must_end(self) -> bool:
        try:
            message = self._channel.receive(self._pause_s)
        except ChannelError:  # the supervisor has ended
            self._is_orphan = True
            return True
        self._soon = isinstance(message, End) and message.soon
        return message is not None

    def _reporting(self) -> Callable[[int, int], None]:
        """For `finish`: reports, and gives up if the user waits for the end."""
        give_up_ns = self._clock.now_ns() + _SOON_NS

        def report(done: int, of: int) -> None:
            if self._soon and self._clock.now_ns() > give_up_ns:
                raise TimeoutError(0, f"left out after {done:,} of {of:,}, as the run was stopped")
            self._report()

        return report

    def _flush_now_and_then(self) -> None:
        now_ns, writer = self._clock.now_ns(), self._writer
        if writer.written == self._flushed and now_ns - self._wrote_ns < _WRITE_AT_LEAST_NS:
            return
        writer.flush(everything=writer.written == self._flushed)
        self._flushed, self._wrote_ns = writer.written, now_ns

    def _report(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._reported_ns >= _REPORT_EVERY_NS:
            self._reported_ns = now_ns
            # A supervisor that does not read (stopped, dead) must not delay the recorder, nor get old reports at once.
            if self._channel.flush():
                self._channel.post(Recorded(self._writer.counts))
