"""Which tick path runs, and what is said where it is not the one that was asked for."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest

from rtcore import _tick
from rtcore.errors import UnsupportedPlatformError
from rtcore.memory.segments import check_platform

pytestmark = pytest.mark.unit


def choose(monkeypatch: pytest.MonkeyPatch, chosen: str, extension: Any) -> ModuleType:
    """The package as it is imported with RTCORE_TICK=`chosen`. `extension`: None: it was not compiled."""
    monkeypatch.setenv("RTCORE_TICK", chosen)
    monkeypatch.setitem(sys.modules, "rtcore._tick._compiled", extension)
    monkeypatch.delattr(_tick, "_compiled", raising=False)
    assert _tick.__file__ is not None
    spec = importlib.util.spec_from_file_location("as_chosen", _tick.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extension_of(version: int) -> ModuleType:
    module = ModuleType("rtcore._tick._compiled")
    module.VERSION = version  # type: ignore[attr-defined]
    return module


def test_c_is_taken_if_it_is_there_and_python_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there = extension_of(_tick._VERSION)
    for chosen in ("", "c"):
        taken = choose(monkeypatch, chosen, there)
        assert (taken.compiled, taken.in_words, taken.problem, taken.how_to_compile) == (there, "C", "", "")
    taken = choose(monkeypatch, "python", there)
    assert (taken.compiled, taken.problem, taken.how_to_compile) == (None, "", "")


def test_without_the_extension_python_says_what_to_install_and_c_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for extension, why in ((None, "was not compiled"), (extension_of(_tick._VERSION + 1), "compiled from version")):
        taken = choose(monkeypatch, "", extension)
        assert taken.compiled is None and why in taken.in_words and not taken.problem
        assert "C compiler" in taken.how_to_compile
        taken = choose(monkeypatch, "c", extension)
        assert why in taken.problem and "C compiler" in taken.problem


def test_a_word_that_is_neither_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = choose(monkeypatch, "rust", extension_of(_tick._VERSION))
    assert taken.problem == "RTCORE_TICK=rust: expected c or python"
    monkeypatch.setattr(_tick, "problem", taken.problem)
    with pytest.raises(UnsupportedPlatformError, match="expected c or python"):
        check_platform()
