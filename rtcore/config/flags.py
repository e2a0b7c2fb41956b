"""From flags and a TOML file to the one `RuntimeConfig`: every flag is a field, every field a flag."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

from pydantic import create_model
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

from rtcore.config.help_text import Parser, add_program_options
from rtcore.config.run import GROUP_OF, GROUPS, SETTINGS, RuntimeConfig, from_words, load_toml, make_config, suggest
from rtcore.errors import ConfigError, printable
from rtcore.files import values
from rtcore.scheduling.schedule import STAGGERS, Stagger

_DESCRIPTION = """\
Run a world in real time with staggered inference workers.

The world ticks at its own fixed rate and waits for nobody. One inference may take many ticks; with enough
workers, started at even intervals, there is an action for every tick all the same, and only its delay remains.

Keys in the live view of a run by the wall clock: p pauses and goes on, s stops safely (with --safe-action), q ends the
run, ? says so.
"""

_EPILOG = """\
examples:
  rtcore-run                                              the built-in game, a real network, auto workers
  rtcore-run --policy-args k=1,pad_ms=100 --duration 30   the same as a larger network would play it
  rtcore-run --policy synthetic --policy-args latency_ms=400 --workers 26
  rtcore-run --env-id CartPole-v1 --fps 100 --stagger expected-time
  rtcore-run --env-id rtcore/Tetris-v0 --rom tetris.gb    with your own ROM; rtcore-rom check FILE looks at it first
  rtcore-run --env-id rtcore/GameBoy-v0 --rom game.gb --env-args 'reward=delta(u16[0xC0A0]),done=u8[0xC0B0]==1'
                                                          any Game Boy game; rtcore-rom finds the addresses
  rtcore-run --policy my_package.nets:make_policy --policy-args width=256 --device cuda:0,cuda:1
  rtcore-run --clock virtual --policy synthetic --policy-args latency_ms=1200 --workers 74 --ticks 100000
  rtcore-run --policy trained --policy-args pad_ms=100    the built-in game, played by a network that learned it
  rtcore-run --config examples/learn_blocks.toml --out runs/blocks    learn it from scratch, in half an hour
  rtcore-run --learn dqn --policy dqn                     the paper's DQN; checkpoints and curves in runs/
  rtcore-run --env-id my_arm:make --policy net.py:Net --task goal=[0.5,0.2],say=wait --task-stdin     told what to do
  rtcore-run --policy-checkpoint runs/blocks/checkpoints/best         play what was learned
  rtcore-run --stagger sequential --out runs/sequential   the paper's opponent, with its record and picture
  rtcore-run --policy trained --policy-args pad_ms=100 --compare sequential --duration 15     what staggering is worth
  rtcore-run --policy trained --record --out runs/seen    keep every frame and what was applied at its tick
  rtcore-run --policy trained --video --out runs/shown    the same, and afterwards a video of it
  rtcore-run --replay runs/seen --video                   the video of a run that was recorded before
  rtcore-run --replay runs/seen                           the same run again without its policy: does anything differ?

