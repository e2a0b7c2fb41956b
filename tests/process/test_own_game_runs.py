"""`rtcore/GameBoy-v0` through the runtime, as a user says it on a command line; on the game of our own."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

BLOCKS = str(files("rtcore_envs") / "roms" / "blocks.gb")
#: Paid for every piece that has landed; over after three of them.
GAME = (
    "actions=noop,B,left,right,left+B,start=wait 100, randomize, start 1,randomize=u16[0xC00A],"
    "reward=delta(u16[0xC012]),done=u16[0xC012] == 3,info=pieces: u16[0xC012]"
)


COMMAND = (sys.executable, "-m", "rtcore.cli.run", "--policy", "random", "--workers", "1", "--no-live")
SETTINGS = ("--env-id", "rtcore/GameBoy-v0", "--rom", BLOCKS, "--env-args", GAME)


def run(out: Path, *arguments: str) -> list[dict[str, str]]:
    """The ticks of a run that went to its end."""
    done = subprocess.run(
        [*COMMAND, *arguments, "--out", str(out)], capture_output=True, text=True, timeout=120, check=False
    )
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


def test_a_game_in_words_is_played_in_real_time(tmp_path: Path) -> None:
    rows = run(tmp_path, *SETTINGS, "--ticks", "240")
    returns = episodes(rows)
    assert len(returns) >= 1
    assert set(returns) == {3.0}
    assert {row["applied_action"] for row in rows} >= {"0", "1", "2", "3", "4"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["episodes"]["returns"] == returns
    assert summary["ticks"]["ideal_hz"] == pytest.approx(59.7275, abs=1e-3)


def test_the_same_settings_from_a_file_give_the_same_game_on_the_virtual_clock(tmp_path: Path) -> None:
    virtual = ("--clock", "virtual", "--latency", "constant:5", "--ticks", "900", "--seed", "4")
    rows = run(tmp_path / "flags", *SETTINGS, *virtual)
    assert len(episodes(rows)) >= 2
    assert set(episodes(rows)) == {3.0}
    printing = [*COMMAND, *SETTINGS, "--print-config"]
    settings = subprocess.run(printing, capture_output=True, text=True, check=True)
    (tmp_path / "game.toml").write_text(settings.stdout)
    again = run(tmp_path / "file", "--config", str(tmp_path / "game.toml"), *virtual)
    assert again == rows
