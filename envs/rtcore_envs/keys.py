"""The eight keys: which are down during an action, and scripts of keys that bring a game to its start."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from rtcore_envs.errors import SettingError

KEYS = ("a", "b", "start", "select", "left", "right", "up", "down")
#: Keys of a keyboard that stand for them, where one plays in a window.
WINDOW_KEYS = {
    "a": "a",
    "s": "b",
    "return": "start",
    "backspace": "select",
    "left": "left",
    "right": "right",
    "up": "up",
    "down": "down",
}
Keys = frozenset[str]
NO_KEYS: Keys = frozenset()
#: The pad of the machine is one piece: it cannot be pressed on both sides.
_OPPOSITE = (frozenset({"left", "right"}), frozenset({"up", "down"}))

#: Names of no key, in a list of actions and in a script.
NOOP = "noop"
WAIT = "wait"
RANDOMIZE = "randomize"

#: Frames of a key for which a script says none: long enough for any game to see it, too short to repeat.
PRESS_FRAMES = 5
#: An hour of the game.
MAX_SCRIPT_FRAMES = 60 * 60 * 60
_MAX_ACTIONS = 256
_FRAMES = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


class Step(NamedTuple):
    """Keys that are down for `frames`, or for a number from `frames` to `most` that is drawn at each reset.

    With `randomize` it is no time at all, but the place where the seed is written into memory.
    """

    keys: Keys
    frames: int
    most: int
    randomize: bool = False

    @property
    def drawn(self) -> bool:
        """Whether it differs from reset to reset."""
        return self.randomize or self.most > self.frames


def parse_actions(actions: str | Sequence[str]) -> tuple[Keys, ...]:
    """``"noop, A, left+A"`` as the keys that are down during each action.

    Raises:
        SettingError: an unknown key, the same keys twice, both sides of the pad, or no noop.
    """
    names = actions.split(",") if isinstance(actions, str) else [str(name) for name in actions]
    found: list[Keys] = []
    for name in names:
        keys = NO_KEYS if name.strip().lower() == NOOP else _keys(name, "actions", f"{NOOP}, or keys")
        if keys in found:
            raise SettingError(f"actions: got {name.strip()!r} twice, expected each combination once")
        found.append(keys)
    if NO_KEYS not in found:
        raise SettingError(
            f"actions: got {', '.join(name.strip() for name in names)}, expected {NOOP} among them: "
            "the game goes on while no action is there"
        )
    if len(found) > _MAX_ACTIONS:
        raise SettingError(f"actions: got {len(found)}, expected at most {_MAX_ACTIONS}")
    return tuple(found)


def meaning(keys: Keys) -> str:
    """What an action is called: LEFT, A+LEFT, NOOP."""
    return "+".join(sorted(keys, key=KEYS.index)).upper() or NOOP.upper()


def parse_script(text: str, setting: str) -> list[Step]:
    """``"wait 120, start, wait 30-60, left+a 5"`` as steps in order.

    Each is KEYS or KEYS FRAMES (or KEYS:FRAMES), with commas, spaces or new lines between them; ``#`` begins a
    comment. ``wait`` presses nothing; a range of frames is drawn anew at each reset; ``randomize`` is where the
    seed goes into memory.

    Raises:
        SettingError: the word that means nothing, the same keys twice on end, or more than an hour in all.
    """
    words = re.sub(r"[:,]", " ", "\n".join(line.split("#")[0] for line in text.splitlines())).split()
    steps: list[Step] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        frames = _FRAMES.fullmatch(words[position]) if position < len(words) else None
        position += frames is not None
        steps.append(_step(word, frames, setting))
    for first, second in pairwise(steps):
        if first.keys and first.keys == second.keys:
            name = meaning(first.keys).lower()
            raise SettingError(
                f"{setting}: got {name} twice on end, which is one long press; expected {name} "
                f"{first.frames + second.frames}, or a wait between them"
            )
    total = sum(step.most for step in steps)
    if total > MAX_SCRIPT_FRAMES:
        raise SettingError(f"{setting}: got {total} frames, expected at most {MAX_SCRIPT_FRAMES} (an hour of the game)")
    return steps


def _step(word: str, frames: re.Match[str] | None, setting: str) -> Step:
    name = word.lower()
    if name == RANDOMIZE and frames is None:
        return Step(NO_KEYS, 0, 0, randomize=True)
    keys = NO_KEYS if name == WAIT else _keys(word, setting, f"{WAIT} FRAMES, or keys and FRAMES")
    if frames is None:
        if name == WAIT:
            raise SettingError(f"{setting}: got {word!r} without a number, expected {WAIT} FRAMES, such as {WAIT} 60")
        return Step(keys, PRESS_FRAMES, PRESS_FRAMES)
    least, most = int(frames[1]), int(frames[2] or frames[1])
    if most < least or most == 0:
        raise SettingError(f"{setting}: got {word} {frames[0]}, expected at least 1 frame, and A-B with A below B")
    return Step(keys, least, most)


def _keys(name: str, setting: str, expected: str) -> Keys:
    keys = frozenset(part.strip().lower() for part in name.split("+"))
    if not keys <= set(KEYS):
        raise SettingError(f"{setting}: got {name.strip()!r}, expected {expected}: {' '.join(KEYS)}, joined by +")
    for both in _OPPOSITE:
        if both <= keys:
            raise SettingError(f"{setting}: got {name.strip()!r}, expected one side of the pad: it is one piece")
    return keys
