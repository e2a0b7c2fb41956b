"""What options of several subcommands say, as numbers, shapes and spaces."""

from __future__ import annotations

from fractions import Fraction

import gymnasium
import numpy as np

from rtcore.clock import rate_from
from rtcore.errors import ConfigError
from rtcore.spaces import ActionSpec, ObservationSpec


def whole_numbers(option: str, text: str, most: int = 1 << 62) -> list[int]:
    """ "1,2,4" as numbers from 1 to `most`; ConfigError for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
        upper = f"from 1 to {most}" if most < 1 << 62 else "of at least 1"
        raise ConfigError(f"{option} {text!r}: expected whole numbers {upper}, as in 1,2,4")
    return [int(part) for part in parts]


def tick_rate(option: str, text: str) -> Fraction:
    """ "60" or "4194304/70224" in Hz; ConfigError for anything else."""
    try:
        return rate_from(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{option} {text!r}: expected Hz as a number or a fraction, such as 60 or 4194304/70224"
        ) from error


def parse_frame(text: str) -> tuple[int, ...]:
    """ "144x160" or "210x160x3" as a shape; ConfigError for anything else."""
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not 1 <= len(shape) <= 3 or min(shape) < 1:
        raise ConfigError(f"frame {text!r}: expected height x width, or height x width x channels, as in 210x160x3")
    return shape


def frame_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def specs_of(shape: tuple[int, ...], num_actions: int = 4) -> tuple[ObservationSpec, ActionSpec]:
    """Observation and action of a world with such uint8 frames."""
    observation = ObservationSpec.from_space(gymnasium.spaces.Box(0, 255, shape, np.uint8))
    return observation, ActionSpec.from_space(gymnasium.spaces.Discrete(num_actions))
