"""The code on the pages of the site is understood, and runs.

Each command is read by its own program, each settings file by rtcore. The slow tests then run what can run here, cut
to a few ticks, and the Python of the pages. test_policies_documented.py and test_worlds_page.py do more with theirs.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import re
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

from rtcore.config.flags import default_config, parse_command, parse_config
from rtcore.config.run import RuntimeConfig
from rtcore.experiments.sweepfile import load_sweep
from tests.support.drills import Run, segments, started

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: What is not fenced, but stands apart from the text.
INDENTED = re.compile(r"(?:^ {4}(?! ).*\n(?:^ {5}.*\n)*)+", re.MULTILINE)
LANGUAGES = {"", "text", "sh", "console", "toml", "python"}
#: Commands that are no program of rtcore: any shell has them, or the text around them says where they are from.
OTHERS = {
    "cd",
    "docker",
    "echo",
    "eval",
    "jq",
    "nvidia-cuda-mps-control",
    "sha256sum",
    "sudo",
    "tensorboard",
    "check-jsonschema",
}
PROGRAMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


class Code(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def code_of(path: Path) -> Iterator[Code]:
    text = path.read_text()
    page = str(path.relative_to(ROOT))
    for block in BLOCK.finditer(text):
        yield Code(page, text.count("\n", 0, block.start()) + 1, block[1], block[2])
    bare = BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    for block in INDENTED.finditer(bare):
        lines = [
            line for line in block[0].splitlines() if re.match(r" {4}(\$ |\w+=\S+ )*(rtcore-|make |pip |python )", line)
        ]
        if lines and block[0].startswith("    "):
            yield Code(page, bare.count("\n", 0, block.start()) + 1, "sh", block[0])


CODE = [code for path in PAGES for code in code_of(path)]


def logical_lines(code: Code) -> Iterator[str]:
    """A shell's lines: what a backslash or a quote goes on with is joined. Of a session, what is typed."""
    lines = [line.strip() for line in code.text.splitlines()]
    session = any(line.startswith("$ ") for line in lines)
    kept = ""
    for line in lines:
        if session and not kept and not line.startswith("$ "):
            continue
        kept += line if kept else line.removeprefix("$ ")
        if kept.endswith("\\"):
            kept = kept[:-1]
            continue
        try:
            words_of(kept)
        except ValueError:
            kept += " "
            continue
        if kept:
            yield kept
        kept = ""
    assert not kept, f"{code.place}: {kept} is not closed"


