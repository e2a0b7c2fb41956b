"""Runs a ROM, or a start state, for some frames in a process of its own, because it may hang for ever inside PyBoy.

    python -P -m rtcore_envs.trial ROM FRAMES [STATE]      (-P: the current folder holds no modules of ours)

The child prints one line of JSON, ``{"error": null}`` or ``{"error": "..."}``; one that hangs is killed by `try_rom`.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

#: Three seconds of the game.
TRIAL_FRAMES = 180
_MAX_TAIL = 300


def try_rom(rom: Path, *, state: Path | None = None, limit_s: float = 20.0, frames: int = TRIAL_FRAMES) -> str | None:
    """What is wrong with the ROM or the start state when it is run; None if it runs.

    ``state`` is a start state of ours, or one of PyBoy's own. Takes about a second; at most ``limit_s``.
    """
    command = [sys.executable, "-P", "-m", "rtcore_envs.trial", str(rom), str(frames), *([str(state)] if state else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"hangs: {frames} frames were not over after {limit_s:g} s (an illegal instruction does that)"
    try:
        error = json.loads(done.stdout)["error"]
    except (ValueError, KeyError, TypeError):
        code = done.returncode
        how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
        return f"the trial {how}: {done.stderr[-_MAX_TAIL:].strip() or 'no word'}"
    return None if error is None else str(error)


def main() -> None:
    """Entry of the child."""
    from rtcore_envs.gameboy import start_emulator  # noqa: PLC0415 - only the child plays
    from rtcore_envs.rom import needs_colour, read_rom  # noqa: PLC0415
    from rtcore_envs.states import load_any_state  # noqa: PLC0415

    rom, frames, *states = sys.argv[1:]
    error = None
    try:
        content = read_rom(Path(rom))
        emulator = start_emulator(Path(rom), content, colour=needs_colour(content))
        for state in states:
            load_any_state(emulator, Path(state))
        emulator.tick(int(frames), True, False)
        emulator.stop(save=False)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"error": error}), flush=True)


if __name__ == "__main__":
    main()
