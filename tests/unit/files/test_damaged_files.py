"""Two hundred flipped bits and cuts in each kind of file: the right result or one named error, never anything else.

In `make test` the first third of them. In this process, where nothing but Python and NumPy reads the file. One test for
each kind runs the program.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from rtcore.cli.report import main as rtcore_report
from rtcore.cli.run import main as rtcore_run
from rtcore.config.flags import parse_config, to_toml
from rtcore.config.run import make_config
from rtcore.errors import ConfigError, RtcoreError, printable
from rtcore.files.outside import LONGEST_LINE_BYTES, SUMS
from rtcore.learn.checkpoint import MODEL, OPTIMIZER, STATE, load_state, load_weights
from rtcore.memory.layout import TRACE_EVENT
from rtcore.memory.trace import TraceKind, spool_head
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, TICKS_FILE
from rtcore.report.page.build import build_page
from rtcore.report.perfetto.writer import convert_folder
from rtcore.results.explain import explain_tick
from rtcore.results.folder import FILES, read_run
from rtcore.scheduling.dispatch import TickKind
from rtcore.virtual.latency import parse_latency
from rtcore.virtual.simulate import Simulation
from tests.support.drawn import cases
from tests.support.recorded_runs import recorded, tampering

pytestmark = [pytest.mark.unit, pytest.mark.drawn]

LEARNED = {
    "env_id": "CartPole-v1",
    "fps": 50,
    "clock": "virtual",
    "latency": "constant:5",
    "policy": "mlp",
    "policy_args": {"hidden": 8},
    "learn": "dqn",
    "learning_starts": 10,
    "batch_size": 4,
    "workers": 1,
    "ticks": 80,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned and was recorded."""
    out = tmp_path_factory.mktemp("runs") / "run"
    config = make_config(**LEARNED, out=out, record=True)
    simulation = Simulation(config)
    simulation.run()
    simulation.close()
    (out / "config.json").write_text(json.dumps({"config": config.to_jsonable(), "command": [], "versions": {}}))
    (out / "summary.json").write_text(json.dumps(simulation.summary()))
    (out / "own.toml").write_text(to_toml(config))
    return out


def damaged(file: Path, times: int, seed: int) -> Iterator[str]:
    """Damage `file`, `times` times, each time anew; it is whole again afterwards."""
    rng, good = random.Random(seed), file.read_bytes()
    for number in range(cases(times)):
        data = bytearray(good)
        if number % 4 == 3:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        yield f"{file.name}, damage {number} of seed {seed}"
    file.write_bytes(good)


def survives(read: Callable[[], object], what: str) -> bool:
    """Whether it is read; a named error is none of a terminal's business. Anything else fails the test."""
    try:
        read()
    except RtcoreError as error:
        assert str(error) == printable(str(error)), what
        return False
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return True


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, STATE, SUMS])
def test_a_damaged_checkpoint_is_found_out(run: Path, name: str) -> None:
    folder = (run / "checkpoints" / "last").resolve()
    for what in damaged(folder / name, 200, 1):
        assert not survives(lambda: load_state(folder), what), what


