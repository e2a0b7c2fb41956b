"""How large the shared memory of a run is: from its settings and its world."""

from __future__ import annotations

import json
from typing import Any

from rtcore.config import RuntimeConfig
from rtcore.layout import Layout
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.trace import TRACE_SLOTS

_LOG_SLOTS = 16384
#: Room for what a run says of itself, beside its world's spaces.
_ABOUT_BYTES = 65536


def layout_for(config: RuntimeConfig, env_info: dict[str, Any]) -> Layout:
    """How large a run's segments are. `env_info`: what the env process says of its world."""
    observation = ObservationSpec.from_json(env_info["observation"])
    return Layout(
        max_workers=config.worker_places,
        ring_slots=config.resolved_ring_slots(observation.nbytes),
        log_slots=_LOG_SLOTS,
        frame_bytes=observation.nbytes,
        action_bytes=ActionSpec.from_json(env_info["action"]).nbytes,
        chunk=config.chunk,
        about_bytes=_ABOUT_BYTES + 2 * len(json.dumps(env_info)),
        trace_slots=TRACE_SLOTS if config.trace else 0,
    )
