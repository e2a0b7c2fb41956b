"""A small closed language over a game's memory: ``delta(bcd3[0xC0A0])``, ``u8[0xC0B0] == 1 and u8[0xC0B1] < 3``.

An expression is read with Python's own parser, checked node by node, and turned into closures: nothing of it is
executed as Python, there are no names but those listed here, and its size is bounded. Arithmetic on numbers that are
known is done once. Evaluating allocates nothing but the numbers themselves.

`delta`, `prev` and `first` keep what a value was. They are sampled once a frame whether they are looked at or not:
what stands behind an `and` is up to date when its turn comes.
"""

import ast
import difflib
import math
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from rtcore_envs.errors import ExpressionError, RewardError
from rtcore_envs.memorymap import Key, MemoryMap, Place

Number = int | float
Read = Callable[[], Number]

MAX_CHARACTERS = 2000
MAX_DEPTH = 100
MAX_NODES = 500
#: No constant of a game is larger, and products of a few stay numbers that a float can hold.
MAX_CONSTANT = 2**53
#: Characters of a text that an error shows, and how many of them before the place.
_SHOWN, _SHOWN_BEFORE = 72, 30

#: u8 to u32, i8 to i32: binary, the lowest byte first; bcd: two decimal digits to a byte; digits: one to a byte.
_TYPE = re.compile(r"(?:([ui])(8|16|24|32)|(bcd|digits)([1-8]))(be)?")
TYPES_IN_WORDS = (
    "u8 u16 u24 u32, i8 i16 i24 i32, bcd1 to bcd8, digits1 to digits8, each with `be` for the highest byte first"
)
FUNCTIONS = {
    "delta": (1, 1),
    "d": (1, 1),
    "prev": (1, 1),
    "first": (1, 1),
    "min": (2, 8),
    "max": (2, 8),
    "clip": (3, 3),
    "abs": (1, 1),
    "sign": (1, 1),
}
_ALLOWED = (
    f"a value in memory such as u8[0xC0A0] ({TYPES_IN_WORDS}), a number, + - * / // % & | ^ >>, < <= == != >= > in, "
    f"and or not, A if C else B, or {', '.join(f'{name}()' for name in FUNCTIONS if name != 'd')}"
)

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.RShift: lambda a, b: a >> b,
}
_ON_BITS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.RShift)
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.GtE: lambda a, b: a >= b,
    ast.Gt: lambda a, b: a > b,
}


