"""How large the shared memory of a run is: from its settings and its world."""

from __future__ import annotations

import json
from typing import Any

from rtcore.config.run import SPARE_RING_SLOTS, RuntimeConfig
from rtcore.memory.layout import Layout
from rtcore.memory.trace import TRACE_SLOTS
from rtcore.spaces import ActionSpec, ObservationSpec

_LOG_SLOTS = 16384
#: Room for what a run says of itself, beside its settings and its world's spaces.
_ABOUT_BYTES = 65536


def fitted(config: RuntimeConfig, frame_bytes: int) -> tuple[RuntimeConfig, list[str]]:
    """The settings with no more workers for `auto` than the ring is long enough for; and what its user has to know."""
    slots, notes = config.resolved_ring_slots(frame_bytes), []
    each_mb, all_mb = frame_bytes / 1e6, slots * frame_bytes / 1e6
    if config.ring_slots is None and slots * frame_bytes > config.ring_budget_bytes:
        notes.append(
            f"WARNING: the frame ring takes {all_mb:.0f} MB of shared memory: {slots} frames of {each_mb:.1f} MB are "
            f"the fewest for this run (by default it is at most {config.ring_budget_bytes >> 20} MiB)"
        )
    most_workers = max(1, slots - SPARE_RING_SLOTS)
    if config.workers == "auto" and config.max_workers > most_workers:
        config = config.model_copy(update={"max_workers": most_workers})
        notes.append(
            f"the frame ring keeps {slots} frames of {each_mb:.1f} MB: enough for {most_workers} workers, and auto "
            "starts no more; --ring-slots N keeps more"
        )
    return config, notes


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
        about_bytes=_ABOUT_BYTES + 2 * (len(json.dumps(env_info)) + len(json.dumps(config.to_jsonable()))),
        trace_slots=TRACE_SLOTS if config.trace else 0,
    )