exit codes: 0 it went to its end; 1 it failed, or something that it was to keep could not be written (record, recording,
last checkpoint, stdout); 2 a wrong setting; 4 a broken contract (--require); 70 a fault of rtcore's own in the ticks;
128+n stopped by signal n, with its summary
"""

#: Flags that take named values, and a comma that ends one: a name follows, and it is not within double quotes.
_NAMED_VALUES = ("--env-args", "--policy-args", "--policy-extras", "--info-keys", "--task")
_NEXT_NAME = re.compile(r',\s*(?="?[A-Za-z_]\w*"?\s*=(?!=))(?=(?:[^"]*"[^"]*")*[^"]*$)')


#: All groups' settings side by side, as pydantic-settings wants them: flags are read through it, and not checked there.
_BASES: tuple[Any, ...] = (*GROUPS.values(), BaseSettings)
_Settings: Any = create_model("_Settings", __base__=_BASES)


class _RunParser(Parser):
    """argparse with the options in groups, and a suggestion for a mistyped one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._headings = {name: self.add_argument_group(group.heading) for name, group in GROUPS.items()}

    def add_field(self, parser: Any, *names: str, **options: Any) -> Any:
        """Put a field's flag where it belongs. Given to pydantic-settings as its `add_argument_method`."""
        field = names[0].lstrip("-").replace("-", "_")
        if field not in GROUP_OF:
            return parser.add_argument(*names, **options)
        kind = str(options.get("metavar", "{"))
        extra = SETTINGS[field].json_schema_extra
        if isinstance(extra, dict) and "metavar" in extra:
            options["metavar"] = extra["metavar"]
        elif kind.endswith(",None}") and kind.count(",") == 1:
            options["metavar"] = kind[1:-6].upper()
        elif "{" not in kind:
            options["metavar"] = kind.upper()
        options["help"] = _with_default(field)
        return self._headings[GROUP_OF[field]].add_argument(*names, **options)

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            name = message.removeprefix(prefix).split()[0].split("=")[0]
            message = f"unknown option {name}. {suggest(name.lstrip('-')).replace('_', '-')}"
        print(f"{self.prog}: error: {printable(message)}", file=sys.stderr)
        raise SystemExit(2)