class ValueType(NamedTuple):
    """How bytes make a number. Named as in ``u16``, ``bcd3be``."""

    name: str
    num_bytes: int
    signed: bool
    #: 256 for binary, 100 for two decimal digits to a byte, 10 for one.
    base: int
    highest_first: bool

    @classmethod
    def of(cls, name: str) -> "ValueType | None":
        match = _TYPE.fullmatch(name)
        if match is None:
            return None
        sign, bits, digits, num_bytes, be = match.groups()
        if sign is not None:
            return cls(name, int(bits) // 8, sign == "i", 256, be is not None)
        return cls(name, int(num_bytes), False, 100 if digits == "bcd" else 10, be is not None)


class _Sample:
    """A value that is remembered: now, a frame ago, and at the reset."""

    __slots__ = ("before", "first", "now", "read")

    def __init__(self, read: Read) -> None:
        self.read = read
        self.first: Number = 0
        self.before: Number = 0
        self.now: Number = 0


class _CheckedNode(NamedTuple):
    """A node that was checked: how to read it, whether it is a whole number, and its value where that is known."""

    read: Read
    whole: bool
    constant: Number | None = None


class Expression:
    """One expression over a live memory. `begin` at a reset, `sample` once after each frame, then `value` at will.

    Args:
        setting: what it is called in errors, such as ``reward``.
        text: the expression.
        memory: PyBoy's.
        memory_map: which places there are.

    Raises:
        ExpressionError: it means nothing; the message shows where, and what is allowed.
    """

    def __init__(self, setting: str, text: str, memory: Any, memory_map: MemoryMap) -> None:
        self.setting, self.text = setting, text
        builder = _Builder(setting, text, memory, memory_map)
        part = builder.build_all()
        self._read = part.read
        #: The inner ones first: what they read is up to date when an outer one is sampled.
        self._samples = builder.samples
        #: The bytes, the lowest first, of an expression that is one binary value in memory; else None.
        self.keys = builder.keys_of_all

    def begin(self) -> None:
        """Forget what was: now is the first frame."""
        try:
            for sample in self._samples:
                sample.first = sample.before = sample.now = sample.read()
        except ArithmeticError as error:
            raise self._failed(error) from None

    def sample(self) -> None:
        """Take in the frame that has just run."""
        try:
            for sample in self._samples:
                sample.before = sample.now
                sample.now = sample.read()
        except ArithmeticError as error:
            raise self._failed(error) from None

    def value(self) -> Number:
        """Its value in this frame. Raises `RewardError` if it has none, or none that a float can hold."""
        try:
            value = self._read()
            if math.isfinite(value):
                return value
        except ArithmeticError as error:
            raise self._failed(error) from None
        raise RewardError(f"{self.setting}: {_short(self.text)} is {value}, expected a finite number")

    def _failed(self, error: ArithmeticError) -> RewardError:
        reason = "is too large" if isinstance(error, OverflowError) else "divides by zero"
        return RewardError(f"{self.setting}: {_short(self.text)} {reason} in this frame ({error})")


def parse_named(setting: str, text: str) -> dict[str, str]:
    """``"score: u16[0xC006], lines: u8[0xC008]"`` as name and expression. Raises `ExpressionError`."""
    found: dict[str, str] = {}
    tree = _parse(setting, "{" + text + "}")
    if not isinstance(tree, ast.Dict) or not text.strip():
        raise ExpressionError(f"{setting}: got {text!r}, expected NAME: EXPRESSION, ...")
    for key, value in zip(tree.keys, tree.values, strict=True):
        name = key.id if isinstance(key, ast.Name) else key.value if isinstance(key, ast.Constant) else None
        if not isinstance(name, str):
            raise ExpressionError(f"{setting}: got {text!r}, expected NAME: EXPRESSION, ...")
        found[name] = ast.get_source_segment("{" + text + "}", value) or ""
    return found


def _parse(setting: str, text: str) -> ast.expr:
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"{setting}: got {len(text)} characters, expected at most {MAX_CHARACTERS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, about numbers written like `1if`
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        where = "" if error.offset is None else _pointer(text, max(error.offset - 1, 0), 1)
        raise ExpressionError(f"{setting}: got {_short(text)!r}, which is no expression ({error.msg}){where}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(f"{setting}: got {_short(text)!r}, which is no expression ({error})") from None


def _pointer(text: str, column: int, width: int) -> str:
    """Two lines more that show the place, and what is around it; nothing for a text of several lines."""
    if "\n" in text:
        return ""
    start = max(0, column - _SHOWN_BEFORE) if len(text) > _SHOWN else 0
    shown = text[start : start + _SHOWN]
    width = max(1, min(width, len(shown) - (column - start)))
    return f"\n    {shown}\n    {' ' * (column - start)}{'^' * width}"


def _short(text: str) -> str:
    """At most so much of a text as a line has room for."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


class _Builder:
    """Checks one expression and turns it into closures."""

    def __init__(self, setting: str, text: str, memory: Any, memory_map: MemoryMap) -> None:
        self._setting, self._text, self._memory, self._map = setting, text, memory, memory_map
        self._nodes = self._depth = 0
        self.samples: list[_Sample] = []
        self.keys_of_all: list[Key] | None = None

    def build_all(self) -> _CheckedNode:
        text = self._text.strip()
        if not text:
            raise ExpressionError(f"{self._setting}: got nothing, expected {_ALLOWED}")
        self._text = text
        tree = _parse(self._setting, text)
        part = self._build(tree)
        if isinstance(tree, ast.Subscript):
            kind, keys = self._place(tree)
            self.keys_of_all = keys if kind.base == 256 else None
        return part

    # Nodes ---

    def _build(self, node: ast.expr) -> _CheckedNode:
        self._nodes += 1
        self._depth += 1
        if self._depth > MAX_DEPTH or self._nodes > MAX_NODES:
            self._refuse(node, "this much", f"at most {MAX_NODES} parts, {MAX_DEPTH} deep")
        part = self._part(node)
        self._depth -= 1
        return part

    def _part(self, node: ast.expr) -> _CheckedNode:
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.Subscript):
            return self._memory_value(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.BinOp):
            return self._binary(node)
        if isinstance(node, ast.UnaryOp):
            return self._unary(node)
        if isinstance(node, ast.Compare):
            return self._compare(node)
        if isinstance(node, ast.BoolOp):
            parts = [self._build(value) for value in node.values]
            return self._fold(_any_of(parts) if isinstance(node.op, ast.Or) else _all_of(parts), parts, node)
        if isinstance(node, ast.IfExp):
            test, then, other = (self._build(part) for part in (node.test, node.body, node.orelse))
            choose, yes, no = test.read, then.read, other.read
            return self._fold(lambda: yes() if choose() else no(), [test, then, other], node)
        if isinstance(node, ast.Name) and (node.id in FUNCTIONS or ValueType.of(node.id)):
            form = f"{node.id}[ADDRESS]" if ValueType.of(node.id) else f"{node.id}(...)"
            self._refuse(node, f"{node.id} alone", form)
        self._refuse(node, self._source(node), self._hint(node) + _ALLOWED)

    def _constant(self, node: ast.Constant) -> _CheckedNode:
        value = node.value
        if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > MAX_CONSTANT:
            self._refuse(node, self._source(node), f"a number up to {MAX_CONSTANT}")
        return _constant(value)

    def _memory_value(self, node: ast.Subscript) -> _CheckedNode:
        kind, keys = self._place(node)
        return _CheckedNode(_reader(self._memory, kind, keys), whole=True)

    def _place(self, node: ast.Subscript) -> tuple[ValueType, list[Key]]:
        """The type of a value in memory, and its bytes, the lowest first."""
        name = node.value.id if isinstance(node.value, ast.Name) else ""
        kind = ValueType.of(name)
        if kind is None:
            self._refuse(node.value, self._source(node.value), self._hint(node.value) + f"one of {TYPES_IN_WORDS}")
        first = self._address(node.slice)
        offsets = range(kind.num_bytes)
        try:
            keys = [self._map.key(Place(first.bank, first.address + offset)) for offset in offsets]
        except ValueError as error:
            self._refuse(node.slice, f"{kind.name} at {self._source(node.slice)}", str(error))
        return kind, keys[::-1] if kind.highest_first else keys

    def _address(self, node: ast.expr) -> Place:
        if isinstance(node, ast.Slice):
            if node.lower is None or node.upper is None or node.step is not None:
                self._refuse(node, "this address", "ADDRESS or BANK:ADDRESS")
            return Place(self._whole(node.lower), self._whole(node.upper))
        if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Name | ast.Attribute):
            place = self._address(node.left)
            offset = self._whole(
                ast.copy_location(ast.BinOp(ast.Constant(0, lineno=1, col_offset=0), node.op, node.right), node)
            )
            return Place(place.bank, place.address + offset)
        if isinstance(node, ast.Name | ast.Attribute):
            name = self._source(node)
            place_of = self._map.symbols.get(name)
            if place_of is None:
                close = difflib.get_close_matches(name, self._map.symbols, n=3)
                known = f"a name in the symbol file (did you mean {' or '.join(close)}?)" if close else "a name in it"
                expected = known if self._map.symbols else "an address such as 0xC0A0; names need symbols=FILE.sym"
                self._refuse(node, name, expected)
            return place_of
        return Place(None, self._whole(node))

    def _whole(self, node: ast.expr) -> int:
        value = self._build(node).constant
        if not isinstance(value, int):
            self._refuse(node, self._source(node), "a whole number that is known beforehand, such as 0xC0A0 + 3")
        return value

    def _call(self, node: ast.Call) -> _CheckedNode:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            self._refuse(node.func, self._source(node.func), self._hint(node.func) + f"one of {', '.join(FUNCTIONS)}")
        least, most = FUNCTIONS[name]
        if node.keywords or not least <= len(node.args) <= most:
            number = str(least) if least == most else f"{least} to {most}"
            self._refuse(
                node, f"{len(node.args) + len(node.keywords)} arguments", f"{number} for {name}, without names"
            )
        parts = [self._build(argument) for argument in node.args]
        reads = [part.read for part in parts]
        if name in ("delta", "d", "prev", "first"):
            return self._remembered(name, parts[0])
        if name == "clip":
            value, low, high = reads
            return self._fold(lambda: min(max(value(), low()), high()), parts, node)
        only = reads[0]
        if name == "abs":
            return self._fold(lambda: abs(only()), parts, node)
        if name == "sign":
            sign: Read = lambda: (only() > 0) - (only() < 0)  # noqa: E731
            return self._fold(sign, parts, node, whole=True)
        pick = min if name == "min" else max
        if len(reads) == 2:
            one, two = reads
            return self._fold(lambda: pick(one(), two()), parts, node)
        return self._fold(lambda: pick([read() for read in reads]), parts, node)

    def _remembered(self, name: str, part: _CheckedNode) -> _CheckedNode:
        sample = _Sample(part.read)
        self.samples.append(sample)
        if name == "prev":
            return _CheckedNode(lambda: sample.before, part.whole)
        if name == "first":
            return _CheckedNode(lambda: sample.first, part.whole)
        return _CheckedNode(lambda: sample.now - sample.before, part.whole)

    def _binary(self, node: ast.BinOp) -> _CheckedNode:
        operate = _ARITHMETIC.get(type(node.op))
        if operate is None:
            self._refuse(node, self._source(node), "+ - * / // % & | ^ >> between two values")
        left, right = self._build(node.left), self._build(node.right)
        if isinstance(node.op, _ON_BITS) and not (left.whole and right.whole):
            self._refuse(node, self._source(node), "whole numbers on both sides of & | ^ >>")
        if isinstance(node.op, ast.RShift) and (right.constant is None or not 0 <= right.constant < 64):
            self._refuse(node.right, self._source(node.right), "a number from 0 to 63 after >>")
        one, two = left.read, right.read
        whole = left.whole and right.whole and not isinstance(node.op, ast.Div)
        return self._fold(lambda: operate(one(), two()), [left, right], node, whole=whole)

    def _unary(self, node: ast.UnaryOp) -> _CheckedNode:
        part = self._build(node.operand)
        read = part.read
        if isinstance(node.op, ast.Not):
            return self._fold(lambda: not read(), [part], node, whole=True)
        if isinstance(node.op, ast.USub):
            return self._fold(lambda: -read(), [part], node)
        if isinstance(node.op, ast.UAdd):
            return part
        self._refuse(node, self._source(node), "- or not before a value; to flip bits, ^ 0xFF")

    def _compare(self, node: ast.Compare) -> _CheckedNode:
        if len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
            return self._member(node)
        parts = [self._build(value) for value in (node.left, *node.comparators)]
        pairs: list[tuple[Read, Callable[[Any, Any], bool], Read]] = []
        for left, operator, right in zip(parts, node.ops, parts[1:], strict=False):
            compare = _COMPARISONS.get(type(operator))
            if compare is None:
                self._refuse(node, self._source(node), "< <= == != >= > or in (1, 2, ...) between values")
            pairs.append((left.read, compare, right.read))
        if len(pairs) == 1:
            one, compare_them, two = pairs[0]
            return self._fold(lambda: compare_them(one(), two()), parts, node, whole=True)
        return self._fold(lambda: all(how(a(), b()) for a, how, b in pairs), parts, node, whole=True)

    def _member(self, node: ast.Compare) -> _CheckedNode:
        choices = node.comparators[0]
        if not isinstance(choices, ast.Tuple | ast.List | ast.Set):
            self._refuse(choices, self._source(choices), "numbers in brackets, such as in (1, 2)")
        values = [self._build(choice).constant for choice in choices.elts]
        if None in values:
            self._refuse(choices, self._source(choices), "numbers in brackets, such as in (1, 2)")
        part = self._build(node.left)
        read, among, wanted = part.read, frozenset(values), isinstance(node.ops[0], ast.In)
        return self._fold(lambda: (read() in among) is wanted, [part], node, whole=True)

    # Helpers ---

    def _fold(
        self, read: Read, parts: Iterable[_CheckedNode], node: ast.expr, whole: bool | None = None
    ) -> _CheckedNode:
        """The part that `read` is; its value at once where those of its parts are known."""
        parts = list(parts)
        if whole is None:
            whole = all(part.whole for part in parts)
        if any(part.constant is None for part in parts):
            return _CheckedNode(read, whole)
        try:
            value = read()
        except ArithmeticError as error:
            self._refuse(node, f"{self._source(node)} ({error})", "a number")
        if not math.isfinite(value) or abs(value) > MAX_CONSTANT:
            self._refuse(node, self._source(node), f"a number up to {MAX_CONSTANT}")
        return _constant(value)

    def _source(self, node: ast.AST) -> str:
        return _short(ast.get_source_segment(self._text, node) or ast.unparse(node))

    def _hint(self, node: ast.expr) -> str:
        if not isinstance(node, ast.Name):
            return ""
        known = [*FUNCTIONS, "u8", "u16", "i8", "i16", "bcd2", "bcd3", "digits4"]
        close = difflib.get_close_matches(node.id.lower(), known, n=1)
        return f"{close[0]}, or " if close else ""

    def _refuse(self, node: Any, got: str, expected: str) -> NoReturn:
        column = len(self._text.encode()[: node.col_offset].decode()) if node.lineno == 1 else node.col_offset
        width = (node.end_col_offset or 0) - node.col_offset if node.end_lineno == node.lineno else 1
        place = _pointer(self._text, column, width)
        raise ExpressionError(f"{self._setting}: got {got} at column {column + 1}, expected {expected}{place}")


def _constant(value: Number) -> _CheckedNode:
    return _CheckedNode(lambda: value, isinstance(value, int), value)


def _any_of(parts: list[_CheckedNode]) -> Read:
    *first, last = [part.read for part in parts]

    def read() -> Number:
        for one in first:
            value = one()
            if value:
                return value
        return last()

    return read


def _all_of(parts: list[_CheckedNode]) -> Read:
    *first, last = [part.read for part in parts]

    def read() -> Number:
        for one in first:
            value = one()
            if not value:
                return value
        return last()

    return read


def _reader(memory: Any, kind: ValueType, keys: list[Key]) -> Read:
    """Reads a value whose bytes are `keys`, the lowest first."""
    if kind.base != 256:
        places = [(key, kind.base**power) for power, key in enumerate(keys)]
        if kind.base == 100:
            return lambda: sum([(10 * (memory[key] >> 4) + (memory[key] & 15)) * worth for key, worth in places])
        return lambda: sum([memory[key] * worth for key, worth in places if memory[key] < 10])
    limit, span = 1 << (8 * len(keys) - 1), 1 << 8 * len(keys)
    if len(keys) == 1:
        only = keys[0]
        unsigned: Read = lambda: memory[only]  # noqa: E731
    elif len(keys) == 2:
        low, high = keys
        unsigned = lambda: memory[low] | memory[high] << 8  # noqa: E731
    else:
        shifts = [(key, 8 * place) for place, key in enumerate(keys)]
        unsigned = lambda: sum([memory[key] << shift for key, shift in shifts])  # noqa: E731
    if not kind.signed:
        return unsigned

    def signed() -> Number:
        value = unsigned()
        return value - span if value >= limit else value

    return signed
