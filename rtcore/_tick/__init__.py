"""The tick path in C where it was compiled, else in Python: the environment variable RTCORE_TICK=c|python chooses.

`compiled` is the extension module, or None: then rtcore/memory/ and rtcore/clock.py do the same in Python. They are the
text of the protocols, which the tests drive through every schedule; protocol.h is that with explicit memory orders.
"""

from __future__ import annotations

import os
from typing import Any

#: Of the two, if nothing is chosen.
_DEFAULT = "python"
_HOW_TO_COMPILE = (
    "install a C compiler and Python's headers (sudo apt install gcc libc6-dev python3-dev), then rtcore again"
)


def _load() -> tuple[Any, str, str]:
    """The extension or None, what runs in a few words, and what is wrong with it."""
    chosen = os.environ.get("RTCORE_TICK", "")
    wanted = chosen or _DEFAULT
    if wanted not in ("c", "python"):
        return None, "Python", f"RTCORE_TICK={chosen}: expected c or python"
    if wanted == "python":
        return None, f"Python (RTCORE_TICK={wanted})" if chosen else "Python (RTCORE_TICK=c: C)", ""
    try:
        from rtcore._tick import _compiled  # noqa: PLC0415 - may not be there
    except ImportError as error:
        return None, f"Python: {error}", f"RTCORE_TICK=c: {error}; {_HOW_TO_COMPILE}" if chosen else ""
    return _compiled, "C", ""


compiled, in_words, problem = _load()
how_to_compile = _HOW_TO_COMPILE if in_words.startswith("Python:") else ""
