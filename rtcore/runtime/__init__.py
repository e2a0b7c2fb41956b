"""What a program imports: `Runtime`, `RealtimeEnv`, `rtgym`.

Imports `processes` and `report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtcore.runtime.runtime import Runtime

__all__ = ["Runtime"]


def __getattr__(name: str) -> Any:
    """Load on first use: what stands below `Runtime` here needs none of it."""
    if name != "Runtime":
        raise AttributeError(f"module 'rtcore.runtime' has no attribute {name!r}")
    from rtcore.runtime.runtime import Runtime  # noqa: PLC0415

    return Runtime