@pytest.mark.parametrize("name", [MODEL, STATE])
def test_a_damaged_checkpoint_without_checksums_is_read_or_named(run: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "old"
    shutil.copytree((run / "checkpoints" / "last").resolve(), folder)
    (folder / SUMS).unlink()
    for what in damaged(folder / name, 200, 2):
        survives(lambda: load_state(folder), what)


def test_a_damaged_recording_is_found_out(run: Path) -> None:
    for what in damaged(run / FOLDER / TICKS_FILE, 200, 3):
        assert not survives(lambda: Recording(run).close(), what), what


def test_damaged_settings_are_read_or_named(run: Path) -> None:
    for what in damaged(run / "own.toml", 200, 4):
        survives(lambda: parse_config(["--config", str(run / "own.toml")]), what)


def test_damaged_latencies_are_read_or_named(run: Path) -> None:
    for what in damaged(run / "jobs.csv", 200, 5):
        survives(lambda: parse_latency(f"trace:{run / 'jobs.csv'}", 0)(3), what)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_run_folder_is_shown_as_far_as_it_goes(run: Path, name: str) -> None:
    def look() -> None:
        found = read_run(run)
        if found.ticks:
            explain_tick(found, found.ticks[len(found.ticks) // 2].tick)

    for number, what in enumerate(damaged(run / name, 200, 6)):
        survives(look, what)
        if number % 10 == 0:
            survives(lambda: build_page([read_run(run)]), what)


def test_damaged_events_are_a_trace_or_named(tmp_path: Path) -> None:
    rows = np.zeros(60, TRACE_EVENT.dtype)
    for number in range(60):
        rows[number] = (TraceKind.TICK, 1000 * number, 1000 * number + 60, number, -1, -1, -1, TickKind.ACTED)
    file = tmp_path / "trace-env.events"
    file.write_bytes(spool_head() + rows.tobytes())
    for what in damaged(file, 200, 8):
        survives(lambda: convert_folder(tmp_path), what)


# -- HDF5 without a checksum: read by another process first ------------------------------------------------------------


def unfinished(folder: Path) -> Path:
    """What a recorder leaves that is killed at tick 100."""
    kept = folder / "killed.hdf5"

    def keep(simulation: Simulation, tick: int) -> None:
        if tick == 100:
            assert simulation.recording is not None
            simulation.recording._collect()
            simulation.recording._writer.flush(everything=True)
            shutil.copy(folder / FOLDER / TICKS_FILE, kept)

    recorded(folder, on_tick=keep)
    shutil.rmtree(folder / FOLDER)
    return kept


def test_an_unfinished_recording_that_is_cut_is_a_named_error_and_no_hang(tmp_path: Path) -> None:
    file = unfinished(tmp_path)
    with Recording(file) as recording:
        assert recording.num_ticks == 101
    good = file.read_bytes()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(ConfigError, match=r"killed\.hdf5"):
        Recording(file, limit_s=2.0)
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 4
    file.write_bytes(flipped)
    survives(lambda: Recording(file, limit_s=2.0).close(), "a flipped bit in the middle")


@pytest.mark.slow
def test_twenty_damaged_recordings_without_a_checksum_are_read_or_named(tmp_path: Path) -> None:
    file = unfinished(tmp_path)
    for what in damaged(file, 20, 7):
        survives(lambda: Recording(file, limit_s=3.0).close(), what)


# -- made on purpose: with checksums that agree ----------------------------------------------------------------------


def test_rows_without_end_links_out_and_foreign_filters_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.arange(200, dtype=np.int64).tobytes())

    def replace(file: h5py.File, name: str, **how: object) -> None:
        del file[name]
        if "link" in how:
            file[name] = how["link"]
        else:
            file.create_dataset(name, **how)

    tricks: dict[str, Callable[[h5py.File], None]] = {
        "more than": lambda file: file["ticks/reward"].resize(1 << 40, axis=0),
        "does not lie in the file": lambda file: replace(
            file, "ticks/tick", shape=(120,), dtype="i8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)]
        ),
        "ticks/reward does not lie in": lambda file: replace(
            file, "ticks/reward", link=h5py.ExternalLink("/etc/hostname", "/x")
        ),
        "expected float64": lambda file: replace(file, "ticks/reward", data=np.zeros((120, 3), np.float64)),
        "spec": lambda file: file.attrs.modify(
            "world",
            json.dumps(
                json.loads(file.attrs["world"])
                | {"observation": {"shape": [1 << 40], "dtype": "uint8", "low": [0], "high": [255]}}
            ),
        ),
        "damaged, or no recording": lambda file: file.attrs.modify("world", "[" * 100_000),
    }
    for number, (problem, trick) in enumerate(tricks.items()):
        out = tmp_path / str(number)
        recorded(out)
        with tampering(out) as file:
            trick(file)
        with pytest.raises(ConfigError, match=problem):
            Recording(out)


def test_tables_of_holes_and_endless_lines_are_not_read_to_their_end(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    os.truncate(tmp_path / "run" / "actions.csv", 40 << 30)
    notes = " ".join(read_run(tmp_path / "run").notes)
    assert f"more than {LONGEST_LINE_BYTES:,} bytes on line" in notes
    os.truncate(tmp_path / "run" / "jobs.csv", 40 << 30)
    with pytest.raises(ConfigError, match="more than 1,048,576 bytes on line|jobs.csv, line"):
        parse_latency(f"trace:{tmp_path / 'run' / 'jobs.csv'}", 0)
    (tmp_path / "run" / "summary.json").unlink()
    os.mkfifo(tmp_path / "run" / "summary.json")
    assert "is no ordinary file" in " ".join(read_run(tmp_path / "run").notes)


@pytest.mark.parametrize(
    ("damaged", "problem"),
    [
        (lambda text: text[: text.rindex(",")], r"line \d+: \d+ columns instead of \d+"),
        (lambda text: text.replace("\n", "", 2), r"line 2: \d+ columns instead of \d+"),
        (lambda text: "12.5\n13.5,1\n", "line 2: 2 columns instead of 1"),
        (lambda text: "12.5\n1e9\n", "line 2: '1e9' is no time"),
        (lambda text: "12.5\nfast\n", "line 2: could not convert"),
    ],
)
def test_a_damaged_trace_of_times_is_refused_with_the_line(run: Path, tmp_path: Path, damaged, problem) -> None:
    trace = tmp_path / "jobs.csv"
    trace.write_text((run / "jobs.csv").read_text())
    parse_latency(f"trace:{trace}", 0)
    trace.write_text(damaged(trace.read_text()))
    with pytest.raises(ConfigError, match=problem):
        parse_latency(f"trace:{trace}", 0)


def test_weights_of_holes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / MODEL).touch()
    os.truncate(tmp_path / MODEL, 40 << 30)
    with pytest.raises(ConfigError, match="no safetensors file"):
        load_weights(tmp_path)


# -- the programs ----------------------------------------------------------------------------------------------------


def test_the_programs_end_with_one_named_error(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    last = (copy / "checkpoints" / "last").resolve()
    for file in (last / MODEL, copy / FOLDER / TICKS_FILE):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    (copy / "own.toml").write_bytes(b'policy = "\x1b]0;mine\x07"\n')
    (copy / "actions.csv").write_bytes(b"\x1b[2J\n")
    virtual = ("--clock", "virtual", "--ticks", "5", "--no-live")
    for program, words, expected in (
        (rtcore_run, ("--policy-checkpoint", str(copy), *virtual), "is damaged"),
        (rtcore_run, ("--replay", str(copy)), "is damaged"),
        (rtcore_run, ("--config", str(copy / "own.toml"), *virtual), "is not TOML"),
        (rtcore_run, ("--latency", f"trace:{copy / 'actions.csv'}", "--policy", "random", *virtual), "one number"),
        (rtcore_report, (str(copy),), "no column"),
    ):
        with pytest.raises(SystemExit) as ended:
            program([*words])
        said, errors = capfd.readouterr()
        assert (ended.value.code, expected in errors) == (2, True), (words, errors)
        assert "Traceback" not in errors
        assert "\x1b" not in said + errors
