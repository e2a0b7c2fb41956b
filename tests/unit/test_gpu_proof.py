"""`make gpu-proof`: each step stands alone, and what was found is kept as JSON and as the table of docs/gpu.md."""

from __future__ import annotations

import json
import os
import subprocess
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks import gpu_proof
from benchmarks.gpu_proof import BEGIN, DOCUMENT, END, Step, all_steps, prove, run, table_of, write_docs

pytestmark = pytest.mark.unit


def shell(name: str, text: str, limit_s: int = 300, **fields: Any) -> Step:
    return Step(name, f"that {name}", ["sh", "-c", text], limit_s, **fields)


def options(out: Path) -> Namespace:
    return Namespace(device="cpu", out=out, minutes=8.0, write_docs=False)


def complains(_folder: Path, said: str) -> Any:
    yield f"it said {said.strip()}"


def breaks(_folder: Path, _said: str) -> Any:
    raise KeyError("p99")


def test_a_step_that_fails_hides_none_of_the_others_and_all_is_kept(tmp_path: Path, capsys):
    steps = [
        shell("works", "echo 3", figures=lambda _folder, said: {"count": int(said)}),
        shell("fails", "exit 3"),
        shell("was-to-fail", "exit 2", exit_code=2),
        shell("complains", "echo moo", look=complains),
        shell("breaks", "true", figures=breaks),
        shell("cannot", "echo no such thing; exit 77"),
    ]
    assert prove(steps, options(tmp_path)) == 1
    found = json.loads((tmp_path / "proof.json").read_text())
    verdicts = {step["name"]: (step["verdict"], *step["wrong"]) for step in found["steps"]}
    assert verdicts == {
        "works": ("ok",),
        "fails": ("wrong", "exit code 3, expected 0"),
        "was-to-fail": ("ok",),
        "complains": ("wrong", "it said moo"),
        "breaks": ("wrong", "KeyError: 'p99'"),
        "cannot": ("cannot",),
    }
    table = (tmp_path / "proof.md").read_text()
    assert table == table_of(found)
    assert "| `works` | that works | ok | count 3 |" in table
    assert "| `fails` | that fails | **wrong**: exit code 3, expected 0 |  |" in table
    assert "cannot be done here: no such thing" in capsys.readouterr().out


def test_what_a_machine_cannot_do_is_no_failure(tmp_path: Path):
    assert prove([shell("works", "true"), shell("cannot", "exit 77")], options(tmp_path)) == 0


class Held(NamedTuple):
    """A pipe that what a step starts has open: it ends with the last of them."""

    reader: int
    writer: int

    def popen(self, kind: type[subprocess.Popen[bytes]] = subprocess.Popen) -> Any:
        return partial(kind, pass_fds=(self.writer,))

    def wait_for_end(self) -> None:
        os.close(self.writer)
        assert os.read(self.reader, 1) == b""
        os.close(self.reader)


@pytest.fixture
def held() -> Held:
    pipe = Held(*os.pipe())
    os.set_inheritable(pipe.writer, True)
    return pipe


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["that-ends-when-told", "that-does-not"])
def test_a_step_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch, held, trap):
    monkeypatch.setattr(gpu_proof, "_END_S", 0.2)
    monkeypatch.setattr(gpu_proof.subprocess, "Popen", held.popen())
    found = run(shell("hangs", f"{trap}(trap '' TERM; sleep 1000) & wait", limit_s=1), tmp_path, 100)
    assert found["wrong"] == ["exit code none within 1 s, expected 0"]
    held.wait_for_end()


def test_ctrl_c_ends_the_step_that_is_under_way(tmp_path: Path, monkeypatch, held):
    class Interrupted(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            if timeout == 100:
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(gpu_proof.subprocess, "Popen", held.popen(Interrupted))
    with pytest.raises(KeyboardInterrupt):
        run(shell("is-under-way", "sleep 1000"), tmp_path, 100)
    held.wait_for_end()


def test_a_step_for_which_no_time_is_left_is_told_and_not_run(tmp_path: Path):
    found = run(shell("works", f"touch {tmp_path}/ran"), tmp_path, 0.0)
    assert found["verdict"] == "no time"
    assert not (tmp_path / "ran").exists()
    assert "not run: no time was left" in table_of({"steps": [found], "machine": MACHINE} | WHEN)


MACHINE = {"gpus": ["a card, 580.1"], "torch": "2.13", "python": "3.12", "kernel": "6", "cpus": 16, "rtcore": "abc"}
WHEN = {"unix_time_s": 1_700_000_000, "elapsed_s": 400.0}


def mps_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, control: str) -> dict[str, Any]:
    """Runs `env` under an MPS daemon whose control program is `control`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    if control:
        (programs / "nvidia-cuda-mps-control").write_text(f"#!/bin/sh\n{control}\n")
        (programs / "nvidia-cuda-mps-control").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    command = ["sh", "-c", gpu_proof._UNDER_MPS, str(tmp_path / "mps"), "sh", "-c", 'echo "$CUDA_MPS_PIPE_DIRECTORY"']
    return run(Step("mps", "", command, 300), tmp_path, 100)


def test_mps_is_started_in_a_place_of_its_own_and_ended_again(tmp_path: Path, monkeypatch):
    control = f'echo "$CUDA_MPS_PIPE_DIRECTORY ${{1:-$(cat)}}" >> {tmp_path}/calls'
    assert mps_step(tmp_path, monkeypatch, control)["verdict"] == "ok"
    pipe = f"{tmp_path}/mps/pipe"
    assert (tmp_path / "mps.log").read_text() == f"{pipe}\n"
    assert (tmp_path / "calls").read_text() == f"{pipe} -d\n{pipe} quit\n"


@pytest.mark.parametrize(
    ("control", "said"), [("", "no nvidia-cuda-mps-control here"), ("exit 1", "the MPS daemon cannot be started")]
)
def test_without_mps_the_step_says_so(tmp_path: Path, monkeypatch, control, said):
    assert mps_step(tmp_path, monkeypatch, control)["verdict"] == "cannot"
    assert said in (tmp_path / "mps.log").read_text()


def test_the_table_goes_between_the_marks_of_the_document_and_nowhere_else(tmp_path: Path, monkeypatch):
    before, after = DOCUMENT.read_text().split(BEGIN)[0], DOCUMENT.read_text().split(END)[1]
    copy = tmp_path / "gpu.md"
    copy.write_text(DOCUMENT.read_text())
    monkeypatch.setattr(gpu_proof, "DOCUMENT", copy)
    for table in ("| first |\n", "| second |\n"):
        write_docs(table)
    assert copy.read_text() == f"{before}{BEGIN}\n\n| second |\n\n{END}{after}"


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_steps_have_names_of_their_own_and_each_fits_into_the_time_of_all(device):
    steps = all_steps(device, Path("out"))
    assert len({step.name for step in steps}) == len(steps)
    assert all(step.limit_s < 8 * 60 and step.proves for step in steps)
    assert ("cpu" in steps[2].command) == (device == "cpu")
