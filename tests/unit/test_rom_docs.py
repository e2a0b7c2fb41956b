"""What docs/worlds.md shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rtcore_envs.library import KNOWN_ROMS
from rtcore_envs.registration import ENVIRONMENTS

pytestmark = pytest.mark.unit

PAGE = (Path(__file__).parents[2] / "docs" / "worlds.md").read_text()


def test_the_page_names_every_world_and_every_hash():
    for env_id in ENVIRONMENTS:
        assert f"| `{env_id}` |" in PAGE
    for known in KNOWN_ROMS:
        assert f"| {known.name} | `{known.sha256}` |" in PAGE


def test_the_world_of_ones_own_passes_its_own_test(tmp_path):
    section = PAGE.partition("## A world of your own")[2]
    world, test = re.findall(r"```python\n(.*?)```", section, re.S)
    (tmp_path / "my_game.py").write_text(world)
    (tmp_path / "test_my_game.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_game.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
