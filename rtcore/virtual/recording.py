"""Recording on the virtual clock: the same file as of a real run, written by the simulating process itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from rtcore.config.run import RuntimeConfig
from rtcore.errors import RtcoreError
from rtcore.loop.process import describe
from rtcore.loop.world import GymnasiumWorld
from rtcore.memory.ring import FrameRing
from rtcore.recording.process import finish, make_writer
from rtcore.recording.ring_reader import RingReader
from rtcore.recording.schema import FOLDER, TICKS_FILE, UNFINISHED
from rtcore.recording.writer import describe_run, end_of
from rtcore.scheduling.jobs import JobRow

_log = logging.getLogger(__name__)


class VirtualRecording:
    """What `RecorderProcess` is to a real run. A disk that refuses a write ends the recording, not the run."""

    def __init__(
        self,
        config: RuntimeConfig,
        world: GymnasiumWorld,
        ring: FrameRing,
        policy: dict[str, Any],
        rate_hz: Fraction,
    ) -> None:
        """`policy`: as in `Runtime.header`. RtcoreError if the file cannot be made."""
        out = config.output.out or Path()
        about = describe_run(config, describe(world, config).to_header(), policy, rate_hz)
        self._path = out / FOLDER / TICKS_FILE
        self._end = UNFINISHED
        self._is_open = True
        self._writer = make_writer(out, ring, world.observation, action=world.action, rate_hz=rate_hz, about=about)
        self._reader = RingReader(self._writer, ring, None, 0, 0)
        #: Often enough that the ring never comes round.
        self._every_ticks = max(1, ring.sequence.num_slots // 4)
        self._since = 0

    def add_job(self, row: JobRow) -> None:
        self._guarded(lambda: self._reader.add_job(row))

    def after_tick(self) -> None:
        self._since += 1
        if self._since >= self._every_ticks:
            self._since = 0
            self._guarded(self._collect)

    def close(self) -> None:
        """Write what is left; more than once does no harm."""
        self._guarded(self._finish)
        self._is_open = False

    def summary(self) -> dict[str, Any]:
        """The content of summary.json's `recording`."""
        return {"path": str(self._path), "end": self._end, **vars(self._writer.counts)}

    def _collect(self) -> None:
        self._reader.collect()
        self._writer.flush()

    def _finish(self) -> None:
        self._reader.collect()
        note = finish(self._writer)
        self._end = end_of(self._writer.counts)
        if note:
            _log.warning(note)

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self._is_open:
            return
        try:
            action()
        except RtcoreError as error:
            self._is_open = False
            self._end = f"{UNFINISHED}: {error}"
            _log.warning(f"recording stopped: {error}. What was written can be read; the run goes on")
            self._writer.abandon()
