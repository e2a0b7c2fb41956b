"""How programs end: exit codes, signals, a stdout that nobody reads or that cannot be written."""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rtcore.cli.exits import Stopped, signals_as_exceptions, stop_if_told, stopping_by
from rtcore.cli.run import main

pytestmark = pytest.mark.process

PROGRAM = """
import os, signal, sys, time
from rtcore.cli.exits import end_program, stop_if_told
from rtcore.errors import ConfigError, PolicyError
def body():
    {body}
    return 0
end_program("prog", body, goes_on={goes_on})
"""


def end_of(body: str, *, goes_on: bool = False, shell: str = "{}", stdout: object = subprocess.PIPE) -> object:
    program = PROGRAM.format(body=body.replace("\n", "\n    "), goes_on=goes_on)
    command = shell.format(f"{sys.executable} -c '{program}'")
    return subprocess.run(
        ["bash", "-c", command], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )


#: Seeds 10130 and 10192 of `rtcore-torture real`.
NO_DESCRIPTOR_LEFT = """import resource
unused = os.dup(0)
os.close(unused)
resource.setrlimit(resource.RLIMIT_NOFILE, (unused, unused))
"""
STOPPED_WITHIN_PYDANTIC = """from pydantic import BaseModel, field_serializer
class Told(BaseModel):
    at: int
    @field_serializer("at")
    def kill(self, at):
        os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("body", "exitcode", "words"),
    [
        ("pass", 0, ""),
        ("return 3", 3, ""),
        ('raise PolicyError("no")', 1, "prog: PolicyError: no"),
        ('raise ConfigError("no")', 2, "prog: ConfigError: no"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "stopped by SIGINT"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "stopped by SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGHUP)", 129, "stopped by SIGHUP"),
        # Seed 18227: pydantic makes an error of its own of what is raised while it serializes.
        (f"{STOPPED_WITHIN_PYDANTIC}Told(at=1).model_dump()", 143, "stopped by SIGTERM"),
        (
            f'{STOPPED_WITHIN_PYDANTIC}try: Told(at=1).model_dump()\nfinally: raise PolicyError("no")',
            1,
            "prog: PolicyError: no",
        ),
        (f"{NO_DESCRIPTOR_LEFT}import rtcore.runtime", 1, "Too many open files"),
        (f"{NO_DESCRIPTOR_LEFT}import _queue", 1, "Raise the limit of open files (ulimit -n)"),
        (f'{NO_DESCRIPTOR_LEFT}raise PolicyError("no")', 1, "prog: PolicyError: no"),
        (f"{NO_DESCRIPTOR_LEFT}os.kill(os.getpid(), signal.SIGINT)", 130, "stopped by SIGINT"),
    ],
)
def test_an_end_has_the_exit_code_that_the_readme_says(body, exitcode, words):
    done = end_of(body)
    assert (done.returncode, "Traceback" in done.stderr) == (exitcode, False), done.stderr
    assert words in done.stderr
    assert bool(words) == bool(done.stderr)


def test_a_fault_on_the_way_out_after_a_signal_is_not_taken_for_the_signal():
    done = end_of('try: os.kill(os.getpid(), signal.SIGTERM)\nfinally: raise ValueError("its own")')
    assert done.returncode == 1 and "ValueError: its own" in done.stderr


DROPS = """class Drops:
    def __del__(self):
        {}
Drops()
until = time.monotonic() + 60
while time.monotonic() < until:
    time.sleep(0.001)"""


def test_a_signal_whose_exception_python_dropped_is_heard_all_the_same():
    """As in an emulator's compiled code, which cannot raise."""
    done = end_of(DROPS.format("os.kill(os.getpid(), signal.SIGINT)"))
    assert (done.returncode, done.stderr) == (130, "prog: stopped by SIGINT; everything is cleaned up\n")


def test_of_other_exceptions_that_were_dropped_python_still_tells():
    done = end_of(DROPS.format("1 / 0").replace("60", "0.1"))
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr


def test_a_run_in_a_folder_that_was_deleted_is_refused_by_name(tmp_path: Path):
    folder = tmp_path / "gone"
    folder.mkdir()
    command = f'cd {folder}; rmdir {folder}; exec {sys.executable} -P -c "from rtcore.cli.run import main; main([])"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "the current folder has been deleted" in done.stderr


def test_under_nohup_a_hangup_is_no_reason_to_end():
    done = end_of('os.kill(os.getpid(), signal.SIGHUP); print("goes on")', shell="trap '' HUP; exec {}")
    assert (done.returncode, done.stdout) == (0, "goes on\n")


