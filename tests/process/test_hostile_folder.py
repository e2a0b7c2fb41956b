"""A program that is started in a folder whose files are called as modules are: of Python, of libraries, of rtcore."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]

#: Of the standard library, of what rtcore needs, and its own.
NAMES = ("socket", "types", "random", "queue", "json", "signal", "select", "numpy", "torch", "gymnasium", "posix_ipc")
PACKAGES = ("rtcore", "rtcore_workers", "multiprocessing", "importlib")
WORLD = """
import gymnasium

def make():
    return gymnasium.make("CartPole-v1")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    harm = f"open({str(tmp_path / 'RUN')!r}, 'a').write(__name__ + chr(10))\nraise SystemExit('not this one')\n"
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(harm)
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(harm)
    (tmp_path / "my_world.py").write_text(WORLD)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "rtcore-run --env-id my_world:make --fps 50 --policy mlp --workers 2 --duration 1 --no-live",
        "rtcore-doctor --env-id my_world:make --fps 50",
        pytest.param("rtcore-profile tick --seconds 1", marks=pytest.mark.slow),
    ],
    ids=lambda command: str(command).partition(" ")[0],
)
def test_no_file_there_is_taken_for_a_module_and_ones_own_world_is_found(folder: Path, command: str) -> None:
    program, *words = command.split()
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *words], cwd=folder, capture_output=True, text=True, check=False
    )
    ran = folder / "RUN"
    assert not ran.exists(), ran.read_text()
    assert "not this one" not in done.stdout + done.stderr
    if program != "rtcore-doctor":  # which may find the machine lacking
        assert done.returncode == 0, done.stdout + done.stderr
