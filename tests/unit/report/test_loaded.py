"""A run's folder as tables, and what a notebook shows of a run."""

from __future__ import annotations

import base64
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import rtcore
from rtcore.errors import ConfigError
from rtcore.files.strict_json import dumps
from rtcore.report.loaded import LoadedRun
from rtcore.results.rows import INFERENCES, TICKS
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    """A run on the virtual clock, over: 3 workers of 50 ms."""
    folder = tmp_path_factory.mktemp("run")
    settings = {"env_id": "CartPole-v1", "policy": "synthetic", "policy_args": {"latency_ms": 50}, "workers": 3}
    simulation = Simulation(rtcore.RuntimeConfig(**settings, clock="virtual", ticks=60, out=folder))
    simulation.run()
    simulation.close()
    return simulation


@pytest.fixture(scope="module")
def run(simulation: Simulation) -> LoadedRun:
    return rtcore.load_run(str(simulation.config.output.out))


@pytest.mark.parametrize(("table", "file", "rows"), [("ticks", "actions.csv", TICKS), ("jobs", "jobs.csv", INFERENCES)])
def test_a_table_has_every_row_and_column_of_its_file(run: LoadedRun, table, file, rows):
    array = run.to_numpy(table)
    with (run.path / file).open() as text:
        lines = list(csv.DictReader(text))
    assert list(array.dtype.names) == list(lines[0]) == list(run.columns(table)) == list(rows.columns)
    assert len(array) == len(lines)
    for name in array.dtype.names:
        if array.dtype[name].kind == "U":
            assert array[name].tolist() == [line[name] for line in lines]
        else:
            empty = np.nan if array.dtype[name].kind == "f" else -1
            told = np.array([float(line[name]) if line[name] else empty for line in lines])
            np.testing.assert_array_equal(array[name].astype(float), told, err_msg=name)


def test_what_a_job_without_an_answer_lacks_is_nan_or_minus_one(run: LoadedRun):
    rows = [run.jobs[0]._replace(inference_ms=None, obs_tick=-1)]
    table = INFERENCES.table(rows)
    assert np.isnan(table["inference_ms"][0])
    assert table["obs_tick"][0] == -1


def test_a_run_without_rows_has_tables_without_rows():
    assert len(TICKS.table([])) == 0
    assert TICKS.table([]).dtype.names == TICKS.columns


def test_pandas_gets_the_same_columns_with_their_meanings(run: LoadedRun):
    pytest.importorskip("pandas")
    frame = run.to_pandas("ticks")
    assert frame["kind"].tolist() == run.to_numpy("ticks")["kind"].tolist()
    assert frame.attrs["columns"] == run.columns("ticks")


def test_another_table_is_refused_by_name(run: LoadedRun):
    with pytest.raises(ConfigError, match="no table 'actions' in a run; expected one of ticks, jobs"):
        run.to_numpy("actions")


def test_a_program_of_ones_own_leaves_the_summary_too(simulation: Simulation, run: LoadedRun):
    assert run.summary == json.loads(dumps(simulation.summary()))
    assert not [note for note in run.notes if "summary.json" in note]


def test_a_run_is_named_in_short_at_a_prompt(run: LoadedRun):
    assert repr(run).endswith(f"{len(run.ticks)} ticks, {len(run.jobs)} inferences>")


def test_a_notebook_shows_the_numbers_and_the_same_picture_of_a_run_and_of_its_folder(simulation, run: LoadedRun):
    pictures = []
    for shown in (run._repr_html_(), simulation._repr_html_()):
        assert "acted, of possible ticks" in shown
        picture = base64.b64decode(re.search(r'alt="[^"]+" src="data:image/png;base64,([^"]*)"', shown)[1])
        assert picture.startswith(b"\x89PNG")
        pictures.append(picture)
    assert pictures[0] == pictures[1]


def test_text_of_a_folder_is_not_markup_in_a_notebook(simulation, tmp_path: Path):
    folder = tmp_path / "<b>"
    folder.mkdir()
    for name in ("actions.csv", "jobs.csv"):
        (folder / name).write_bytes((simulation.config.output.out / name).read_bytes())
    shown = rtcore.load_run(folder)._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "summary.json is missing" in shown


def test_a_run_that_has_not_begun_is_its_usual_text_in_a_notebook():
    assert rtcore.Runtime(env_id="CartPole-v1", policy="mlp")._repr_html_() is None
