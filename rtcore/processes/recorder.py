"""The supervisor's part in recording: starts the recorder, follows its progress, asks it to end, reports the result.

If the recorder dies or the disk is full, that is reported and counted, and the run goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rtcore.clock import NS_PER_MS, NS_PER_S
from rtcore.errors import RtcoreError, describe_exit
from rtcore.messages import End, Recorded, RecorderBoot, RecordingCounts
from rtcore.processes.launcher import Child, Launcher, MakeBoot, RunParts
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, TICKS_FILE, UNFINISHED

_log = logging.getLogger(__name__)

RECORDER_ENTRY = "rtcore.recording.process:main"
#: While it closes its file a recorder reports its progress; one that neither reports nor works for so long is killed.
_SILENCE_NS = 15 * NS_PER_S
#: It is waited for as long as it reports, at most so long: Minari's view of a million episodes takes half an hour.
_LONGEST_END_NS = 3600 * NS_PER_S
#: One that was killed is gone after this long, and asked for so often.
_GRACE_NS, _POLL_NS = 2 * NS_PER_S, 20 * NS_PER_MS


class RecorderProcess:
    """The recorder of a run. Used by the supervising thread; `summary` by any."""

    def __init__(self, parts: RunParts, launch: Callable[[str, MakeBoot], Child]) -> None:
        out = parts.run.config.output.out
        if out is None:
            raise ValueError("record needs an output folder")
        self._out: Path = out
        self._parts = parts
        self._launch = launch
        self._child: Child | None = None
        self._counts = RecordingCounts()
        self._end = UNFINISHED
        self._is_settled = False
        self._num_messages = 0
        self._ending = False

    def start(self, about: dict[str, Any]) -> None:
        """Start the process, between the rehearsal and tick 0; `is_ready` says when it is.

        `about`: what the file says of the run, as `RecordingWriter` takes it.
        """
        _log.info("starting the recorder")
        shared, world = self._parts.shared, self._parts.world
        boot = partial(
            RecorderBoot,
            layout=shared.layout,
            observation=world.observation,
            action=world.action,
            folder=str(self._out.absolute()),
            about=about,
            first_frame_seq=shared.ring.sequence.newest() + 1,
            first_log_seq=shared.log.sequence.newest() + 1,
        )
        self._child = self._launch(RECORDER_ENTRY, boot)

    def is_ready(self) -> bool:
        return self._child is not None and self._child.ready is not None

    @property
    def pid(self) -> int | None:
        """Of the recorder, while it lives."""
        child = self._child
        return child.pid if child is not None and child.exitcode is None else None

    # -- watch ---------------------------------------------------------------------------------------------

    def check(self, child: Child) -> None:
        """Something happened to the recorder. Raises only what kept it from starting."""
        self._handle_messages(child)
        if child.ready is None and child.error is not None:
            raise child.error
        if child.exitcode is None or self._is_settled:
            return
        if child.ready is None:
            raise child.death
        why = child.failure.text if child.failure is not None else describe_exit(child.exitcode)
        self._stopped(f"the recorder (pid {child.pid}) ended early: {why}")

    def _handle_messages(self, child: Child) -> None:
        for message in child.messages:
            self._num_messages += 1
            if not isinstance(message, Recorded):
                continue
            self._counts = message.counts
            if message.note:
                _log.warning(message.note)
            if message.failed_with:
                self._stopped(message.failed_with)
            elif message.end:
                self._end, self._is_settled = message.end, True
        child.messages.clear()

    def _stopped(self, why: str) -> None:
        """Recording is over: log why, and keep it for the summary. Called once."""
        self._end, self._is_settled = f"{UNFINISHED}: {why}", True
        goes_on = "" if self._ending else "; the run goes on"
        _log.warning(f"recording stopped: {why}. What was written can be read{goes_on}")

    # -- end -----------------------------------------------------------------------------------------------

    def shut_down(self, launcher: Launcher, *, soon: bool = False) -> None:
        """Have the recorder write what is left and close its file; returns when it has ended. Once no tick runs.

        `soon`: the user waits for the end: Minari's view is left out if it takes more than some seconds.
        """
        self._end_it(soon)
        served = launcher.poll_until(self._has_ended, _LONGEST_END_NS)
        if self._child is not None:
            self.check(self._child)
            if not self._is_settled:
                self._child.kill()
                pid = self._child.pid
                late = f"the recorder (pid {pid}) was not done after {_LONGEST_END_NS // NS_PER_S:,} s and was killed"
                gone = f"the recorder (pid {pid}) was killed with the fork server, which has died"
                self._stopped(late if served else gone)
            if self._end.startswith(UNFINISHED):
                self._count_what_is_left(self._child)
            self._log_result()
            self._child = None
            # Of one that was killed while it made Minari's view.
            with suppress(OSError):
                for draft in (self._out / FOLDER).glob("*.part"):
                    draft.unlink()

    def _end_it(self, soon: bool) -> None:
        self._ending = True
        if self._child is not None and self._child.exitcode is None:
            self._child.send(End(soon))

    def _has_ended(self) -> bool:
        """Also when it had to be killed, because it was silent for too long."""
        child = self._child
        if child is None or child.exitcode is not None:
            return True
        self._handle_messages(child)
        # A sign of life is a message, or CPU time and bytes written: one piece of 4K frames may take it seconds.
        sign = (self._num_messages, child.work_done())
        if self._parts.watchdog.silent_ns("recorder", sign) > _SILENCE_NS:
            self._stopped(f"the recorder (pid {child.pid}) did nothing for {_SILENCE_NS // NS_PER_S} s and was killed")
            child.kill()
            return True
        return False

    def _count_what_is_left(self, child: Child) -> None:
        """Of a recorder that did not come to its end its file tells what it had written: its last report is older."""
        clock = self._parts.clock
        give_up_ns = clock.now_ns() + _GRACE_NS
        while child.is_alive and clock.now_ns() < give_up_ns:
            clock.sleep_until_ns(clock.now_ns() + _POLL_NS)
        if child.ready is None:
            return  # it may not have come to making a file
        try:
            with Recording(self._out / FOLDER / TICKS_FILE, is_known=True) as recording:
                self._counts = recording.counts
        except (RtcoreError, OSError, RuntimeError) as error:
            _log.warning(f"what the recorder left cannot be counted, the summary has its last report: {error}")

    def _log_result(self) -> None:
        if not self._end.startswith(UNFINISHED):
            counts = self._counts
            _log.info(
                f"recorded  {counts.frames:,} frames and {counts.jobs:,} jobs, {self._end} "
                f"({counts.bytes / 1e6:.1f} MB): {self._out / FOLDER / TICKS_FILE}"
            )

    def summary(self) -> dict[str, Any]:
        """The content of summary.json's `recording`."""
        return {"path": str(self._out / FOLDER / TICKS_FILE), "end": self._end, **vars(self._counts)}
