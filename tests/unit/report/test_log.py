"""What rtcore says while it works: a library only warns, a program prints lines, as many as are asked for."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from functools import partial

import pytest
from rich.live import Live

import rtcore
from rtcore.cli.run import main
from rtcore.config.flags import parse_command, parse_config
from rtcore.errors import ConfigError
from rtcore.report.log import LOG_VARIABLE, LineHandler, levels_of, lines_to
from rtcore.report.terminal import Terminal, print_line

pytestmark = pytest.mark.unit

_ROOTS = ("rtcore", "rtcore_workers", "rtcore_envs")
#: A short run without a process: what it prints, from the first line to the last.
_RUN = ["--clock=virtual", "--policy=random", "--env-id=CartPole-v1", "--fps=50", "--ticks=60", "--workers=1"]


def say_everything() -> None:
    log = logging.getLogger("rtcore.processes.workers")
    log.debug("a detail")
    log.info("a step")
    log.warning("a trouble")


# -- RTCORE_LOG ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("", {}),
        ("debug", dict.fromkeys(_ROOTS, logging.DEBUG)),
        (" Warning ", dict.fromkeys(_ROOTS, logging.WARNING)),
        ("rtcore.processes=debug", {"rtcore.processes": logging.DEBUG}),
        (
            "error, rtcore.learn.checkpointer = info,",
            dict.fromkeys(_ROOTS, logging.ERROR) | {"rtcore.learn.checkpointer": logging.INFO},
        ),
    ],
)
def test_a_level_is_for_all_and_one_with_a_name_for_that_part(text, levels):
    assert levels_of(text) == levels


@pytest.mark.parametrize("text", ["loud", "10", "rtcore.processes=", "rtcore.processes=loud", "=", "debug;info"])
def test_what_is_no_level_is_refused_with_those_there_are(text):
    with pytest.raises(ConfigError, match=r"RTCORE_LOG: got .* expected one of debug, info, warning, error, critical"):
        levels_of(text)


@pytest.mark.parametrize("name", ["rtcore.proceses", "rtcore.errors.deeper", "numpy", "", "rtcore.", "..rtcore"])
def test_a_logger_that_there_is_not_is_refused_and_not_waited_for(name):
    with pytest.raises(ConfigError, match=r"RTCORE_LOG: got .* (no module|expected one of)"):
        levels_of(f"{name}=debug")


def test_every_part_of_a_program_refuses_a_wrong_level_before_it_does_anything(monkeypatch, capsys):
    monkeypatch.setenv(LOG_VARIABLE, "loud")
    with pytest.raises(SystemExit) as end:
        main(_RUN)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "ConfigError: RTCORE_LOG: got 'loud'" in err


# -- the handler ---------------------------------------------------------------------------------------------------


def lines_with(*, chosen: int | None = None, text: str = "") -> list[str]:
    lines: list[str] = []
    with lines_to(lines.append, chosen=chosen, environment={LOG_VARIABLE: text}):
        say_everything()
    return lines


def test_lines_are_as_they_are_and_details_say_of_which_part_they_are():
    assert lines_with() == ["a step", "a trouble"]
    assert lines_with(chosen=logging.WARNING) == ["a trouble"]
    assert lines_with(chosen=logging.DEBUG) == ["rtcore.processes.workers: a detail", "a step", "a trouble"]


def test_a_flag_wins_over_the_variable_but_not_over_its_single_parts():
    assert lines_with(text="error") == []
    assert lines_with(text="error", chosen=logging.INFO) == ["a step", "a trouble"]
    assert len(lines_with(text="rtcore.processes=debug", chosen=logging.WARNING)) == 3
    assert len(lines_with(text="rtcore.learn=debug", chosen=logging.WARNING)) == 1


def test_a_handler_within_another_takes_the_lines_and_gives_them_back():
    outer, inner = [], []
    before = [(log.level, log.propagate, log.handlers) for log in map(logging.getLogger, _ROOTS)]
    with lines_to(outer.append, environment={}):
        with lines_to(inner.append, logging.DEBUG, environment={}):
            say_everything()
        logging.getLogger("rtcore").info("after it")
    assert (len(inner), outer) == (3, ["after it"])
    assert before == [(log.level, log.propagate, log.handlers) for log in map(logging.getLogger, _ROOTS)]


def test_lines_of_many_threads_come_whole_and_above_the_live_area():
    screen = io.StringIO()
    console = Terminal(file=screen, force_terminal=True, width=60, height=10, color_system=None, _environ={})
    log, start = logging.getLogger("rtcore.learn.checkpointer"), threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for line in range(50):
            log.info(f"<{number} {line}>")

    with (
        lines_to(partial(print_line, console), environment={}),
        Live("AREA", console=console, auto_refresh=False) as live,
    ):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            live.refresh()
        for thread in threads:
            thread.join()
    shown = [line.strip() for line in screen.getvalue().splitlines()]
    for number in range(4):
        of_thread = [line[line.index("<") :] for line in shown if f"<{number} " in line]
        assert of_thread == [f"<{number} {line}>" for line in range(50)]


def test_what_ends_the_program_within_a_line_gets_through_and_leaves_no_lock():
    class Stopped(BaseException):
        pass

    def interrupted(line: str) -> None:
        raise Stopped

    lines = []
    with lines_to(interrupted, environment={}):
        with pytest.raises(Stopped):
            say_everything()
        logging.getLogger("rtcore").handlers[0]._show = lines.append
        other = threading.Thread(target=say_everything)
        other.start()
        other.join(150)
        assert not other.is_alive()
    assert lines == ["a step", "a trouble"]


# -- a library -----------------------------------------------------------------------------------------------------


def test_a_library_only_warns_unless_it_is_asked_for_more_or_less():
    program = """