class _PrintSchema(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(json.dumps(schema(), indent=2))
        parser.exit()


class Command(NamedTuple):
    """What `rtcore-run` is asked for."""

    config: RuntimeConfig
    print_only: bool
    #: Run this recording again instead, or draw its video; of `config` only `ticks`, `video`, `env_id` and `rom` were
    #: given.
    replay: Path | None
    #: Play this schedule first, and compare.
    compare: Stagger | None = None
    #: Of `logging`, for the lines that the program prints while it works; None: neither --verbose nor --quiet.
    log_level: int | None = None
    #: Each line of stdin is a task.
    task_stdin: bool = False


#: From the fields that were said to the config.
MakeConfig: TypeAlias = Callable[[Mapping[str, Any]], RuntimeConfig]


def default_config(fields: Mapping[str, Any]) -> RuntimeConfig:
    """The config of these fields, defaults for the rest."""
    return make_config(**fields)


def parse_config(
    arguments: list[str], prog: str = "rtcore-run", make: MakeConfig = default_config
) -> tuple[RuntimeConfig, bool]:
    """The config, and whether it is only to be printed, for programs that take the settings of a run.

    `prog` is the program that takes these flags: its name stands in the errors. `make`: as of `parse_command`.
    """
    command = parse_command(arguments, prog, make)
    if command.replay is not None:
        raise ConfigError("--replay is for rtcore-run alone: a replay has no policy and takes no time")
    if command.compare is not None:
        raise ConfigError("--compare is for rtcore-run alone")
    if command.task_stdin:
        raise ConfigError("--task-stdin is for rtcore-run alone")
    if command.log_level is not None:
        raise ConfigError("--verbose and --quiet are for rtcore-run alone: set RTCORE_LOG=debug, info or warning")
    return command.config, command.print_only


def parse_command(arguments: list[str], prog: str = "rtcore-run", make: MakeConfig = default_config) -> Command:
    """All that the flags say. Flags win over the file, the file over the defaults. ConfigError, or exit code 2.

    `make` makes the config of what was said; a program that may resume a run adds there what that run was made with.
    """
    usage = "%(prog)s [--config FILE.toml] [option ...]"
    parser = _RunParser(prog=prog, usage=usage, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE.toml",
        help="settings file; flags override it. It may name code to run (module:factory): use your own",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved settings as TOML and exit")
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE",
        help="run a recording (or the folder of its run) again, without its policy, and say where it differs; "
        "with --video draw it instead, which needs neither world nor policy. --ticks limits both; a world of your own, "
        "or a ROM, has to be named again with --env-id or --rom; no other option goes with them",
    )
    parser.add_argument(
        "--compare",
        choices=STAGGERS,
        metavar="STAGGER",
        help="play the same twice, with the schedule STAGGER (sequential, free-running, ...) and then with the run's "
        "own: same world, seed, policy, latency and length. Random play for as many ticks, on the virtual clock, is "
        "the third. The live view shows both side by side, a table the ratios. In --out DIR (runs/latest if not "
        "given): compare.json, compare.png, with --video compare.mp4, and each run whole in a folder of its own",
    )
    parser.add_argument(
        "--task-stdin",
        action="store_true",
        help="each line on stdin is a task, a JSON object with the names of --task, from one tick on; no keys then",
    )
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument(
        "-v",
        "--verbose",
        dest="log_level",
        action="store_const",
        const=logging.DEBUG,
        help="also say what each part of rtcore does, and which part it is; RTCORE_LOG=rtcore.processes=debug asks one",
    )
    how_much.add_argument(
        "-q",
        "--quiet",
        dest="log_level",
        action="store_const",
        const=logging.WARNING,
        help="no live view and no lines while the run lasts, but for warnings; the summary at its end stays",
    )
    parser.add_argument(
        "--print-schema", action=_PrintSchema, nargs=0, help="print the JSON schema of a settings file and exit"
    )
    add_program_options(parser)
    source = CliSettingsSource[Any](
        _Settings,
        root_parser=parser,
        add_argument_method=parser.add_field,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
    )
    normal = _named_values([_kebab(argument) for argument in arguments])
    parsed = parser.parse_args(normal)
    try:
        given = source(parsed_args=parsed)
    except SettingsError as error:
        raise ConfigError(f"{error.__cause__ or error}; expected NAME=VALUE,... or JSON within {{ }}") from error
    chosen = {key.replace("-", "_"): value for key, value in _state_of(given).items()}
    if parsed.replay is not None:
        extra = sorted({field for field in chosen if field in SETTINGS} - {"ticks", "video", "env_id", "rom"})
        extra += ["config"] * bool(parsed.config) + ["print_config"] * parsed.print_config
        extra += ["compare"] * (parsed.compare is not None) + ["task-stdin"] * parsed.task_stdin
        if extra:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in extra)
            raise ConfigError(f"--replay takes its settings from the recording: leave out {names}")
    if parsed.config and len(parsed.config) > 1:
        files = ", ".join(map(str, parsed.config))
        raise ConfigError(f"--config was given {len(parsed.config)} times ({files}); expected one file: join them")
    fields = (load_toml(parsed.config[0]) if parsed.config else {}) | {
        key: value for key, value in chosen.items() if key in SETTINGS
    }
    for field in ("env_args", "policy_args", "task"):
        if field in chosen:
            fields[field] = from_words(fields[field])
    if "task" in chosen:
        fields["task"] = {name: _list_in(value) for name, value in fields["task"].items()}
    if parsed.compare is not None and parsed.print_config:
        raise ConfigError("--print-config prints the settings of one run, which --compare is none of: leave that out")
    config = make(fields)
    _refuse_without_effect(chosen, config)
    if parsed.task_stdin:
        _check_task_stdin(config, is_compared=parsed.compare is not None)
    return Command(
        config=config,
        print_only=bool(parsed.print_config),
        replay=parsed.replay,
        compare=parsed.compare,
        log_level=parsed.log_level,
        task_stdin=parsed.task_stdin,
    )


def _check_task_stdin(config: RuntimeConfig, *, is_compared: bool) -> None:
    if not config.world.task:
        raise ConfigError("--task-stdin: there is no task; expected --task NAME=VALUE,..., the one to begin with")
    if config.timing.clock == "virtual" or is_compared:
        which = "--compare plays more than one run" if is_compared else "on the virtual clock no time passes"
        raise ConfigError(
            f"--task-stdin: {which}; expected one run by the wall clock (Simulation.set_task is for a program)"
        )


