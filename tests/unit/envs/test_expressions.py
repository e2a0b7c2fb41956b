"""Expressions over a game's memory: what they are worth, and that nothing else can be said in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore_envs.errors import ExpressionError, RewardError
from rtcore_envs.expressions import MAX_CHARACTERS, Expression, parse_named
from rtcore_envs.memorymap import MemoryMap, Place
from rtcore_envs.rom import CARTRIDGE_TYPE, RAM_SIZE

pytestmark = pytest.mark.unit


def rom(banks=2, **header):
    content = bytearray(banks * 0x4000)
    for name, value in header.items():
        content[{"ram": RAM_SIZE, "kind": CARTRIDGE_TYPE}[name]] = value
    return bytes(content)


def evaluate(text, memory=None, memory_map=None):
    """The value of an expression in the first frame."""
    places = dict.fromkeys(range(0x10000), 0) | (memory or {})
    expression = Expression("reward", text, places, memory_map or MemoryMap(rom()))
    expression.begin()
    return expression.value()


def refusal(text, memory_map=None):
    with pytest.raises(ExpressionError) as refused:
        evaluate(text, memory_map=memory_map)
    return str(refused.value)


# -- values ------------------------------------------------------------------------------------------------------

BYTES = {0xC0A0: 0x34, 0xC0A1: 0x12, 0xC0A2: 0x01, 0xC0A3: 0xFF}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("u8[0xC0A0]", 0x34),
        ("u8[49312]", 0x34),
        ("u8[0xC000 + 0xA0]", 0x34),
        ("u16[0xC0A0]", 0x1234),
        ("u16be[0xC0A0]", 0x3412),
        ("u24[0xC0A0]", 0x011234),
        ("u32[0xC0A0]", 0xFF011234),
        ("u32be[0xC0A0]", 0x341201FF),
        ("i8[0xC0A3]", -1),
        ("i16[0xC0A2]", -255),
        ("i16be[0xC0A2]", 0x01FF),
        ("bcd3[0xC0A0]", 11234),
        ("bcd3be[0xC0A0]", 341201),
        ("digits2[0xC0A2]", 1),
        ("digits2be[0xC0A2]", 10),
    ],
)
def test_bytes_are_numbers_of_the_named_kind(text, value):
    assert evaluate(text, BYTES) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 - 4 // 3", 6),
        ("7 / 2", 3.5),
        ("-7 % 5", 3),
        ("0xF0 & 0x3C | 1 ^ 3", 0x32),
        ("u8[0xC0A0] >> 4", 3),
        ("1 < u8[0xC0A0] <= 0x34 != 3", True),
        ("1 < 3 < 2", False),
        ("u8[0xC0A0] in (0x34, 9)", True),
        ("u8[0xC0A0] not in (0x34, 9)", False),
        ("not u8[0xC0A0]", False),
        ("u8[0xC000] or 5", 5),
        ("u8[0xC000] and 5", 0),
        ("2 if u8[0xC000] else 3", 3),
        ("min(3, 1, 2) + max(1, u8[0xC0A0])", 0x35),
        ("clip(u8[0xC0A0], 0, 10)", 10),
        ("abs(i8[0xC0A3]) + sign(i8[0xC0A3])", 0),
        ("-10 * (u8[0xC0A0] == 0x34)", -10),
        ("1 if False else 2", 2),
    ],
)
def test_operators_mean_what_they_mean_in_python(text, value):
    assert evaluate(text, BYTES) == value


def test_what_is_remembered_is_right_however_it_is_nested():
    memory = dict.fromkeys(range(0x10000), 0)
    texts = (
        "delta(u8[0xC100])",
        "prev(u8[0xC100])",
        "first(u8[0xC100])",
        "delta(delta(u8[0xC100]))",
        "delta(prev(u8[0xC100]))",
    )
    memory[0xC100] = 10
    expressions = [Expression("x", text, memory, MemoryMap(rom())) for text in texts]
    for expression in expressions:
        expression.begin()
    rows = [[expression.value() for expression in expressions]]
    for value in (12, 17, 17):
        memory[0xC100] = value
        for expression in expressions:
            expression.sample()
        rows.append([expression.value() for expression in expressions])
    assert rows == [[0, 10, 10, 0, 0], [2, 10, 10, 2, 0], [5, 12, 10, 3, 2], [0, 17, 10, -5, 5]]


# -- where there is memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("u8[0x10000]", "from 0x0000 to 0xFFFF"),
        ("u16[0xFFFF]", "from 0x0000 to 0xFFFF"),
        ("u8[-1]", "from 0x0000 to 0xFFFF"),
        ("u8[0xE005]", "0xC005"),
        ("u8[0xFEA0]", "no memory from 0xFEA0"),
        ("u8[0xA000]", "no memory at 0xA000"),
        ("u8[2:0xD000]", "no bank"),
        ("u8[0:0x4000]", "a bank from 1 to 1"),
    ],
)
def test_a_place_that_is_none_is_refused(text, said):
    assert said in refusal(text)


def test_banks_are_those_of_the_cartridge_and_the_machine():
    four = MemoryMap(rom(banks=8, ram=3))
    assert four.key(Place(3, 0xA123)) == (3, 0xA123)
    assert four.key(Place(7, 0x4000)) == (7, 0x4000)
    assert "a bank, such as 0:0xA123; there are 0 to 3" in refusal("u8[0xA123]", four)
    assert "from 0 to 3" in refusal("u8[4:0xA123]", four)
    assert MemoryMap(rom(ram=2)).key(Place(None, 0xA123)) == (0, 0xA123), "read also while the game has it switched off"
    assert MemoryMap(rom(kind=6)).key(Place(None, 0xA001)) == (0, 0xA001), "memory inside the bank controller"
    colour = MemoryMap(rom(), colour=True)
    assert colour.key(Place(2, 0xD000)) == (2, 0xD000)
    assert "a bank, such as 1:0xD000; there are 1 to 7" in refusal("u8[0xD000]", colour)
    assert "from 1 to 7" in refusal("u8[0:0xD000]", colour)
    assert MemoryMap(rom()).key(Place(1, 0xD000)) == 0xD000, "as symbol files say it"


# -- nothing else ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(1).__class__",
        "u8.__class__",
        "lambda: 1",
        "[x for x in (1, 2)]",
        "(y := 3)",
        "f'{1}'",
        "'a' * 9",
        "b'a'",
        "{1: 2}",
        "...",
        "1j",
        "None",
        "9 ** 9 ** 9",
        "1 << 60 << 60",
        "~u8[0xC000]",
        "u8[0xC000] @ 2",
        "u8[0xC000] is 3",
        "u8[0xC000](3)",
        "u8[u8[0xC000]]",
        "u8[::2]",
        "u8[1, 2]",
        "delta",
        "delta(1, 2)",
        "delta(x=1)",
        "delta(*(1, 2))",
        "max()",
        "1 / 0",
        "1e999",
        "9007199254740993",
        "9007199254740992 * 2",
        "u8[0xC000] / 2 & 1",
        "u8[0xC000] >> u8[0xC001]",
        "u8[0xC000] in u8[0xC001]",
        "u8[0xC0",
        "",
        "x\0",
        "1 if 2",
        "a = 3",
        "import os",
        "1; 2",
        "-" * 500 + "1",
        "(" * 500 + "1" + ")" * 500,
        "u8[" * 190 + "1" + "]" * 190,
        "1 + " * 900 + "1",
    ],
)
def test_what_is_no_such_expression_is_refused_and_never_run(text):
    said = refusal(text)
    assert said.startswith("reward: got ")
    assert "\n" not in said or len(said.splitlines()) == 3


def test_the_place_is_shown_and_what_was_probably_meant():
    said = refusal("1 + delat(u8[0xC000])").splitlines()
    assert said[0].startswith("reward: got delat at column 5, expected delta, or one of delta")
    assert said[1:] == ["    1 + delat(u8[0xC000])", "        ^^^^^"]
    long = refusal("1 + " * 30 + "lives" + " + 1" * 30).splitlines()
    assert long[1][long[2].index("^") :].startswith("lives")
    assert len(long[1]) < 80


def test_a_text_beyond_all_bounds_is_not_even_read():
    assert f"at most {MAX_CHARACTERS}" in refusal("1" * (MAX_CHARACTERS + 1))


@given(st.text(alphabet="u8[0xC1]+-*/%()<>=!&|^ delta,andorif.:'\"\\{}é\n#", max_size=60))
def test_whatever_is_written_is_a_number_or_a_named_refusal(text):
    try:
        value = evaluate(text)
    except (ExpressionError, RewardError) as error:
        assert str(error).startswith("reward: ")
    else:
        assert isinstance(value, int | float)


@pytest.mark.parametrize("text", ["", "score", "u8[1]", "a: ", "a b: 1", "1: 2", "**x", "a: 1, *b", "'a': 1, b"])
def test_named_expressions_that_have_no_name_are_refused(text):
    with pytest.raises(ExpressionError, match="^info: got "):
        parse_named("info", text)


def test_named_expressions_keep_their_commas_and_their_order():
    assert parse_named("info", "b: max(u8[1:0xD000], 3), a: 1 if u8[2] else 0,") == {
        "b": "max(u8[1:0xD000], 3)",
        "a": "1 if u8[2] else 0",
    }