import logging, sys
from rtcore.runtime.runtime import Runtime
def say(when):
    print(when, file=sys.stderr)
    log = logging.getLogger("rtcore.x")
    log.debug("a detail")
    log.info("a step")
    log.warning("a trouble")
say("by itself:")
silent = logging.NullHandler()
logging.getLogger("rtcore").addHandler(silent)
say("silenced:")
logging.getLogger("rtcore").removeHandler(silent)
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
say("asked:")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        *("by itself:", "a trouble"),
        "silenced:",
        *("asked:", "INFO a step", "WARNING a trouble"),
    ]


def test_progress_still_gets_the_lines_of_a_start_and_is_told_to_go(monkeypatch):
    said: list[str] = []

    def start(supervisor):
        logging.getLogger("rtcore.processes.supervisor").info("a step")
        raise ConfigError("that is all")

    monkeypatch.setattr("rtcore.processes.supervisor.Supervisor.start", start)
    with pytest.warns(DeprecationWarning, match=r"progress= is deprecated.*getLogger\('rtcore'\)"):
        runtime = rtcore.Runtime(env_id="CartPole-v1", policy="random", progress=said.append)
    package = logging.getLogger("rtcore")
    monkeypatch.setattr(package, "level", logging.ERROR)
    before = package.handlers[:]
    with pytest.raises(ConfigError, match="that is all"):
        runtime.start()
    assert said == ["a step"]
    assert (package.handlers, package.level) == (before, logging.ERROR), "nothing of a run that is over is left"


def test_of_two_handlers_beside_the_programs_own_the_last_to_go_puts_the_level_back(monkeypatch):
    package = logging.getLogger("rtcore")
    package.setLevel(logging.ERROR)
    first, second = LineHandler(print), LineHandler(print)
    first.attach()
    second.attach()
    first.detach()
    assert package.level == logging.INFO
    second.detach()
    second.detach()
    assert package.level == logging.ERROR
    package.setLevel(logging.NOTSET)


# -- flags of rtcore-run -------------------------------------------------------------------------------------------


def shown_by(capsys, *flags: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*_RUN, *flags])
    assert end.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_quiet_leaves_the_summary_and_verbose_adds_to_the_lines(capsys):
    usual, quiet, verbose = (shown_by(capsys, *flags) for flags in ((), ("--quiet",), ("-v",)))
    for text in (usual, quiet, verbose):
        assert "What happened" in text
        assert "acted" in text
    assert "world     CartPole-v1" in usual
    assert "world     CartPole-v1" not in quiet
    assert "points " not in quiet.partition("What happened")[0].partition("\n\n")[0]
    assert "rtcore.virtual.simulate: " in verbose
    assert "rtcore.virtual.simulate: " not in usual


def test_a_warning_of_the_header_is_shown_to_who_is_quiet(capsys):
    out = shown_by(capsys, "--quiet", "--env-id=Pendulum-v1", "--fps=200")
    assert "WARNING: the world runs at" in out
    assert "observation" not in out.partition("What happened")[0].partition("\n\n")[0]


def test_an_error_is_told_to_who_is_quiet(capsys):
    with pytest.raises(SystemExit) as end:
        main([*_RUN, "--quiet", "--env-id=NoSuchWorld-v0"])
    assert end.value.code not in (0, None)
    assert "NoSuchWorld" in capsys.readouterr().err


def test_the_two_flags_exclude_each_other_and_are_for_the_run_alone(capsys):
    assert parse_command([]).log_level is None
    assert parse_command(["-q"]).log_level == logging.WARNING
    with pytest.raises(SystemExit):
        parse_command(["--quiet", "--verbose"])
    assert "not allowed with" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="RTCORE_LOG"):
        parse_config(["--verbose"])