def _refuse_without_effect(chosen: Mapping[str, Any], config: RuntimeConfig) -> None:
    """ConfigError for a flag that changes nothing without another one. Weights bring the other one themselves."""
    now = config.settings
    if now["policy"] == "trained" or now["policy_checkpoint"] is not None:
        return
    for field, other in (
        ("chunk_rest", "chunk"),
        ("chunk_from", "chunk"),
        ("on_overlap", "chunk"),
        ("obs_every", "obs_history"),
    ):
        if field in chosen and now[field] != SETTINGS[field].default and now[other] == SETTINGS[other].default:
            flag, needed = (name.replace("_", "-") for name in (field, other))
            raise ConfigError(
                f"{flag}={now[field]} has no effect while {needed} is {now[other]}: give --{needed} N as well, or "
                f"leave --{flag} out"
            )


def _state_of(source: Any) -> dict[str, Any]:
    """What the flags said, before validation."""
    said: dict[str, Any] = source()
    return said


def _named_values(arguments: list[str]) -> list[str]:
    """`NAME=VALUE,...` as JSON, in which a value may hold commas: only where `NAME=` follows does one end it.

    So `actions=noop,A,left,done=u8[0xC0B0]==1` needs no quotes. In double quotes a value may hold anything.
    """
    found = []
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in _NAMED_VALUES and equals:
            found.append(f"{name}={_as_json(name, value)}")
        elif position and arguments[position - 1] in _NAMED_VALUES and not argument.startswith("--"):
            found.append(_as_json(arguments[position - 1], argument))
        else:
            found.append(argument)
    return found


def _as_json(flag: str, text: str) -> str:
    if text.lstrip().startswith("{"):
        return text
    named = {}
    for pair in _NEXT_NAME.split(text.strip()) if text.strip() else []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"{flag.lstrip('-')}: got {pair!r}, expected NAME=VALUE,...")
        value = value.strip()
        quoted = len(value) > 1 and value[0] == value[-1] == '"'
        named[name.strip().strip('"')] = value[1:-1] if quoted else value
    return json.dumps(named)


def _list_in(value: Any) -> Any:
    """The list that a word of a command line says; anything else as it is."""
    if not isinstance(value, str) or not value.startswith("["):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _kebab(argument: str) -> str:
    """`--policy_args` is `--policy-args`, as users of other tools write it."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _with_default(field: str) -> str:
    info = SETTINGS[field]
    text = (info.description or "").replace("%", "%%")
    default = info.default
    if info.default_factory is not None or default is None or default == ():
        return text
    shown = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
    return f"{text} [{shown}]"


def to_toml(config: RuntimeConfig) -> str:
    """The resolved settings as a file that `--config` reads back; what is not set stays out as a comment."""
    lines = []
    for field, value in config.settings.items():
        key = field.replace("_", "-")
        if value is None:
            lines.append(f"# {key} =")
        else:
            plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {values.to_toml(plain)}")
    return "\n".join(lines)


def schema() -> dict[str, Any]:
    """What a settings file may hold, as JSON Schema, for editors and checkers.

    What settings have to do with each other, and with the machine, is looked at when a run is made of them.
    """
    kinds: dict[str, dict[str, Any]] = _Settings.model_json_schema()["properties"]
    described = {
        name: {key: kinds[name][key] for key in kinds[name] if key not in ("title", "metavar")} for name in SETTINGS
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of an rtcore run",
        "type": "object",
        "properties": {name.replace("_", "-"): kind for name, kind in described.items()},
        # Both spellings of a name are read; the one above is that of --help and --print-config.
        "patternProperties": {
            f"^{name}$": {"$ref": f"#/properties/{name.replace('_', '-')}"} for name in described if "_" in name
        },
        "additionalProperties": False,
    }