def words_of(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    return list(lexer)


def commands_of(line: str) -> Iterator[list[str]]:
    """The commands of a line, each as words, without what goes around them."""
    for inner in re.findall(r"\$\((rtcore-[^)]*)\)", line):
        yield shlex.split(inner)
    words: list[str] = []
    for word in [*words_of(line), ";"]:
        if word and set(word) <= set("();|&"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield words[: words.index(">")] if ">" in words else words
            words = []
        elif word != "...":
            words.append(word)


COMMANDS = [
    (code.place, words)
    for code in CODE
    if code.language in ("sh", "console")
    for line in logical_lines(code)
    for words in commands_of(line)
]


def config_without_files(fields: Mapping[str, Any]) -> RuntimeConfig:
    """As of a run; one that goes on has its settings from its folder, which is not there."""
    return default_config({**fields, "learn": "dqn"} if "resume" in fields else fields)


def understand_run(words: list[str]) -> None:
    parse_command(words, make=config_without_files)


def understand_profile(words: list[str]) -> None:
    from rtcore.cli.profile import make_parser
    from rtcore.profile.commands import COMMANDS as KNOWN

    options, flags = make_parser().parse_known_args(words)
    assert not flags or KNOWN[options.profile].takes_run_flags
    parse_config(flags)


def understand_doctor(words: list[str]) -> None:
    parse_config(importlib.import_module("rtcore.cli.doctor")._parser().parse_known_args(words)[1])


def understand_sweep(words: list[str]) -> None:
    module, rest = ("rtcore.cli.sweep_report", words[1:]) if words[:1] == ["report"] else ("rtcore.cli.sweep", words)
    importlib.import_module(module)._parser().parse_args(rest)


def understand_worker(words: list[str]) -> None:
    worker = importlib.import_module("rtcore.cli.worker")
    parser, rest = (worker._keygen_parser(), words[1:]) if words[:1] == ["keygen"] else (worker._parser(), words)
    parser.parse_args(rest)


def understand_rom(words: list[str]) -> None:
    from rtcore_envs.rom_commands import add_commands

    parser = argparse.ArgumentParser(exit_on_error=False)
    add_commands(parser)
    parser.parse_args(words)


def understand_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets)


def understand_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [name for word in words for found in re.findall(r"\[([\w,]+)\]$", word) for name in found.split(",")]
    assert set(asked) <= extras.keys()


def understand_python(words: list[str]) -> None:
    if words[:1] == ["-m"] and words[1].split(".")[0] in ("rtcore", "benchmarks", "tools"):
        assert importlib.util.find_spec(words[1])
    elif words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file()


UNDERSTOOD_BY: dict[str, Callable[[list[str]], None]] = {
    "rtcore-run": understand_run,
    "rtcore-profile": understand_profile,
    "rtcore-doctor": understand_doctor,
    "rtcore-sweep": understand_sweep,
    "rtcore-rom": understand_rom,
    "rtcore-top": lambda words: importlib.import_module("rtcore.cli.top")._parse(words) and None,
    "rtcore-report": lambda words: importlib.import_module("rtcore.cli.report")._parser().parse_args(words) and None,
    "rtcore-torture": lambda words: importlib.import_module("rtcore.cli.torture")._parser().parse_args(words) and None,
    "rtcore-worker": understand_worker,
    "make": understand_make,
    "pip": understand_pip,
    "python": understand_python,
}


@pytest.fixture
def folder_of_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, as far as commands name files of it, with a settings file of the reader's own."""
    for name in ("examples", "benchmarks", "envs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my.toml").write_text('stagger = "expected-time"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_says_what_it_is() -> None:
    assert not [code.place for code in CODE if code.language not in LANGUAGES]
    assert len(COMMANDS) > 100


def test_a_command_that_is_wrong_is_found() -> None:
    (line,) = logical_lines(Code("page.md", 1, "sh", "A=b rtcore-run --env-id \\\n  'x y' | jq '.a | .b' > c  # d\n"))
    assert list(commands_of(line)) == [["rtcore-run", "--env-id", "x y"], ["jq", ".a | .b"]]
    with pytest.raises(SystemExit):
        understand_run(["--stager", "sequential"])
    with pytest.raises(AssertionError):
        understand_pip(["install", "rtcore[recrod]"])


@pytest.mark.parametrize("program", sorted({*PROGRAMS, "make", "pip", "python"}))
def test_every_command_of_a_page_is_understood_by_its_program(program: str, folder_of_a_reader: Path) -> None:
    wrong = []
    for place, words in COMMANDS:
        if words[0] != program:
            continue
        try:
            UNDERSTOOD_BY[program](words[1:])
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and error.code == 0:
                continue  # it printed something and was done
            wrong.append(f"{place}: {shlex.join(words)}: {error}")
    assert not wrong


def test_every_other_command_is_known() -> None:
    assert {words[0] for _, words in COMMANDS} <= {*UNDERSTOOD_BY, *OTHERS}


@pytest.mark.parametrize("code", [code for code in CODE if code.language == "toml"], ids=lambda code: code.place)
def test_every_settings_file_of_a_page_is_one(code: Code, tmp_path: Path) -> None:
    (tmp_path / "it.toml").write_text(code.text)
    if "[settings]" in code.text or "seeds =" in code.text:
        load_sweep(tmp_path / "it.toml")
    else:
        parse_config(["--config", str(tmp_path / "it.toml")])


# -- what runs -------------------------------------------------------------------------------------------------

#: Only understood: what they name is not here.
NOT_HERE = {
    "gpuhost": "another host",
    "--workers-at ray:": "a cluster",
    "cuda": "a GPU",
    ".gb": "a game that somebody bought",
    "PandorasBlocks": "a game to be downloaded",
    "Tetris": "a game that somebody bought",
    "--operator keyboard": "a person",
    "my_arm": "an arm of the reader's own",
    "my_package": "a package of the reader's own",
    "my.nets": "a package of the reader's own",
    "my.worlds": "a package of the reader's own",
    "runs/mine": "a run with a package of the reader's own",
}
RUNS: dict[str, list[list[str]]] = {}
for place, words in COMMANDS:
    if words[0] == "rtcore-run":
        RUNS.setdefault(place.partition(":")[0], []).append(words)


def can_run(words: list[str]) -> bool:
    line = " ".join(words).replace("roms/blocks.gb", "")
    return not any(name in line for name in NOT_HERE)


def cut(words: list[str]) -> list[str]:
    """The same run for a few ticks, by few workers, without a view of it."""
    if {"--print-config", "--print-schema", "--print-completion"} & set(words):
        return words[1:]
    kept, skip, line = [], False, " ".join(words)
    for word in words[1:]:
        skip, drop = word in ("--duration", "--ticks"), skip
        if not (skip or drop):
            # There is no best one after so few ticks.
            kept.append(word.removesuffix("/checkpoints/best"))
    if "--replay" in words:
        return [*kept, "--ticks", "40"]
    # How many there are is up to the machine, unless the page says it: one is there soonest, a head needs another.
    workers = "2" if re.search("two-speed|TwoSpeed", line) else "1"
    few = [] if {"--workers", "--resume"} & set(words) else ["--workers", workers]
    return [*kept, "--ticks", "40", "--no-live", *few]


@pytest.fixture
def nobody_types() -> Iterator[IO[str]]:
    with Path(os.devnull).open() as stdin:
        yield stdin


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUNS)
def test_the_runs_of_a_page_run_one_after_the_other(
    page: str, folder_of_a_reader: Path, run_here: Run, nobody_types: IO[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    # Pages name what `make run` has left.
    (made,) = re.findall(r"^\t\$\(BIN\)/(rtcore-run .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    first = [shlex.split(made)] if any("runs/latest/" in word for words in RUNS[page] for word in words) else []
    monkeypatch.setattr(sys, "stdin", nobody_types)
    for words in [*first, *filter(can_run, RUNS[page])]:
        own = "own_world:make_world" in words
        monkeypatch.chdir(folder_of_a_reader / "examples" if own else folder_of_a_reader)
        done = run_here(*cut(words), *(["--out", str(folder_of_a_reader / "own")] if own else []))
        # A contract is for a machine that does nothing else.
        allowed = {0, 4} if "--require" in words else {0}
        assert done.returncode in allowed, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"


#: What the text around a block has said before it.
BEFORE = """
import logging, sys
import numpy as np
import torch
import rtcore, rtcore.sb3
from rtcore.config.run import make_config
from rtcore.virtual.simulate import Simulation

def make_world(**args):
    import gymnasium
    return gymnasium.make("CartPole-v1", **args)

def make_network(observation_space, action_space):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 2)
        def forward(self, observation):
            return self.linear(observation)
    return Network()
"""

#: Of single blocks, found by what is in them: what comes before and behind.
AROUND = {
    "runtime.transitions(": (
        "rng, batch = np.random.default_rng(0), None\n"
        "runtime = rtcore.Runtime(env_id='CartPole-v1', policy='mlp', explore=True, duration=30)\n"
        "runtime.start()\nwhile runtime.sample(32) is None: runtime.wait(0.1)\n",
        "assert len(batch.reward) == 32\nruntime.stop()\n",
    ),
    "AttachedRun.attach": (
        "runtime = rtcore.Runtime(env_id='CartPole-v1', policy='mlp', duration=3)\nruntime.start()\n",
        "runtime.wait()\n",
    ),
    "rtcore.report.boards": (
        "runtime = rtcore.Runtime(env_id='CartPole-v1', policy='mlp', duration=2, out='run')\nruntime.start()\n",
        "import glob; assert glob.glob('run/events.out.tfevents*')\n",
    ),
    "class Arm(": ("import gymnasium\n", ""),
    "choose(obs)": ("def choose(obs): return 1\n", ""),
    "SAC,": ("from stable_baselines3 import SAC\n", "import os; assert os.path.exists('pendulum.zip')\n"),
    "realtime_env(config": (
        "import rtgym\nfrom tests.support.rtgym_drone import Drone\n"
        "config = rtgym.DEFAULT_CONFIG_DICT | {'interface': Drone, 'time_step_duration': 0.05}\n",
        "env.reset()\nenv.step(env.action_space.sample())\nenv.close()\n",
    ),
    "runtime.paused()": (
        "network = make_network(None, None)\ndef evaluate(network): runtime.wait(0.3)\n"
        "runtime = rtcore.Runtime(env_id='CartPole-v1', policy='random', duration=600)\nruntime.start()\n",
        "runtime.stop()\nruntime.wait()\nassert runtime.summary()['ticks']['waited'] > 0\n",
    ),
    "runtime.take_over()": (
        "action, runtime = 1, rtcore.Runtime(env_id='CartPole-v1', policy='random', duration=600)\nruntime.start()\n",
        "    while not runtime.stats().counters['human_ticks']: runtime.wait(0.05)\nruntime.stop()\nruntime.wait()\n",
    ),
    'load_run("runs/first")': (
        "settings = dict(env_id='CartPole-v1', policy='random', clock='virtual', ticks=20, out='runs/first')\n"
        "Simulation(rtcore.RuntimeConfig(**settings)).run().close()\n",
        "",
    ),
    "network.state_dict()": ("network = make_network(None, None)\n", ""),
}
#: A few seconds in place of many.
SHORTER = [
    (r"duration=\d+", "duration=2"),
    (r"range\(20\)", "range(2)"),
    ("while True:", "for _ in range(20):"),
    ("ticks=100_000", "ticks=500"),
    (r"env_id=\.\.\.", "env_id='CartPole-v1'"),
    (
        'env_id="my_arm:make", policy="net.py:Net", safe_action=.*?, d',
        'env_id="CartPole-v1", policy="mlp", safe_action=0, d',
    ),
    (r"find_run\(None\)", "find_run(runtime.run_id)"),
]
#: These run in a test of their own.
ELSEWHERE = {"docs/policies.md", "docs/worlds.md"}
PYTHON = [code for code in CODE if code.language == "python" and code.page not in ELSEWHERE]


def as_a_program(text: str) -> str:
    """Its functions where other processes can import them, the rest where these do not run it again."""
    parts: tuple[list[str], list[str]] = ([], [])
    for node in ast.parse(text).body:
        is_said = isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom))
        parts[not is_said].append(ast.get_source_segment(text, node) or "")
    done = "\n".join(parts[1])
    return "\n".join(parts[0]) + '\n\nif __name__ == "__main__":\n' + textwrap.indent(done or "pass", "    ") + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.place)
def test_the_python_of_a_page_runs(code: Code, tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    text = code.text
    for long, short in SHORTER:
        text = re.sub(long, short, text)
    around = [AROUND[part] for part in AROUND if part in code.text]
    before, behind = ("".join(parts) for parts in zip(("", ""), *around, strict=True))
    (tmp_path / "my_world.py").write_text(BEFORE)
    (tmp_path / "block.py").write_text(as_a_program(f"{BEFORE}{before}{text}\n{behind}"))
    with started(sys.executable, "block.py", cwd=tmp_path) as process:
        output, _ = process.communicate(timeout=380)
    assert process.returncode == 0, output
    assert segments(process.pid) == []
