"""What somebody may want to do with a run that is over: the very commands, with its folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from rtcore.config import RuntimeConfig
from rtcore.filesettings import names_code, rom_of

_LABEL = 10


def say_next(steps: Sequence[tuple[str, str]], console: Console) -> None:
    """(command, what it does) each, as lines for a shell: a command is never broken, so that it can be copied."""
    column = max(len(command) for command, _ in steps)
    console.print()
    for position, (command, meaning) in enumerate(steps):
        line = Text(f"{'Next' if position == 0 else '':<{_LABEL}}", style="bold").append(command, "not bold")
        fits = _LABEL + column + len(meaning) + 4 <= console.width
        gap = " " * (column - len(command) + 2) if fits else "\n" + " " * (_LABEL + 2)
        console.print(line.append(f"{gap}# {meaning}", "not bold bright_black"), soft_wrap=True)
    console.print()


def steps_of(config: RuntimeConfig, summary: dict[str, Any], words: Sequence[str]) -> list[tuple[str, str]]:
    """(command, what it does), the most useful first."""
    out, again = config.out, shlex.join(["rtcore-run", *words])
    if out is None:
        return [(f"{again} --out runs/latest", "keep the next one: rows, pictures, a page")]
    folder = shlex.quote(str(out))
    steps = [(f"rtcore-report {folder}", "all of it as a page: timeline, charts, settings")]
    if (out / "checkpoints" / "best").exists():
        best = shlex.quote(str(out / "checkpoints" / "best"))
        steps.append((f"rtcore-run --policy-checkpoint {best}", "play what was learned"))
    if (summary.get("recording") or {}).get("frames"):
        steps.append((f"rtcore-run --replay {folder}{_named_again(config)}", "the same again: does anything differ?"))
        if not (out / "video.mp4").exists():
            steps.append((f"rtcore-run --replay {folder} --video", "watch it"))
    elif config.learn is None:
        steps.append((f"{again} --video", "play once more, and watch it as a video"))
    return steps


def _named_again(config: RuntimeConfig) -> str:
    """What a recording may not choose alone."""
    words = ["--env-id", config.env_id] if names_code("env_id", config.env_id) else []
    if (rom := rom_of(dict(config))) is not None:
        words += ["--rom", rom]
    return f" {shlex.join(words)}" if words else ""
