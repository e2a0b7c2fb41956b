"""What may not be looked at is an error in words, whatever it is for, and not taken for missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rtcore.errors import ConfigError
from rtcore.experiments.records import read_manifest
from rtcore.files.outside import is_there
from rtcore.learn.checkpoint import find_state_folder
from rtcore.recording.schema import ticks_file
from rtcore.results.folder import read_run
from rtcore_workers.policies import check_named

pytestmark = pytest.mark.unit

READERS: dict[str, Callable[[Path], Any]] = {
    "run": read_run,
    "sweep": read_manifest,
    "recording": ticks_file,
    "resume": lambda path: find_state_folder(path, "resume"),
    "policy": lambda path: check_named(f"{path}.py:Net", {}),
}


@pytest.fixture(params=["its name is too long", "its folder is another user's"])
def unseen(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "its name is too long":
        return tmp_path / ("x" * 300)
    if os.geteuid() == 0:
        pytest.skip("root may look everywhere")
    (tmp_path / "closed").mkdir(mode=0)
    return tmp_path / "closed" / "x"


@pytest.mark.parametrize("what", READERS)
def test_what_cannot_be_looked_at_is_said_with_its_reason(what: str, unseen: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^{what}: .* cannot be looked at: (File name too long|Permission denied)$"):
        READERS[what](unseen)


def test_what_is_not_there_or_can_be_the_name_of_no_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_there(tmp_path / "file", "x")
    for missing in (tmp_path / "none", tmp_path / "file" / "below", tmp_path / "a\0b"):
        assert not is_there(missing, "x")
