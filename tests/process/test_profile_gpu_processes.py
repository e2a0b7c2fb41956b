"""`rtcore-profile gpu` with real processes, the CPU executor in the GPU's place; what becomes of a child that fails."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rtcore.cli.profile import main
from rtcore.errors import PolicyError, RtcoreError, WorkerDied
from rtcore.profile.children import run_in_processes

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_on_cpus_the_whole_measurement_runs_and_says_that_it_is_not_a_gpu(tmp_path: Path, capsys):
    file = tmp_path / "gpu.json"
    arguments = ["--policy", "mlp", "--frame", "8x8", "--workers", "2", "--seconds", "0.2"]
    arguments += ["--samples", "20", "--sizes", "1000,50000", "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main(["gpu", *arguments, "--json", str(file), "--plot", str(tmp_path)])
    assert end.value.code == 0
    found = json.loads(file.read_text())
    assert (found["gpu"], found["device"], found["mps"], found["notes"]) == (None, "cpu", None, [])
    parts = [(row["part"], row.get("bytes"), row.get("workers")) for row in found["rows"]]
    assert parts == [
        ("copy", 1000, None),
        ("copy", 50000, None),
        ("inference", None, None),
        ("overlap", None, 1),
        ("overlap", None, 2),
    ]
    for row in found["rows"]:
        assert row["device"] == "cpu"
        assert row["p50_us"] > 0
        assert row["part"] != "overlap" or row["inferences_per_s"] > 0
    assert "in the place of a GPU" in capsys.readouterr().out
    assert (tmp_path / "gpu-overlap.png").exists()


def test_a_wrong_policy_ends_the_command_with_its_own_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(["gpu", "--device", "cpu", "--policy", "impla", "--sizes", "9"])
    assert end.value.code == 2
    assert "did you mean 'impala'" in capsys.readouterr().err


# -- children ------------------------------------------------------------------------------------------------


def fail(kind: str, number: int) -> int:
    if number == 1 and kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 1 and kind == "policy":
        raise PolicyError("out of memory")
    if number == 1 and kind == "other":
        raise ZeroDivisionError("by zero")
    return number


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("killed", WorkerDied, "child 1 .*SIGKILL"),
        ("policy", PolicyError, "out of memory"),
        ("other", RtcoreError, "ZeroDivisionError: by zero"),
    ],
)
def test_a_child_that_fails_is_the_error_of_all(kind, error, words):
    assert run_in_processes(fail, [("", 0), ("", 1)], role="child", timeout_s=150.0) == [0, 1]
    with pytest.raises(error, match=words):
        run_in_processes(fail, [(kind, 0), (kind, 1)], role="child", timeout_s=150.0)
