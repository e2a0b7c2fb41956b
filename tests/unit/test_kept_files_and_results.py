"""What an earlier commit wrote is read, replayed and resumed; the virtual clock repeats its runs to the bit.

tests/data/06734c2 holds what that commit wrote, tests/data/keep.py made it.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import json
import shutil
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rtcore.cli import report
from rtcore.cli.run import main
from rtcore.config.flags import parse_command
from rtcore.host.seeding import entropy_of, seed_generators
from rtcore.results.folder import read_run
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit

DATA = Path(__file__).parents[1] / "data"
KEPT = DATA / "06734c2"


def load_keep() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keep", DATA / "keep.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


keep = load_keep()
RUNS = keep.read_runs(KEPT)
#: Where a network computes, the last bits are those of one kind of CPU and of one PyTorch.
COMPUTED = [name for name, words in RUNS["virtual"].items() if words[words.index("--policy") + 1] != "random"]

#: Of summary.json: where the run was kept, and how large its recording is, which may have new columns.
PLACES = {"path", "out", "bytes"}


def exit_code(program: Any, *words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        program([str(word) for word in words])
    return int(ended.value.code or 0)


def rows_of(text: str) -> tuple[list[str], list[list[str]]]:
    columns, *rows = csv.reader(text.splitlines())
    return columns, rows


def differences(kept: Any, new: Any, where: str = "") -> list[str]:
    """What `kept` says and `new` does not; what is only in `new` is no difference."""
    if isinstance(kept, dict) and isinstance(new, dict):
        found = [f"{where}/{key} is missing" for key in kept if key not in new]
        shared = [key for key in kept if key in new and key not in PLACES]
        return found + [line for key in shared for line in differences(kept[key], new[key], f"{where}/{key}")]
    if isinstance(kept, list) and isinstance(new, list) and len(kept) == len(new):
        pairs = enumerate(zip(kept, new, strict=True))
        return [line for index, (one, other) in pairs for line in differences(one, other, f"{where}/{index}")]
    return [] if kept == new else [f"{where}: {kept!r} became {new!r}"]


@pytest.mark.parametrize("name", RUNS["virtual"])
def test_a_run_on_the_virtual_clock_is_the_same_as_before_to_the_bit(name: str, tmp_path: Path) -> None:
    here, there = keep.cpu_kind(), json.loads((KEPT / keep.KIND_FILE).read_text())
    if name in COMPUTED and here != there:
        pytest.skip(f"a network computes other last bits here ({here}) than where the results were kept ({there})")
    words = [*RUNS["every_virtual_run"], *RUNS["virtual"][name], "--out", str(tmp_path)]
    config = parse_command(words).config
    seed_generators(entropy_of(config.world.seed, 0, "virtual", 0, 0))  # as rtcore-run does
    simulation = Simulation(config)
    simulation.run()
    simulation.close()
    kept = KEPT / "virtual" / name
    for file in ("actions.csv", "jobs.csv"):
        columns, rows = rows_of(gzip.decompress((kept / f"{file}.gz").read_bytes()).decode())
        new_columns, new_rows = rows_of((tmp_path / file).read_text())
        assert new_columns[: len(columns)] == columns, f"{file}: new columns go to the end"
        for row, new_row in zip(rows, new_rows, strict=True):
            assert dict(zip(columns, new_row, strict=False)) == dict(zip(columns, row, strict=True)), file
    summary = json.loads(gzip.decompress((kept / "summary.json.gz").read_bytes()))
    assert not differences(summary, json.loads(json.dumps(simulation.summary())))
    weights = kept / "weights.json"
    assert keep.weights_of(tmp_path) == (json.loads(weights.read_text()) if weights.exists() else {})


def test_every_learning_run_kept_its_weights() -> None:
    learning = {name for name, words in RUNS["virtual"].items() if "--learn" in words}
    assert learning == {path.parent.name for path in KEPT.glob("virtual/*/weights.json")}
    assert len(learning) >= 5


@pytest.fixture
def recorded_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT / "recorded_run", tmp_path / "recorded_run"))


@pytest.fixture
def learned_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT / "learned_run", tmp_path / "learned_run", symlinks=True))


def test_a_kept_recording_replays_without_a_difference(recorded_run: Path, capsys) -> None:
    code = exit_code(main, "--replay", recorded_run)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    assert "60 ticks" in shown.out


def test_a_kept_run_is_reported_and_one_of_its_ticks_explained(recorded_run: Path, capsys) -> None:
    pytest.importorskip("plotly")
    assert exit_code(report.main, recorded_run) == 0, capsys.readouterr().err
    assert "CartPole-v1" in (recorded_run / "report.html").read_text()
    assert exit_code(report.main, recorded_run, "--tick", "30") == 0, capsys.readouterr().err
    assert "30" in capsys.readouterr().out


def test_a_kept_run_is_read_to_its_last_row(recorded_run: Path) -> None:
    run = read_run(recorded_run)
    assert (len(run.ticks), len(run.jobs)) == (run.summary["ticks"]["count"], run.summary["actions"]["jobs"])
    assert len(run.ticks) == 60
    assert not run.notes


@pytest.mark.parametrize("what", ("", "checkpoints/last", "checkpoints"))
def test_a_kept_checkpoint_goes_on_learning(what: str, learned_run: Path, capsys) -> None:
    updates = json.loads((learned_run / "summary.json").read_text())["learner"]["updates"]
    resumed = learned_run / what
    if what == "checkpoints":
        (resumed,) = (path for path in resumed.iterdir() if path.name.isdigit())
    few = ("--ticks", "60", "--no-live", "--no-pictures", "--no-tensorboard")
    code = exit_code(main, "--resume", resumed, *few, "--out", learned_run)
    assert code == 0, capsys.readouterr().err
    assert json.loads((learned_run / "summary.json").read_text())["learner"]["updates"] > updates
    assert list(learned_run.glob("earlier/*"))


def test_a_kept_checkpoint_is_played(learned_run: Path, tmp_path: Path, capsys) -> None:
    words = [
        "--clock",
        "virtual",
        "--latency",
        "constant:30",
        "--ticks",
        "40",
        "--no-live",
        "--no-pictures",
        "--out",
        tmp_path / "played",
    ]
    assert exit_code(main, "--policy-checkpoint", learned_run, *words) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "played" / "config.json").read_text())["config"]["env_id"] == "CartPole-v1"


def test_kept_settings_say_the_same_as_before(capsys) -> None:
    assert exit_code(main, "--config", KEPT / "settings.toml", "--print-config") == 0
    now = tomllib.loads(capsys.readouterr().out)
    kept = tomllib.loads((KEPT / "settings.toml").read_text())
    assert len(kept) > 40
    assert not differences(kept, now)
