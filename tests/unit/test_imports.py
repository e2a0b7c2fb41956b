"""What a process loads before it needs it: nothing."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rtcore.moved import MOVED, RENAMED

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
#: Where packages are imported from, and which is there.
PACKAGES = {"": "rtcore", "workers": "rtcore_workers", "envs": "rtcore_envs"}

HEAVY = {"torch", "numpy", "gymnasium", "matplotlib", "rich", "h5py", "av", "posix_ipc", "rtcore_workers"}
HELP = """
import sys
sys.argv = ["{name}", "--help"]
try:
    from {module} import main
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
#: The program about worlds names them in its help text: they are Gymnasium's. Its output stands beside its options.
FOR_WORLDS = {"gymnasium", "numpy", "rich"}


def imported_by(program: str) -> tuple[set[str], str]:
    """What a program imports, and what it prints."""
    code = f"{program}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split()), done.stdout


def test_rtcore_itself_imports_nothing_that_is_not_needed() -> None:
    assert not (HEAVY | {"pydantic", "asyncio", "tempfile", "importlib.abc"}) & imported_by("import rtcore")[0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_help_text_needs_nothing_of_what_its_program_does(name: str) -> None:
    imported, printed = imported_by(HELP.format(name=name, module=PROGRAMS[name].partition(":")[0]))
    heavy = HEAVY - FOR_WORLDS if name == "rtcore-rom" else HEAVY
    assert not (heavy | {"rtcore.runtime.runtime"}) & imported
    assert "examples:" in printed or name == "rtcore-rom"
    assert "pydantic" not in imported or name == "rtcore-run", "settings are of runs"


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Checks the packages in `tree` against the table in its pyproject.toml."""
    path = os.pathsep.join(str(tree / source) for source in PACKAGES)
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": path},
    )


def test_every_import_runs_down_the_layers_of_pyproject_toml() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "added", "said"),
    [
        ("rtcore/memory/ring.py", "from rtcore.loop import tickloop", "rtcore.memory.ring -> rtcore.loop.tickloop"),
        (
            "rtcore/scheduling/schedule.py",
            "from rtcore.config import run",
            "rtcore.scheduling.schedule -> rtcore.config",
        ),
        ("rtcore/clock.py", "def later():\n    import rtcore.errors", "rtcore.clock -> rtcore.errors"),
        (
            "rtcore/learn/throttle.py",
            "import rtcore_workers.learner",
            "rtcore.learn.throttle -> rtcore_workers.learner",
        ),
        ("rtcore/report/table.py", "from rtcore.processes import workers", "rtcore.report.table -> rtcore.processes"),
        ("envs/rtcore_envs/blocks.py", "import rtcore.spaces", "rtcore_envs.blocks -> rtcore.spaces"),
        (
            "rtcore/memory/layout/record_type.py",
            "from rtcore.memory import ring",
            "No cycles are allowed in rtcore.memory",
        ),
    ],
    ids=(
        "up",
        "up from what is pure",
        "beside, inside a function",
        "up to workers",
        "beside",
        "from a world",
        "in a circle",
    ),
)
def test_one_import_that_runs_up_or_beside_is_found(file: str, added: str, said: str, tmp_path: Path) -> None:
    for source, name in PACKAGES.items():
        package = Path(source, name)
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.gb", "*.npz", "__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as text:
        text.write(f"\n\n{added}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout
    assert said in done.stdout


def test_every_package_of_rtcore_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    there = {f"rtcore.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "rtcore")])}
    assert there - named == {"rtcore.moved"}, "the one that names old paths and imports nothing"
    assert named - there == {"rtcore_workers"}


@pytest.mark.parametrize("old", [old for old, new in MOVED.items() if new is not None])
def test_a_path_that_moved_is_the_module_itself_and_says_where_it_is_now(old: str) -> None:
    new = MOVED[old]
    assert new is not None
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}") as told:
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)
    assert told[0].filename == importlib.__file__
    for name, today in RENAMED.get(old, {}).items():
        assert getattr(module, name) is getattr(module, today)


def test_a_module_that_moved_runs_by_its_old_path_too() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "rtcore.recording.mend", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage:" in done.stdout
    assert "rtcore.recording.mend is now rtcore.cli.mend" in done.stderr
