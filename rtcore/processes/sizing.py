"""The sizes of a run's shared memory, from its settings and its world."""

from __future__ import annotations

import json
from typing import Any

from rtcore.config.resolved import ResolvedRun
from rtcore.memory.layout import Layout
from rtcore.memory.trace import TRACE_SLOTS
from rtcore.spaces import ActionSpec, ObservationSpec

_LOG_SLOTS = 16384
#: Room for what the run consists of (`rtcore.results.description`), beside its settings and the spaces of its world.
_DESCRIPTION_BYTES = 65536


def layout_for(run: ResolvedRun, observation: ObservationSpec, action: ActionSpec, header: dict[str, Any]) -> Layout:
    """The layout of a run's segments. `header`: what the run's description will say of the world."""
    return Layout(
        max_workers=run.num_places,
        ring_slots=run.ring_slots,
        log_slots=_LOG_SLOTS,
        frame_bytes=observation.nbytes,
        action_bytes=action.nbytes,
        chunk=run.config.agent.chunk,
        description_bytes=_DESCRIPTION_BYTES + 2 * (len(json.dumps(header)) + len(json.dumps(run.to_jsonable()))),
        trace_slots=TRACE_SLOTS if run.config.output.trace else 0,
    )
