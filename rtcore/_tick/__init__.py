"""The tick path in C where it was compiled, else in Python: the environment variable RTCORE_TICK=c|python chooses.

`compiled` is the extension module, or None: then rtcore/memory/ does the same in Python. That is the text of the
protocols, which the tests drive through every schedule; protocol.h is that with explicit memory orders.
"""

from __future__ import annotations

import os
from typing import Any

#: Of protocol.h: a binary that was compiled from another is not used.
_VERSION = 6
_HOW_TO_COMPILE = (
    "install a C compiler and Python's headers (sudo apt install gcc libc6-dev python3-dev), then rtcore again"
)


def _load() -> tuple[Any, str, str]:
    """The extension or None, what runs in a few words, and what is wrong with the choice."""
    chosen = os.environ.get("RTCORE_TICK", "")
    if chosen not in ("", "c", "python"):
        return None, "Python", f"RTCORE_TICK={chosen}: expected c or python"
    if chosen == "python":
        return None, "Python (RTCORE_TICK=python)", ""
    try:
        from rtcore._tick import _compiled  # noqa: PLC0415 - may not be there
    except ImportError:
        lacks = "the tick path was not compiled"
    else:
        if _compiled.VERSION == _VERSION:
            return _compiled, "C", ""
        lacks = f"the tick path was compiled from version {_compiled.VERSION}, expected {_VERSION}"
    return None, f"Python: {lacks}", f"RTCORE_TICK=c: {lacks}; {_HOW_TO_COMPILE}" if chosen else ""


compiled, in_words, problem = _load()
how_to_compile = _HOW_TO_COMPILE if in_words.startswith("Python:") else ""
