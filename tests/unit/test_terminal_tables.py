"""Tables can be read in a pipe and in a narrow terminal: they wrap, and cut no digit off."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from rtcore.terminal import Terminal

pytestmark = pytest.mark.unit

NUMBERS = [f"{10**number + 0.5:,.1f}" for number in range(12)]


def table() -> Table:
    made = Table(*(f"column{number}" for number in range(12)))
    made.add_row(*NUMBERS)
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
    assert all(number in row for number in NUMBERS)
    assert not any("\u2026" in line for line in lines)


def test_texts_keep_to_the_width_of_the_terminal_and_a_pipe_gets_wide_lines(monkeypatch):
    assert max(len(line) for line in printed(monkeypatch, columns="80", terminal=True)[-3:]) <= 80
    assert len(printed(monkeypatch)[-2]) > 80
