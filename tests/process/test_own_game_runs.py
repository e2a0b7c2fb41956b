"""`rtcore/GameBoy-v0` through the runtime, as a user says it on a command line; on the game of our own."""

from __future__ import annotations

import csv
import json
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.drills import Run

pytestmark = pytest.mark.process

BLOCKS = str(files("rtcore_envs") / "roms" / "blocks.gb")
#: Paid for every piece that has landed; over after three of them.
GAME = (
    "actions=noop,B,left,right,left+B,start=wait 100, randomize, start 1,randomize=u16[0xC00A],"
    "reward=delta(u16[0xC012]),done=u16[0xC012] == 3,info=pieces: u16[0xC012]"
)


SETTINGS = (
    *("--policy", "random", "--workers", "1", "--no-live", "--no-pictures"),
    *("--env-id", "rtcore/GameBoy-v0", "--rom", BLOCKS, "--env-args", GAME),
)


def rows_of(done: subprocess.CompletedProcess[str], out: Path) -> list[dict[str, str]]:
    """The ticks of a run that went to its end."""
    assert done.returncode == 0, done.stderr
    with (out / "actions.csv").open() as file:
        return list(csv.DictReader(file))


def episodes(rows: list[dict[str, str]]) -> list[float]:
    """The return of each whole episode."""
    returns, total = [], 0.0
    for row in rows:
        total += float(row["reward"])
        if row["terminated"].lower() in ("1", "true"):
            returns.append(total)
            total = 0.0
    return returns


def test_a_game_in_words_is_played_in_real_time(run_here: Run, tmp_path: Path) -> None:
    # Put off where this machine is busy, so that it is the game that is as long.
    done = run_here(*SETTINGS, "--ticks", "240", "--overrun", "stretch", "--out", str(tmp_path))
    rows = rows_of(done, tmp_path)
    returns = episodes(rows)
    assert len(returns) >= 1
    assert set(returns) == {3.0}
    assert {row["applied_action"] for row in rows} >= {"0", "1", "2", "3", "4"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["episodes"]["returns"] == returns
    assert summary["ticks"]["ideal_hz"] == pytest.approx(59.7275, abs=1e-3)


def test_the_same_settings_from_a_file_give_the_same_game_on_the_virtual_clock(run_here: Run, tmp_path: Path) -> None:
    virtual = ("--clock", "virtual", "--latency", "constant:5", "--ticks", "900", "--seed", "4")
    rows = rows_of(run_here(*SETTINGS, *virtual, "--out", str(tmp_path / "flags")), tmp_path / "flags")
    assert len(episodes(rows)) >= 2
    assert set(episodes(rows)) == {3.0}
    settings = run_here(*SETTINGS, "--print-config")
    (tmp_path / "game.toml").write_text(settings.stdout)
    done = run_here(
        "--config", str(tmp_path / "game.toml"), *virtual, "--no-live", "--no-pictures", "--out", str(tmp_path / "file")
    )
    assert rows_of(done, tmp_path / "file") == rows
