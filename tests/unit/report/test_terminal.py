"""Tables can be read in a pipe and in a narrow terminal: they wrap, and cut no digit off."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from rtcore.report.terminal import Terminal

pytestmark = pytest.mark.unit

NUMBERS = [f"{10**number + 0.5:,.1f}" for number in range(12)]


def table() -> Table:
    made = Table(*(f"column{number}" for number in range(12)))
    made.add_column("of one line", no_wrap=True)
    made.add_row(*NUMBERS, "2 busy")
    return made


def printed(monkeypatch: pytest.MonkeyPatch, *, columns: str | None = None, terminal: bool | None = None) -> list[str]:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=terminal, color_system=None)
    console.print(table())
    console.print("a text that goes on " * 10)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", [None, "80", "20"])
@pytest.mark.parametrize("terminal", [None, True])
def test_no_digit_of_a_table_is_cut_however_narrow_it_is(monkeypatch, columns, terminal):
    lines = printed(monkeypatch, columns=columns, terminal=terminal)
    row = next(line for line in lines if NUMBERS[0] in line)
    assert all(number in row for number in NUMBERS) and "2 busy" in row
    assert not any("\u2026" in line for line in lines)


def test_texts_keep_to_the_width_of_the_terminal_and_a_pipe_gets_wide_lines(monkeypatch):
    assert max(len(line) for line in printed(monkeypatch, columns="80", terminal=True)[-3:]) <= 80
    assert len(printed(monkeypatch)[-2]) > 80


def fact(*, width: int, terminal: bool, text: str) -> list[str]:
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=terminal, width=width, color_system=None)
    console.print(text, markup=False, soft_wrap=True)
    return out.getvalue().splitlines()


def test_a_fact_that_is_too_long_for_the_terminal_goes_on_below_its_own_text():
    text = (
        "plan      trained, 7 workers, max-time: an action every tick, delay 7 ticks, from /a/folder-with-a-long-name"
    )
    lines = fact(width=40, terminal=True, text=text)
    assert len(lines) > 2 and all(len(line) <= 40 for line in lines)
    assert lines[0].startswith("plan      trained") and all(line.startswith(" " * 10) for line in lines[1:])
    assert " ".join(" ".join(lines).split()) == " ".join(text.split()), "no word is broken, and none is lost"


@pytest.mark.parametrize(
    ("terminal", "text"), [(False, f"plan      {'word ' * 40}end"), (True, "an error " * 20 + "end")]
)
def test_a_pipe_and_a_text_without_a_label_get_their_line_whole(terminal, text):
    assert fact(width=40, terminal=terminal, text=text) == [text]


def test_a_file_gets_no_blanks_at_the_end_of_a_line_and_a_line_may_go_on():
    out = io.StringIO()
    console = Terminal(file=out, width=120, color_system=None)
    facts = Table.grid(expand=True)
    facts.add_row("short", "more")
    facts.add_row("a longer label", "x" * 40)
    console.print("error: ", end="")
    console.print("what it is")
    console.print(facts)
    assert out.getvalue().startswith("error: what it is\n")
    assert all(line == line.rstrip() for line in out.getvalue().splitlines())
    assert "x" * 40 in out.getvalue()


def test_a_cell_with_control_characters_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("file", "game")
    table.add_row("a\x1b]0;b.gb", "none")
    Terminal(highlight=False).print(table)
    assert "a\\x1b]0;b.gb" in capsys.readouterr().out
