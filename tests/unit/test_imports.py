"""What a process loads before it needs it: nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from rtcore.moved import MOVED

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]

HEAVY = {"torch", "numpy", "gymnasium", "matplotlib", "rich", "h5py", "av", "posix_ipc", "rtcore_workers"}
HELP = """
import sys
sys.argv = ["rtcore-run", "--help"]
try:
    from rtcore.cli.entry import main
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    ("program", "also"),
    (("import rtcore\n", {"pydantic", "asyncio"}), (HELP, {"rtcore.runtime.runtime"})),
    ids=("import rtcore", "rtcore-run --help"),
)
def test_nothing_is_imported_that_is_not_needed(program: str, also: set[str]) -> None:
    code = f"{program}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (HEAVY | also) & set(done.stderr.split())
    assert program != HELP or "--env-id" in done.stdout


def test_every_import_runs_down_the_layers_of_pyproject_toml() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("old", [old for old, new in MOVED.items() if new is not None])
def test_a_path_that_moved_is_the_module_itself_and_says_where_it_is_now(old: str) -> None:
    new = MOVED[old]
    assert new is not None
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}") as told:
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert told[0].filename == importlib.__file__
