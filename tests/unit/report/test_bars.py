"""What shows that something is being done is never a reason for it to fail."""

from __future__ import annotations

import io
import threading

import pytest
from rich.progress import BarColumn

from rtcore.report.bars import Bar
from rtcore.report.terminal import Terminal


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of processes counts threads, too."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def _terminal(*, is_one: bool = True) -> Terminal:
    return Terminal(file=io.StringIO(), force_terminal=is_one, width=60)


def _shown(console: Terminal) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_a_bar_and_what_is_done_now() -> None:
    console = _terminal()
    with Bar(BarColumn(), console=console) as bar:
        bar.update(bar.add_task("", total=2), advance=1, refresh=True)
    with console.status("reading") as status:
        status.update("reading the second")
    assert "━" in _shown(console)
    assert "reading" in _shown(console)


def test_a_pipe_gets_nothing_of_either() -> None:
    console = _terminal(is_one=False)
    with Bar(BarColumn(), console=console) as bar:
        bar.update(bar.add_task("", total=2), advance=1, refresh=True)
    with console.status("reading") as status:
        status.update("reading the second")
    assert _shown(console) == ""


@pytest.mark.usefixtures("no_threads")
def test_work_goes_on_where_no_thread_can_be_started_that_draws_it() -> None:
    """Seed 8332 of `rtcore-torture real`: no process was allowed any more at the end, and a traceback came instead of
    the trace."""
    console = _terminal()
    done = []
    with Bar(BarColumn(), console=console) as bar:
        task = bar.add_task("", total=2)
        bar.update(task, advance=1)
        done.append("bar")
    with console.status("reading") as status:
        status.update("reading the second")
        done.append("status")
    with Bar(BarColumn(), console=console, transient=False):
        done.append("bar again")
    console.print("as ever")
    assert done == ["bar", "status", "bar again"]
    assert _shown(console).endswith("as ever\n")
    assert _shown(console).count("\x1b[?25l") == _shown(console).count("\x1b[?25h")  # the cursor is there again
