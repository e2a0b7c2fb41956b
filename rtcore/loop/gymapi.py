"""Checks what a world's `reset` and `step` return: harmless deviations from Gymnasium's API are accepted, others raise.

The usual values (a float, a bool, a tuple) cost one comparison each; nothing is allocated.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from rtcore.errors import EnvironmentFailed, text_of

_STEP = "observation, reward, terminated, truncated, info"
#: What to do about a world written for the API of `gym` before 0.26.
OLD_API = (
    "gym before 0.26 had another API. Change the world (gymnasium.farama.org/introduction/migration_guide), or put it "
    'into shimmy\'s wrapper: gymnasium.make("GymV21Environment-v0", env=world)'
)
_OLD_API_SIGNS = ("values to unpack", "unexpected keyword argument 'seed'", "unexpected keyword argument 'options'")


def raise_named(where: str, error: BaseException) -> NoReturn:
    """Raise EnvironmentFailed for what the world raised in `where`, with a hint if it looks like one of the old API.

    What does not come from the world is raised again as it is: an order to end, and Ctrl-C.
    """
    is_ctrl_c = isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ctrl_c or not isinstance(error, (Exception, SystemExit, KeyboardInterrupt)):
        raise error
    said = text_of(error)
    hint = f". {OLD_API}" if any(sign in said for sign in _OLD_API_SIGNS) else ""
    raise EnvironmentFailed(f"the world raised in {where}: {said}{hint}") from error


def reset_results(returned: Any) -> tuple[Any, Any]:
    """Observation and info. EnvironmentFailed for anything else."""
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        return returned
    raise EnvironmentFailed(
        f"the world returned {_described(returned)} from reset(); expected a tuple of 2: observation, info (a dict). "
        f"{OLD_API}"
    )


def step_results(returned: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Observation, reward, terminated, truncated, info. EnvironmentFailed for anything else."""
    if isinstance(returned, tuple) and len(returned) == 5:
        return returned
    old = f" {OLD_API}" if isinstance(returned, tuple) and len(returned) == 4 else ""
    raise EnvironmentFailed(
        f"the world returned {_described(returned)} from step(); expected a tuple of 5: {_STEP}.{old}"
    )


def reward_of(reward: object) -> float:
    """A number, or an array or tensor that holds one. EnvironmentFailed for anything else, NaN and infinity."""
    number = reward if type(reward) is float else _only_number(reward)
    if number is None:
        raise EnvironmentFailed(
            f"the world returned reward {_described(reward)}; expected one number. A world of several rewards needs a "
            "wrapper that adds them up (gymnasium.wrappers.TransformReward)"
        )
    try:
        value = float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise EnvironmentFailed(
            f"the world returned reward {_described(reward)}; expected a finite number. Correct it in the world, or "
            "in a wrapper (gymnasium.wrappers.TransformReward)"
        )
    return value


def flag_of(flag: object, name: str) -> bool:
    """True or False, also as 0 or 1, or as an array or tensor that holds one. EnvironmentFailed for anything else."""
    if flag is True or flag is False:
        return bool(flag)
    number = _only_number(flag)
    if number is None or number not in (0, 1):
        raise EnvironmentFailed(
            f"the world returned {name}={_described(flag)} from step(); expected True or False. A world of several "
            "players needs a wrapper that says when the episode is over for all"
        )
    return bool(number)


def _only_number(value: Any) -> int | float | None:
    """The number that `value` is, or holds; None if it is, or holds, anything else."""
    if isinstance(value, (int, float)):
        return value
    shape = getattr(value, "shape", None)
    if shape is None or math.prod(shape) != 1 or not callable(getattr(value, "item", None)):
        return None
    held = value.item()
    return held if isinstance(held, (int, float)) else None


def _described(value: object) -> str:
    """A value in a few words. Also where its own `__repr__` raises."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(_described(item) for item in value[:6])})"
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    try:
        text = repr(value)
    except Exception:
        text = "unprintable"
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
