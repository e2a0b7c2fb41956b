"""What docs/worlds.md shows works as it stands there."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from rtcore.cli.rom import main
from rtcore.config.flags import parse_config
from rtcore_envs.expressions import FUNCTIONS
from rtcore_envs.library import KNOWN_ROMS
from rtcore_envs.owngame import OwnGameEnv
from rtcore_envs.registration import ENVIRONMENTS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "worlds.md").read_text()


def test_the_page_names_every_world_and_every_hash():
    for env_id in ENVIRONMENTS:
        assert f"| `{env_id}` |" in PAGE
    for known in KNOWN_ROMS:
        assert f"| {known.name} | `{known.sha256}` |" in PAGE


def test_the_game_in_words_is_made_as_the_page_says_it_on_the_command_line_and_in_a_file(tmp_path):
    section = PAGE.partition("## Any Game Boy game")[2]
    words = shlex.split(re.search(r"```sh\n(rtcore-run .*?)```", section, re.S)[1].replace("\\\n", ""))
    config, _ = parse_config(words[1:])
    (tmp_path / "game.toml").write_text(re.search(r"```toml\n(.*?)```", section, re.S)[1])
    in_file, _ = parse_config(["--config", str(tmp_path / "game.toml")])
    assert in_file.world.args == config.world.args
    env = gymnasium.make("rtcore/GameBoy-v0", **config.world.args | {"rom": ROOT / config.world.rom})
    assert env.reset(seed=0)[1] == {"state": "power-on", "lines": 0}
    env.close()


def test_the_search_for_an_address_prints_what_the_page_shows(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    session = re.search(r"```console\n(.*?)```", PAGE, re.S)[1]
    commands = re.findall(r"^\$ rtcore-rom (.*)\n((?:[^$].*\n)+)", session, re.M)
    assert len(commands) == 2
    for command, shown in commands:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command))
        assert ended.value.code == 0
        assert capsys.readouterr().out == shown


def test_the_page_names_every_argument_of_a_game_in_words():
    section = PAGE.partition("## Any Game Boy game")[2].partition("### In ten minutes")[0]
    for name in set(inspect.signature(OwnGameEnv).parameters) - {"rom", "render_mode"}:
        assert f"`{name}`" in section, name
    for name in FUNCTIONS:
        assert name in section


def test_the_world_of_ones_own_passes_its_own_test(tmp_path):
    section = PAGE.partition("## A world of your own")[2]
    world, test = re.findall(r"```python\n(.*?)```", section, re.S)
    (tmp_path / "my_game.py").write_text(world)
    (tmp_path / "test_my_game.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_game.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
