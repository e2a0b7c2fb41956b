"""Every JSON that rtcore writes can be read by others: no NaN, no Infinity."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import rtcore
from rtcore.config.run import make_config
from rtcore.files.strict_json import dumps, write_json
from rtcore.learn.checkpoint import CheckpointFolder
from rtcore.report.finished import write_results
from rtcore.report.table import details, headline
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit


class Generous(gymnasium.Env[Any, Any]):
    """Episodes whose returns add up to more than a float holds."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 100}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,))
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._ticks = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self._ticks += 1
        return np.zeros(2, np.float32), 1e308 * (self._ticks == 1), self._ticks >= 30, False, {}


def strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_json_has_no_number_for_is_null_or_a_word():
    value = {"a": [math.nan, math.inf, (-math.inf, 1.5)], "b": np.float64(math.inf)}
    assert strictly(dumps(value)) == {"a": [None, "inf", ["-inf", 1.5]], "b": "inf"}


def test_a_file_that_cannot_be_written_leaves_no_draft_and_the_old_one(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]
    assert strictly(path.read_text()) == {"old": 1}


def test_returns_beyond_every_float_are_in_files_that_others_can_read(tmp_path):
    fields = {"policy": "random", "clock": "virtual", "latency": "constant:15", "ticks": 600}
    config = make_config(
        env_id="tests.unit.files.test_strict_json:Generous", workers=2, out=tmp_path, record=True, **fields
    )
    simulation = Simulation(config).run()
    simulation.close()
    summary = simulation.summary()
    assert summary["episodes"]["return_mean"] == math.inf
    details(summary, tmp_path)
    headline(summary)
    write_results(tmp_path, summary, simulation.stats(), simulation.record)
    CheckpointFolder(tmp_path / "checkpoints", 1).write({}, {}, {"updates": 1, "mean_return": math.inf})
    files = [*tmp_path.rglob("*.json")]
    assert {"summary.json", "config.json", "state.json"} <= {path.name for path in files}
    for path in files:
        strictly(path.read_text())
    assert strictly((tmp_path / "summary.json").read_text())["episodes"]["return_mean"] == "inf"


def test_no_program_writes_json_another_way():
    """`json.dumps` is for messages between processes of rtcore, and for formats of others."""
    root = Path(rtcore.__file__).parent
    allowed = {"strictjson.py", "build.py", "machine.py", "trials.py", "minari.py", "options.py"}
    for path in [*(root / "cli").glob("*.py"), *(root / "report").rglob("*.py"), *(root / "recording").glob("*.py")]:
        if path.name in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps"):
                literal_only = path.name == "writer.py" and isinstance(node.value, ast.Name)
                assert literal_only or not (isinstance(node.value, ast.Name) and node.value.id == "json"), path
