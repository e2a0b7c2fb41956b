"""What a run consists of, as text in shared memory: so that another program can attach to it and say so.

Written by the supervisor at tick 0 and whenever something of it changes (a restart); read by anybody, at any time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rtcore.config.resolved import ResolvedRun
from rtcore.memory.layout import ABOUT_TEXT, RING_CONTROL, Layout
from rtcore.memory.ring import SequenceRing
from rtcore.scheduling.planner import Plan


@dataclass(frozen=True)
class About:
    """`world`, `policy` as in `Runtime.header`; `devices` and `restart_reasons` as in the summary."""

    run_id: str
    program: str
    run: ResolvedRun
    world: dict[str, Any]
    policy: dict[str, Any]
    plan: Plan
    startup: dict[str, float]  #: seconds by phase, in order
    started_unix_s: float
    devices: list[str] = field(default_factory=list)
    restart_reasons: dict[str, int] = field(default_factory=dict)
    ticks_before: int = 0  #: of the runs that this one goes on from

    @property
    def header(self) -> dict[str, Any]:
        """What the run consists of: world, policy, devices, what the kernel granted."""
        header: dict[str, Any] = {"run_id": self.run_id, "world": self.world, "policy": self.policy}
        return header | ({"mps": self.policy["mps"]} if self.policy.get("mps") else {})

    def to_text(self) -> bytes:
        return json.dumps(asdict(self) | {"plan": self.plan.to_text(), "run": self.run.to_jsonable()}).encode()

    @classmethod
    def from_text(cls, text: bytes) -> About:
        fields = json.loads(text)
        return cls(**fields | {"plan": Plan.from_text(fields["plan"]), "run": ResolvedRun.from_jsonable(fields["run"])})


class AboutBoard:
    """The text, twice: the writer fills the one that is not shown. One writer (the supervisor)."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        at = layout.ring_control_at
        self._sequence = SequenceRing(buffer[at : at + RING_CONTROL.itemsize].cast("q"), 2)
        self._buffer = buffer
        self._layout = layout

    def write(self, about: About) -> bool:
        """Writer: replace the text. False if it does not fit: the one before stays, and the run goes on.

        The one part that grows with a run, the reasons of restarts, is summed up first.
        """
        text = about.to_text()
        if len(text) > self._layout.about_bytes:
            reasons = about.restart_reasons
            summed = {f"{len(reasons)} different reasons, too long for onlookers": sum(reasons.values())}
            text = replace(about, restart_reasons=summed if reasons else {}).to_text()
        if len(text) > self._layout.about_bytes:
            return False
        seq = self._sequence.newest() + 1
        self._sequence.begin(seq)
        at = self._layout.about_text_at(seq)
        ABOUT_TEXT.struct.pack_into(self._buffer, at, len(text))
        at += ABOUT_TEXT.num_bytes
        self._buffer[at : at + len(text)] = text
        self._sequence.commit(seq)
        return True

    def read(self) -> About | None:
        """Reader: the newest text; None before the first (the run is still starting)."""
        while (seq := self._sequence.newest()) >= 0:
            at = self._layout.about_text_at(seq)
            (num_bytes,) = ABOUT_TEXT.struct.unpack_from(self._buffer, at)
            at += ABOUT_TEXT.num_bytes
            text = bytes(self._buffer[at : at + num_bytes])
            if not self._sequence.was_lapped(seq):
                return About.from_text(text)
        return None
