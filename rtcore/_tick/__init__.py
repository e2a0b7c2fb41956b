"""The tick path in C where it was compiled, else in Python: the environment variable RTCORE_TICK=c|python chooses.

`compiled` is the extension module, or None: then rtcore/memory/ and rtcore/clock.py do the same in Python. They are the
text of the protocols, which the tests drive through every schedule; protocol.h is that with explicit memory orders.
"""

from __future__ import annotations

import os
from typing import Any

_WANTED = os.environ.get("RTCORE_TICK", "python")


def _load() -> Any:
    if _WANTED != "c":
        return None
    try:
        from rtcore._tick import _compiled  # noqa: PLC0415 - may not be there
    except ImportError:
        return None
    return _compiled


compiled = _load()
