"""The documents that say where things are name what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rtcore.moved import MOVED

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
#: Their lines name the classes and functions of the file that they name.
OF_THE_CODE = ("docs/architecture.md", "CONTRIBUTING.md")
DOCUMENTS = [
    str(path.relative_to(ROOT))
    for part in (".", "docs", "docs/adr", "examples/c_reader")
    for path in sorted((ROOT / part).glob("*.md"))
]
PATH = re.compile(r"`((?:rtcore|workers|envs|tests|tools|docs|examples|benchmarks)/(?:[\w/]*/|[\w/]+\.\w+)?)`")
#: `Class`, `Class.method` and `CONSTANT`: the names of the file whose path is the nearest in their line.
NAME = re.compile(r"`([A-Z]\w*(?:\.\w+)?)`")
FILE = re.compile(r"`(\w+\.py)[`:]")
DOTTED = re.compile(r"\b((?:rtcore|rtcore_workers|rtcore_envs|benchmarks|tools)(?:\.\w+)+)")
SOURCES = [ROOT / root for root in ("", "workers", "envs")]
FOLDERS = ("rtcore", "workers", "envs", "tests", "tools", "examples", "benchmarks")
FILES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
#: Of whoever reads the document.
THEIR_FILES = {"socket.py", "train.py"}
#: Columns of a LeRobot data set: no modules.
COLUMNS = {"rtcore.tick", "rtcore.delay_ticks", "rtcore.worker"}


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
    """Paths, files and modules of a line that are not there."""
    wrong = [path for path in PATH.findall(line) if not (ROOT / path).exists()]
    wrong += [name for name in FILE.findall(line) if name not in FILES | THEIR_FILES]
    return wrong + [name for name in DOTTED.findall(line) if not is_there(name)]


def undefined(line: str) -> list[str]:
    """Names that none of the line's files defines."""
    files = [ROOT / path for path in PATH.findall(line) if (ROOT / path).is_file() and path.endswith(".py")]
    known = {name for file in files for name in names_in(file)}
    return [name for name in NAME.findall(line) if files and name not in known]


def is_there(dotted: str) -> bool:
    """Whether it is a module, or a name that its module says, or has moved."""
    if dotted in MOVED or dotted in COLUMNS:
        return True
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        for module in (source.joinpath(*parts[:count]) for source in SOURCES):
            file = module.with_suffix(".py") if module.with_suffix(".py").is_file() else module / "__init__.py"
            if file.is_file():
                return count == len(parts) or re.search(rf"\b{parts[count]}\b", file.read_text()) is not None
    return False


def test_a_path_or_a_name_that_is_not_there_is_found() -> None:
    assert missing("`rtcore/clock.py`, `clock.py`, rtcore.clock.TickGrid, `rtcore.Runtime`") == []
    assert missing("`rtcore/clocks.py`, `clocks.py`") == ["rtcore/clocks.py", "clocks.py"]
    assert missing("rtcore.clocks, `rtcore.clock.Tock`") == ["rtcore.clocks", "rtcore.clock.Tock"]
    assert undefined("`rtcore/clock.py` has `TickClock` and `TickGrid.tick_at`") == []
    assert undefined("`TickClocks`, `TickGrid.tock` in `rtcore/clock.py`") == ["TickClocks", "TickGrid.tock"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_and_name_in_the_document_is_there(document: str) -> None:
    lines = (ROOT / document).read_text().splitlines()
    find = (missing, undefined) if document in OF_THE_CODE else (missing,)
    wrong = [f"{document}:{number}: {name}" for number, line in enumerate(lines, 1) for of in find for name in of(line)]
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
