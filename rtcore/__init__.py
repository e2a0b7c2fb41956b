"""rtcore: runtime for realtime reinforcement learning with staggered asynchronous inference.

    with rtcore.Runtime(env_id="rtcore/Blocks-v0", policy="impala", duration=10) as runtime:
        runtime.wait()
    print(runtime.summary()["actions"]["acted_fraction"])

Each part is usable alone: `FrameRing`, `ActionSlots`, `TickClock`, `Schedule`, `Dispatcher`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtcore.clock import TickClock, TickGrid
    from rtcore.config import RuntimeConfig
    from rtcore.dispatch import Dispatcher
    from rtcore.embed.realtimeenv import RealtimeEnv
    from rtcore.ring import FrameRing
    from rtcore.runtime import Runtime
    from rtcore.schedule import Schedule
    from rtcore.slots import ActionSlots

__version__ = "0.1.0"

_HOMES = {
    "ActionSlots": "rtcore.slots",
    "Dispatcher": "rtcore.dispatch",
    "FrameRing": "rtcore.ring",
    "RealtimeEnv": "rtcore.embed.realtimeenv",
    "Runtime": "rtcore.runtime",
    "RuntimeConfig": "rtcore.config",
    "Schedule": "rtcore.schedule",
    "TickClock": "rtcore.clock",
    "TickGrid": "rtcore.clock",
}

__all__ = [
    "ActionSlots",
    "Dispatcher",
    "FrameRing",
    "RealtimeEnv",
    "Runtime",
    "RuntimeConfig",
    "Schedule",
    "TickClock",
    "TickGrid",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load on first use: importing rtcore costs a process nothing it does not need."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rtcore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
