"""A description of the run, as JSON in shared memory: what `rtcore-top` shows when it attaches from outside.

The supervisor writes it at tick 0 and after each change (a worker was restarted); any process may read it at any time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rtcore.config.resolved import ResolvedRun
from rtcore.memory.layout import DESCRIPTION_HEAD, Layout
from rtcore.memory.ring import SequenceRing
from rtcore.scheduling.planner import Plan


@dataclass(frozen=True)
class RunDescription:
    """World, policy, plan, settings. `world`, `policy`: as in `Runtime.header`; others as in the summary."""

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
        """As `Runtime.header`."""
        header: dict[str, Any] = {"run_id": self.run_id, "world": self.world, "policy": self.policy}
        return header | ({"mps": self.policy["mps"]} if self.policy.get("mps") else {})

    def to_text(self) -> bytes:
        return json.dumps(asdict(self) | {"plan": self.plan.to_text(), "run": self.run.to_jsonable()}).encode()

    @classmethod
    def from_text(cls, text: bytes) -> RunDescription:
        fields = json.loads(text)
        return cls(**fields | {"plan": Plan.from_text(fields["plan"]), "run": ResolvedRun.from_jsonable(fields["run"])})


class DescriptionBuffer:
    """Two texts, of which the newest is valid: the writer fills the other one. One writer (the supervisor)."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        self._sequence = SequenceRing.over(buffer, layout.ring_control_at, 2)
        self._buffer = buffer
        self._layout = layout

    def write(self, description: RunDescription) -> bool:
        """Writer: replace the text. False if it does not fit: then the old text stays, and the run goes on.

        Only the reasons of restarts grow during a run: they are summed up before the text is given up.
        """
        text = description.to_text()
        if len(text) > self._layout.description_bytes:
            reasons = description.restart_reasons
            summed = {f"{len(reasons)} different reasons, too long for onlookers": sum(reasons.values())}
            text = replace(description, restart_reasons=summed if reasons else {}).to_text()
        if len(text) > self._layout.description_bytes:
            return False
        seq = self._sequence.newest() + 1
        self._sequence.begin(seq)
        at = self._layout.description_at(seq)
        DESCRIPTION_HEAD.struct.pack_into(self._buffer, at, len(text))
        at += DESCRIPTION_HEAD.num_bytes
        self._buffer[at : at + len(text)] = text
        self._sequence.commit(seq)
        return True

    def read(self) -> RunDescription | None:
        """Reader: the newest text; None before the first (the run is still starting)."""
        while (seq := self._sequence.newest()) >= 0:
            at = self._layout.description_at(seq)
            (num_bytes,) = DESCRIPTION_HEAD.struct.unpack_from(self._buffer, at)
            at += DESCRIPTION_HEAD.num_bytes
            text = bytes(self._buffer[at : at + num_bytes])
            if not self._sequence.was_lapped(seq):
                return RunDescription.from_text(text)
        return None
