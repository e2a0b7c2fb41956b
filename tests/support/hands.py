"""An operator who does what a test tells it, in a process of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

TOLD = "RTCORE_TEST_HAND"


def tell(told: Path, what: str) -> None:
    """Whole, or not yet."""
    (draft := told.with_suffix(".draft")).write_text(what)
    draft.replace(told)


class Hand:
    """Does what a file says: a number takes the controls and acts, a fault happens once, anything else lets go."""

    def __init__(self, space: Any) -> None:
        self._told = Path(os.environ[TOLD])
        if self._told.read_text() == "broken":
            raise RuntimeError("no such hand")

    def __call__(self, observation: Any) -> Any:
        told = self._told.read_text()
        if told in ("die", "raise", "hang"):
            tell(self._told, "nothing")
            if told == "die":
                os._exit(3)
            if told == "raise":
                raise RuntimeError("dropped it")
            time.sleep(600)
        if told == "break":
            tell(self._told, "broken")
            os._exit(4)
        return int(told) if told.isdigit() else None
