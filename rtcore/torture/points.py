"""The lettered points of the protocols: accesses to shared memory whose order matters, as comments mark them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from functools import cache
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, NamedTuple

from rtcore.memory import master, ring, slots, waiting, weights

if TYPE_CHECKING:
    from rtcore.torture.stepped import Actor

_RULE = re.compile(r"#\s*\(([WR]\d+)\)\s*(.*)")


class Rule(NamedTuple):
    """One end of an ordering edge, as the source marks it. `line`: of its code."""

    name: str
    where: str
    code: str
    why: str
    line: int


def rules_of(modules: Iterable[ModuleType]) -> list[Rule]:
    """Every comment marked (W1), (R1), ... in some modules, with the line of code it stands at or above."""
    found = [rule for module in modules for rule in _rules_of(module)]
    return sorted(found, key=lambda rule: (rule.name[0], int(rule.name[1:]), rule.where))


def _rules_of(module: ModuleType) -> list[Rule]:
    lines = inspect.getsource(module).splitlines()
    found = []
    for number, line in enumerate(lines):
        if (match := _RULE.search(line)) is None:
            continue
        code, why, at = line[: match.start()].strip(), [match[2]], number
        while not code:  # the comment stands above its code, maybe over several lines
            at += 1
            text = lines[at].strip()
            if text.startswith("#"):
                why.append(text.lstrip("# "))
            else:
                code = text
        where = f"{module.__name__.replace('.', '/')}.py"
        found.append(Rule(match[1], where, code, " ".join(why).strip(), at + 1))
    return found


@cache
def _letters() -> dict[str, dict[int, str]]:
    """By file and line."""
    modules = (ring, slots, weights, master, waiting)
    return {str(module.__file__): {rule.line: rule.name for rule in _rules_of(module)} for module in modules}


_found: dict[tuple[CodeType, int], str] = {}


def point_of(actor: Actor) -> str:
    """The letter of the access that an actor is about to do; "" of one without."""
    letters = _letters()
    frame = actor.gr_frame
    while frame is not None and frame.f_code.co_filename not in letters:
        frame = frame.f_back
    if frame is None:
        return ""
    key = (frame.f_code, frame.f_lasti)
    if (letter := _found.get(key)) is None:
        letter, outer = "", frame
        # A lettered line may call what does the access.
        while outer is not None and not letter:
            letter = letters.get(outer.f_code.co_filename, {}).get(outer.f_lineno, "")
            outer = outer.f_back
        _found[key] = letter
    return letter
