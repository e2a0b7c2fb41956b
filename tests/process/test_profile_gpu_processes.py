"""`rtcore-profile gpu` with real processes, the CPU executor in the GPU's place; MPS with a pretended daemon."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rtcore.cli.profile import main
from rtcore.errors import ConfigError, PolicyError, RtcoreError, WorkerDied
from rtcore.profile.gpu_crew import MPS_DAEMON, MPS_PIPES, Crew, own_mps

pytestmark = pytest.mark.process

DAEMON = """\
#!/bin/sh
# Stands in for nvidia-cuda-mps-control: a control pipe while it "runs", nothing left after "quit".
if [ "$1" = "-d" ]; then
    touch "$CUDA_MPS_PIPE_DIRECTORY/control"
else
    read command && [ "$command" = quit ] && mv "$CUDA_MPS_PIPE_DIRECTORY/control" "$QUIT_FILE"
fi
"""


def put_daemon(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / MPS_DAEMON
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("QUIT_FILE", str(folder / "quit"))


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
    parts = [(row["part"], row.get("bytes"), row.get("how"), row.get("workers")) for row in found["rows"]]
    assert parts == [
        ("copy", 1000, None, None),
        ("copy", 50000, None, None),
        ("inference", None, None, None),
        ("overlap", None, "streams", 1),
        ("overlap", None, "streams", 2),
        ("overlap", None, "processes", 1),
        ("overlap", None, "processes", 2),
    ]
    for row in found["rows"]:
        assert row["device"] == "cpu"
        assert 0 < row["p50_us"] <= row["p99_us"]
        assert row["part"] != "overlap" or row["inferences_per_s"] > 0
    assert "in the place of a GPU" in capsys.readouterr().out
    assert (tmp_path / "gpu-overlap.png").exists()


def test_a_wrong_policy_ends_the_command_with_its_own_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(["gpu", "--device", "cpu", "--policy", "impla"])
    assert end.value.code == 2
    assert "did you mean 'impala'" in capsys.readouterr().err
    with Crew() as crew, pytest.raises(PolicyError, match="impla"):
        crew.run([{"task": "inference", "device": "cpu", "samples": 5, **_boot("impla")}])


def test_a_measuring_process_that_dies_is_named():
    boot = {"task": "copies", "device": "cpu", "sizes": [1 << 20], "samples": 10**9}
    with Crew() as crew:
        real = crew._launcher.poll

        def poll_and_kill(timeout_s: float) -> object:
            touched = real(timeout_s)
            for child in touched:
                if child.ready is not None:
                    child.kill()
            return touched

        crew._launcher.poll = poll_and_kill  # type: ignore[method-assign, assignment]
        with pytest.raises(WorkerDied, match="SIGKILL"):
            crew.run([boot])


def test_the_environment_of_mps_reaches_the_processes_and_not_this_program(tmp_path: Path):
    before = dict(os.environ)
    with Crew({MPS_PIPES: str(tmp_path)}) as crew:
        assert dict(os.environ) == before
        crew.run([{"task": "copies", "device": "cpu", "sizes": [10], "samples": 5}])
        given = Path(f"/proc/{crew._launcher._process.pid}/environ").read_bytes().split(b"\0")
    assert f"{MPS_PIPES}={tmp_path}".encode() in given


def test_an_own_daemon_lives_as_long_as_the_measurement(tmp_path: Path, monkeypatch):
    put_daemon(tmp_path, DAEMON, monkeypatch)
    with own_mps() as environment:
        pipes = Path(environment[MPS_PIPES])
        assert (pipes / "control").exists()
        assert not (tmp_path / "quit").exists()
    assert (tmp_path / "quit").exists()
    assert not pipes.exists()


def test_an_own_daemon_is_ended_after_a_failed_measurement_too(tmp_path: Path, monkeypatch):
    put_daemon(tmp_path, DAEMON, monkeypatch)
    with pytest.raises(KeyboardInterrupt), own_mps():
        raise KeyboardInterrupt
    assert (tmp_path / "quit").exists()


def test_a_daemon_that_refuses_is_quoted(tmp_path: Path, monkeypatch):
    put_daemon(tmp_path, "#!/bin/sh\necho An instance is already running >&2; exit 1\n", monkeypatch)
    with pytest.raises(RtcoreError, match="exit code 1.: An instance is already running"), own_mps():
        raise AssertionError("must not get here")


def test_no_daemon_to_start_is_a_wrong_setting(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="nvidia-cuda-mps-control is not on PATH"), own_mps():
        raise AssertionError("must not get here")


def _boot(policy: str) -> dict[str, object]:
    from argparse import ArgumentParser

    from rtcore.profile import gpu

    parser = ArgumentParser()
    gpu.add_arguments(parser)
    boot, _, _ = gpu.read_options(parser.parse_args(["--policy", policy, "--frame", "4x4"]))
    return boot
