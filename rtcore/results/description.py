"""What a run consists of, as it stands in shared memory: what `rtcore-top` shows when it attaches from outside.

The supervisor writes it at tick 0 and after each change (a worker was restarted); any process may read it at any time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rtcore.config.resolved import ResolvedRun
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

    def to_text(self, most_bytes: int | None = None) -> bytes:
        """As JSON. If that is more than `most_bytes`, the reasons of restarts are summed up: only they grow during a
        run."""
        text = json.dumps(asdict(self) | {"plan": self.plan.to_text(), "run": self.run.to_jsonable()}).encode()
        reasons = self.restart_reasons
        if most_bytes is None or len(text) <= most_bytes or not reasons:
            return text
        summed = {f"{len(reasons)} different reasons, too long for onlookers": sum(reasons.values())}
        return replace(self, restart_reasons=summed).to_text()

    @classmethod
    def from_text(cls, text: bytes) -> RunDescription:
        fields = json.loads(text)
        return cls(**fields | {"plan": Plan.from_text(fields["plan"]), "run": ResolvedRun.from_jsonable(fields["run"])})
