"""What somebody may want to do with a run that is over: the very commands, with its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from rtcore.config.run import RuntimeConfig
from rtcore.files.trust import names_code, rom_of
from rtcore.recording.schema import FOLDER
from rtcore.results.out_folder import COMPARE_PICTURE, COMPARE_VIDEO

_LABEL = 10


def say_next(steps: Sequence[tuple[str, str]], console: Console) -> None:
    """(command, what it does) each, as lines for a shell: a command is never broken, so that it can be copied."""
    column, longest = (max(map(len, texts)) for texts in zip(*steps, strict=True))
    fits = _LABEL + column + longest + 4 <= console.width
    console.print()
    for position, (command, meaning) in enumerate(steps):
        line = Text(f"{'Next' if position == 0 else '':<{_LABEL}}", style="bold").append(command, "not bold")
        gap = " " * (column - len(command) + 2) if fits else "\n" + " " * (_LABEL + 2)
        console.print(line.append(f"{gap}# {meaning}", "not bold bright_black"), soft_wrap=True)
    console.print()


def steps_of(config: RuntimeConfig, summary: dict[str, Any], words: Sequence[str]) -> list[tuple[str, str]]:
    """(command, what it does), the most useful first."""
    out, again = config.output.out, shlex.join(["rtcore-run", *words])
    if out is None:
        return [(f"{again} --out runs/latest", "keep the next one: rows, pictures, a page")]
    folder = shlex.quote(str(out))
    steps = [(f"rtcore-report {folder}", "all of it as a page: timeline, charts, settings")]
    if (out / "checkpoints" / "best").exists():
        best = shlex.quote(str(out / "checkpoints" / "best"))
        own = f" --policy {shlex.quote(config.agent.policy)}" if names_code("policy", config.agent.policy) else ""
        again_with = f"{own}{_named_again(config)}"
        steps.append((f"rtcore-run --policy-checkpoint {best}{again_with}", "play what was learned"))
    if (summary.get("recording") or {}).get("frames"):
        steps.append((f"rtcore-run --replay {folder}{_named_again(config)}", "the same again: does anything differ?"))
        if not (out / "video.mp4").exists():
            steps.append((f"rtcore-run --replay {folder} --video", "watch it"))
    elif config.learning.learn is None:
        steps.append((f"{again} --video", "play once more, and watch it as a video"))
    return steps


def comparison_steps(out: Path, content: Mapping[str, Any], halves: Sequence[str]) -> list[tuple[str, str]]:
    """The same of two runs that were compared. `content`: of compare.json."""
    folders = [out / name for name in halves if content[name] is not None]
    steps = [(shlex.join(["rtcore-report", str(out)]), "both as a page: timelines, charts, settings")]
    recorded = all((folder / FOLDER).exists() for folder in folders)
    if len(folders) == len(halves) and recorded and not (out / COMPARE_VIDEO).exists():
        steps.append((shlex.join(["rtcore-run", "--replay", str(out), "--video"]), "watch both side by side"))
    steps += [(shlex.join(["rtcore-run", "--replay", str(folder)]), "that run again") for folder in folders if recorded]
    for name, meaning in ((COMPARE_PICTURE, "points over time, and both worlds"), (COMPARE_VIDEO, "both side by side")):
        if (out / name).exists():
            steps.append((shlex.quote(str(out / name)), meaning))
    return steps


def _named_again(config: RuntimeConfig) -> str:
    """What a recording or a checkpoint may not choose alone."""
    words = ["--env-id", config.world.env_id] if names_code("env_id", config.world.env_id) else []
    if (rom := rom_of(config.settings)) is not None:
        words += ["--rom", rom]
    return f" {shlex.join(words)}" if words else ""
