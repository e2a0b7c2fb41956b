"""More than five positional values are a record without names: they are handed over by keyword."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SOURCES = ("rtcore", "workers/rtcore_workers", "envs/rtcore_envs")
#: Calls that take no keywords: `struct`'s pack and pack_into, h5py's own layer below its datasets, a system call, and
#: what is made in C.
NO_KEYWORDS = {"self._pack", "_WORDS.pack", "HEADER.pack", "h5.h5d.create", "sdl.SDL_CreateWindow", "_wake"}
NO_KEYWORDS |= {f"compiled.{name}" for name in ("Waker", "Store", "book", "give_context")}
MOST = 5


def long_calls(source: str) -> list[str]:
    """Line and text of each call in `source` with more positional values than `MOST`."""
    return [
        f"{node.lineno}: {ast.unparse(node)[:100]}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and len(node.args) > MOST and ast.unparse(node.func) not in NO_KEYWORDS
    ]


def test_no_call_has_more_than_five_positional_values() -> None:
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 200
    assert not [f"{path.relative_to(ROOT)}:{call}" for path in files for call in long_calls(path.read_text())]


@pytest.mark.parametrize(
    "call", ("Tick(1, 2, 3, 4, 5, 6)", "self.note(1, 2, 3, 4, 5, *rest)", "x = [make(1, 2, 3, 4, 5, 6, name=7)]")
)
def test_a_call_with_six_is_found(call: str) -> None:
    assert len(long_calls(f"def f():\n    {call}\n")) == 1


def test_keywords_and_five_values_are_let_through() -> None:
    assert not long_calls("f(1, 2, 3, 4, 5, six=6, seven=7)\nself._pack(1, 2, 3, 4, 5, 6, 7)")
