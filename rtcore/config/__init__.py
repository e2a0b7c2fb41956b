"""Every setting of a run: the one `RuntimeConfig`, its flags, its TOML file.

Imports `scheduling`, `files`, `host`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtcore.config.run import RuntimeConfig, from_words, load_toml, make_config

__all__ = ["RuntimeConfig", "from_words", "load_toml", "make_config"]


def __getattr__(name: str) -> Any:
    """Load on first use: the help text of a program needs no settings."""
    if name not in __all__:
        raise AttributeError(f"module 'rtcore.config' has no attribute {name!r}")
    return getattr(importlib.import_module("rtcore.config.run"), name)
