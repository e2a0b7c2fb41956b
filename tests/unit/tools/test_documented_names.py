"""The documents that say where things are name what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
DOCUMENTS = ("docs/architecture.md", "CONTRIBUTING.md")
PATH = re.compile(r"`((?:rtcore|workers|envs|tests|tools|docs|examples|benchmarks)/[\w/.]*)`")
#: `Class`, `Class.method` and `CONSTANT`: the names of the file whose path is the nearest in their line.
NAME = re.compile(r"`([A-Z]\w*(?:\.\w+)?)`")


def names_in(path: Path) -> set[str]:
    """Every class, method, function and constant that a file defines."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def missing(line: str) -> list[str]:
    """Paths of a line that are not there, and names that none of its files defines."""
    paths = PATH.findall(line)
    wrong = [path for path in paths if not (ROOT / path).exists()]
    files = [ROOT / path for path in paths if path.endswith(".py") and path not in wrong]
    known = {name for file in files for name in names_in(file)}
    return wrong + [name for name in NAME.findall(line) if files and name not in known]


def test_a_path_or_a_name_that_is_not_there_is_found() -> None:
    assert missing("`rtcore/clock.py` has `TickClock` and `TickGrid.tick_at`") == []
    assert missing("`rtcore/clocks.py`") == ["rtcore/clocks.py"]
    assert missing("`TickClocks`, `TickGrid.tock` in `rtcore/clock.py`") == ["TickClocks", "TickGrid.tock"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_name_in_the_document_is_there(document: str) -> None:
    lines = (ROOT / document).read_text().splitlines()
    wrong = [f"{document}:{number}: {name}" for number, line in enumerate(lines, 1) for name in missing(line)]
    assert not wrong


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    packages = {path.parent.name for path in ROOT.glob("rtcore/*/__init__.py")}
    assert not {name for name in packages if f"`rtcore/{name}/`" not in text}


def test_the_main_files_of_a_folder_are_in_it() -> None:
    rows = re.findall(
        r"^\| `((?:rtcore|workers)/[\w/]+/)` \|.*\| (`.*`) \|$", (ROOT / "docs/architecture.md").read_text(), re.M
    )
    assert len(rows) > 10
    named = [ROOT / folder / name for folder, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert not [path for path in named if not (path.is_dir() or path.with_suffix(".py").is_file())]
