"""JSON as others read it: RFC 8259 has no NaN and no Infinity, Python's json writes them all the same."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from rtcore.files.whole import whole_file


def finite(value: Any) -> Any:
    """`value` with what JSON has no number for in its place: NaN is null, infinities are "inf" and "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def dumps(value: Any, indent: int | None = None) -> str:
    """The text of `finite(value)`. TypeError for what JSON does not have at all."""
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def write_json(path: Path, content: Any, *, indent: int | None = 2, sync: bool = False) -> None:
    """A file, whole or not at all. `sync`: on the disk when this returns, also if the machine then loses power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write(dumps(content, indent) + "\n")
        if sync:
            file.flush()
            os.fsync(file.fileno())