def test_a_program_whose_reader_is_gone_ends_quietly_as_others_do():
    body = 'for i in range(100000): print(i, flush=True)\nopen("/dev/stderr", "w").write("not reached")'
    done = end_of(body, shell="{} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_a_run_whose_reader_is_gone_learns_of_it_without_a_word_to_say_and_ends_as_if_it_was_stopped():
    body = "while True:\n    stop_if_told()\n    time.sleep(0.01)"
    done = end_of(body, goes_on=True, shell="{} | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 141
    assert done.stderr == "prog: nobody reads its output any more; everything is cleaned up\n"


def test_nothing_that_a_run_cannot_print_keeps_it_from_its_work():
    body = 'print(1, flush=True)\nos.write(2, b"worked on")\nreturn 0'
    with Path("/dev/full").open("w") as full:
        done = end_of(body, goes_on=True, stdout=full)
    assert done.returncode == 1
    assert "worked on" in done.stderr
    assert "stdout cannot be written (No space left on device)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_is_not_hidden_by_a_full_stdout():
    with Path("/dev/full").open("w") as full:
        done = end_of('print(1, flush=True)\nraise ConfigError("no")', stdout=full)
    assert (done.returncode, "ConfigError: no" in done.stderr) == (2, True)


def test_streams_that_were_closed_do_not_become_files_of_the_program():
    body = 'f = open("/dev/null")\nassert f.fileno() > 2\nprint("lost")'
    assert end_of(body, shell="{} <&- >&- 2>&-").returncode == 0


def test_a_character_that_the_terminal_does_not_know_is_written_another_way():
    done = end_of('print("\\\\udc80 \\\\u2588")', shell="PYTHONIOENCODING=ascii {}")
    assert (done.returncode, done.stdout) == (0, "\\udc80 \\u2588\n")


def test_a_signal_asks_first_and_the_second_one_does_not_wait():
    asked = []
    with signals_as_exceptions(), stopping_by(lambda: asked.append(1)) as stops:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked == [1]
        with pytest.raises(Stopped, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)
    assert [stop.exitcode for stop in stops] == [143, 130]


@pytest.mark.parametrize(
    ("clock", "place"),
    [("wall", "rtcore.cli.play.Boards.close"), ("virtual", "rtcore.cli.play.Boards.close")]
    + [
        pytest.param("virtual", place, marks=pytest.mark.slow)
        for place in ("rtcore.virtual.simulate.Simulation.close", "rtcore.cli.do_run.details")
    ],
)
def test_a_signal_that_comes_once_the_last_tick_is_done_takes_no_file_from_the_run(tmp_path, monkeypatch, clock, place):
    there = pkgutil.resolve_name(place.rpartition(".")[0])
    name = place.rpartition(".")[2]
    real = getattr(there, name)

    def signalled(*args):
        os.kill(os.getpid(), signal.SIGHUP)
        return real(*args)

    monkeypatch.setattr(there, name, signalled)
    run = ["--env-id", "CartPole-v1", "--policy", "synthetic", "--policy-args", "latency_ms=50", "--workers", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*run, "--clock", clock, "--fps", "100", "--ticks", "30", "--no-live", "--out", str(tmp_path / "run")])
    assert ended.value.code == 129
    ticks = json.loads((tmp_path / "run" / "summary.json").read_text())["ticks"]
    assert ticks["count"] + ticks["skipped"] == 30
    assert (tmp_path / "run" / "timeline.png").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_is_dropped_by_a_finalizer_stops_the_program_all_the_same():
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with signals_as_exceptions():
        stop_if_told()
        Finalized()
        with pytest.raises(Stopped, match="SIGINT"):
            stop_if_told()
    with signals_as_exceptions():
        stop_if_told()


@pytest.mark.parametrize("program", ["run", "top", "report", "profile", "doctor", "rom"])
@pytest.mark.parametrize(("arguments", "exitcode"), [("--help", 0), ("--no-such-option", 2)])
def test_every_program_says_what_it_does_into_a_closed_pipe_and_knows_a_wrong_option(
    program, arguments, exitcode, capsys
):
    with pytest.raises(SystemExit) as ended:
        pkgutil.resolve_name(f"rtcore.cli.{program}:main")([arguments])
    assert ended.value.code == exitcode
    assert ("usage" in capsys.readouterr().out.lower()) == (exitcode == 0)
    closed = f"{sys.executable} -m rtcore.cli.{program} {arguments} | true; exit ${{PIPESTATUS[0]}}"
    cut = subprocess.run(["bash", "-c", closed], capture_output=True, text=True, timeout=120, check=False)
    assert cut.returncode in ((0, 141) if exitcode == 0 else (2,))
    assert (cut.stderr == "") == (exitcode == 0), cut.stderr
