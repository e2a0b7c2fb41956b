"""Flags, the settings file and the config are one set of settings."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from rtcore.config.flags import parse_command, parse_config, schema, to_toml
from rtcore.config.help_text import Help
from rtcore.config.run import SETTINGS, make_config
from rtcore.errors import ConfigError

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]


def test_the_printed_settings_are_all_of_them_and_read_back_the_same(tmp_path: Path) -> None:
    config = make_config(learn="dqn", policy="dqn", policy_args={"pad_ms": 30}, gamma=0.9, workers=3, out=tmp_path)
    text = to_toml(config)
    for field in SETTINGS:
        assert f"{field.replace('_', '-')} =" in text
    (tmp_path / "all.toml").write_text(text)
    again, _ = parse_config(["--config", str(tmp_path / "all.toml")])
    assert again == config


def test_a_rom_is_an_argument_of_the_world_and_a_flag_wins_over_the_file(tmp_path: Path) -> None:
    config, _ = parse_config(["--rom", "a.gb", "--env-args", "state=x"])
    assert config.world.args == {"state": "x", "rom": "a.gb"}
    (tmp_path / "run.toml").write_text(to_toml(config))
    again, _ = parse_config(["--config", str(tmp_path / "run.toml"), "--rom", "b.gb"])
    assert again.world.args == {"state": "x", "rom": "b.gb"}
    with pytest.raises(ConfigError, match="rom=a.gb, but env_args has rom=5"):
        parse_config(["--rom", "a.gb", "--env-args", "rom=5"])


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=1,b=x", {"a": 1, "b": "x"}),
        ("actions=noop,A,left+A,done=u8[0xC0B0]==1", {"actions": "noop,A,left+A", "done": "u8[0xC0B0]==1"}),
        (
            "reward=max(u8[1], 2), done=u8[1] >= 3 and u8[2] != 4",
            {"reward": "max(u8[1], 2)", "done": "u8[1] >= 3 and u8[2] != 4"},
        ),
        ("start=wait 60, start 5,info=a: u8[1], b: u8[2]", {"start": "wait 60, start 5", "info": "a: u8[1], b: u8[2]"}),
        ('a="x,b=2",c=3', {"a": "x,b=2", "c": 3}),
        ('{"a": [1, 2]}', {"a": [1, 2]}),
        ("", {}),
    ],
)
def test_a_value_may_hold_commas_up_to_the_next_name(text: str, values: dict[str, object]) -> None:
    for words in (["--env-args", text], [f"--env_args={text}"]):
        assert parse_config(words)[0].world.env_args == values
    assert parse_config(["--env-args", "z=1", "--env-args", text])[0].world.env_args == {"z": 1} | values


@pytest.mark.parametrize("text", ["x", "=3", "x,y"])
def test_a_value_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="env-args: got .* expected NAME=VALUE"):
        parse_config(["--env-args", text])


@pytest.mark.parametrize("flag", ["--env-args", "--policy-args", "--policy-extras"])
def test_json_that_is_none_is_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match='Missing end delimiter "}"; expected NAME=VALUE'):
        parse_config([flag, "{"])


def test_help_shows_every_flag_and_begins_with_the_world(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help"])
    text = capsys.readouterr().out
    for field in SETTINGS:
        assert f"--{field.replace('_', '-')}" in text
    assert text.index("\nworld:") < text.index("\npolicy:") < text.index("\nlearning:")


PROGRAMS = {
    name: place.partition(":")[0]
    for name, place in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].items()
}


def output_of(module: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    found = importlib.import_module(module)
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(getattr(found, "run", None)(words) if module.endswith("cli.top") else found.main(words))
    assert not ended.value.code
    return capsys.readouterr().out


def is_one_quoted_word(line: str) -> bool:
    return len(shlex.split(line.rstrip("\\"))) == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_its_version_and_helps_within_80_columns(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert output_of(PROGRAMS[program], ["--version"], capsys) == f"rtcore {version('rtcore')}\n"
    text = output_of(PROGRAMS[program], ["--help"], capsys)
    assert program in text
    assert "None}" not in text
    assert not [line for line in text.splitlines() if len(line) > 80 and not is_one_quoted_word(line)]


def completed_by_bash(script: str, program: str, *words: str) -> list[str]:
    """What it offers for the last of these words."""
    asked = " ".join(map(shlex.quote, (program, *words)))
    lines = (
        script,
        f"COMP_WORDS=({asked}); COMP_CWORD={len(words)}; COMP_LINE={shlex.quote(asked)}",
        f"_shtab_{program.replace('-', '_')}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    )
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_shell_completes_the_options_of_every_program(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    script = output_of(PROGRAMS[program], ["--print-completion", "bash"], capsys)
    assert completed_by_bash(script, program, "--versi") == ["--version"]
    if program == "rtcore-run":
        assert completed_by_bash(script, program, "--stagger", "m") == ["max-time"]
        assert completed_by_bash(script, program, "--config", f"{ROOT}/hatch_bu") == [f"{ROOT}/hatch_build.py"]


def test_without_shtab_completion_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit):
        parse_config(["--print-completion", "bash"])
    assert "pip install 'rtcore[completion]'" in capsys.readouterr().err


def refused_by_schema(text: str) -> list[str]:
    """The keys that hold what the schema does not allow; an empty one for a key that it does not know."""
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft202012Validator(schema())
    return sorted(".".join(map(str, error.absolute_path)) for error in checker.iter_errors(tomllib.loads(text)))


SETTINGS_FILES = sorted(ROOT.glob("examples/*.toml"))


@pytest.mark.parametrize("file", SETTINGS_FILES, ids=lambda file: file.name)
def test_the_schema_takes_the_settings_files_that_rtcore_comes_with(file: Path) -> None:
    assert refused_by_schema(file.read_text()) == []


def test_the_schema_takes_what_print_config_writes_and_what_a_file_may_say_otherwise() -> None:
    config, _ = parse_config(["--require", "acted>=0.9", "--fps", "50", "--duration", "inf"])
    assert refused_by_schema(to_toml(config)) == []
    assert refused_by_schema('fps = 59.7\nring_slots = 9\n[require]\nacted = ">=90%"\nticks.world_us.max = "<9"') == []


def test_the_schema_refuses_what_a_run_refuses() -> None:
    assert refused_by_schema('worker = 4\nstagger = "max"\nring-slots = "many"\nact_history = -1') == [
        *("", "act_history", "ring-slots", "stagger"),
    ]


def test_the_schema_is_printed_and_says_what_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_config(["--print-schema"])
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(schema()))
    assert list(printed["properties"]) == [name.replace("_", "-") for name in SETTINGS]
    assert all(kind["description"] for kind in printed["properties"].values())


def test_examples_keep_their_words_however_narrow_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    example = "  run --a 'x  y' --b \"1, 2\" --c 3   what it does"
    wide, narrow = (Help("run", width=width)._fill_text(f"examples:\n{example}", width, "") for width in (100, 24))
    assert example in wide
    assert shlex.split(narrow.partition(":")[2].replace("\\\n", "").partition("\n      what")[0]) == [
        *("run", "--a", "x  y", "--b", "1, 2", "--c", "3"),
    ]


def test_a_typo_is_corrected_and_what_is_none_is_not() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'worker'. Did you mean 'workers'"):
        make_config(worker=3)
    with pytest.raises(ConfigError, match=r"unknown key 'render_mode'. `rtcore-run --help` .* go into --env-args"):
        make_config(render_mode="human")


@pytest.mark.parametrize(
    ("flag", "value", "other"), [("--chunk-rest", "noop", "--chunk"), ("--obs-every", "2", "--obs-history")]
)
def test_a_flag_that_changes_nothing_without_another_is_refused_and_the_other_named(
    flag: str, value: str, other: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"{flag[2:]}={value} has no effect .*give {other} N as well"):
        parse_command([flag, value])
    file = tmp_path / "my.toml"
    file.write_text(to_toml(parse_command([]).config))
    for words in (
        [flag, value, other, "3"],
        [flag, value, "--policy", "trained", "--env-id", "rtcore/Blocks-v0"],
        [flag, value, "--policy-checkpoint", "runs/a"],
        ["--config", str(file)],
    ):
        parse_command(words)
    quoted = value if value.isdigit() else f'"{value}"'
    file.write_text(f"{flag[2:]} = {quoted}\n")
    parse_command(["--config", str(file)])
