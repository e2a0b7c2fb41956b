"""One real comparison, by processes, in a terminal of 80x24; and one that Ctrl-C ends in its first half."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from rtcore.results.folder import read_run
from tests.support.drills import segments, started, wait_for

pytestmark = pytest.mark.process

COLUMNS, ROWS = 80, 24
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HALVES = ("sequential", "staggered")
RUN = (sys.executable, "-m", "rtcore.cli.run", "--compare", "sequential", "--policy", "random")


def in_a_terminal(*words: str) -> tuple[int, str]:
    """Exit code, and everything that the program drew."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    drawn = b""
    with started(*RUN, *words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            while data := os.read(ours, 65536):
                drawn += data
        except OSError:  # it has closed its end
            pass
        finally:
            os.close(ours)
        process.wait(timeout=150)
    assert not segments(process.pid)
    return process.returncode, drawn.decode()


def test_both_schedules_play_in_real_time_and_are_seen_side_by_side(tmp_path: Path):
    out = tmp_path / "c"
    words = ("--policy-args", "pad_ms=60", "--duration", "1.5", "--seed", "3", "--out", str(out))
    code, drawn = in_a_terminal(*words)
    assert code == 0, drawn
    assert "48;5;" in drawn, "the worlds are drawn in colour"
    lines = [line for part in drawn.split("\r\n") for line in ESCAPES.sub("", part).split("\r")]
    pictures = [line for line in lines if "▀" in line]
    assert pictures
    # A note may be a longer line, which the terminal breaks: what is laid out may not.
    laid_out = [line for line in lines if set(line) & set("▀█│┃")]
    assert max(map(cell_len, laid_out)) <= COLUMNS
    assert any("sequential" in line and "staggered" in line and "under way" in line for line in lines)

    content = json.loads((out / "compare.json").read_text())
    compared, own = (content[name] for name in HALVES)
    assert (compared["stagger"], own["stagger"], compared["workers"]) == ("sequential", "max-time", 1)
    assert min(compared["ticks"], own["ticks"]) > 0
    assert max(compared["ticks"], own["ticks"]) <= 89, "a busy machine skips some"
    assert content["random"]["ticks"] == own["ticks"], "it plays as many as the last one ran"
    assert own["acted_fraction"] > compared["acted_fraction"]
    for name in HALVES:
        run = read_run(out / name)
        assert (run.settings["seed"], run.settings["policy_args"], run.notes) == (3, {"pad_ms": 60}, [])
        with (out / name / "actions.csv").open(newline="") as file:
            assert sum(float(row["reward"]) for row in csv.DictReader(file)) == content[name]["points"]
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "compare.mp4").exists(), "nobody asked for it"


@pytest.mark.slow
def test_ctrl_c_in_the_first_half_leaves_what_there_is(tmp_path: Path):
    words = ("--policy-args", "pad_ms=60", "--duration", "600", "--video", "--no-live", "--out", str(tmp_path))
    rows = tmp_path / "sequential" / "actions.csv"
    with started(*RUN, *words) as program:
        wait_for(lambda: rows.exists() and rows.stat().st_size > 1000, "rows")
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=150)
    assert program.returncode == 130, said
    assert "stopped by SIGINT; everything is cleaned up" in said
    content = json.loads((tmp_path / "compare.json").read_text())
    assert content["sequential"]["stopped_by"] == "SIGINT"
    assert content["sequential"]["ticks"] == len(read_run(tmp_path / "sequential").ticks) > 0
    assert (content["staggered"], content["random"]) == (None, None)
    assert {path.name for path in tmp_path.iterdir()} == {".rtcore-lock", "compare.json", "compare.png", "sequential"}
    assert f"rtcore-run --replay {tmp_path / 'sequential'}" in said
    assert "sequential" in said.split("What", 1)[-1]
    assert not segments(program.pid)
