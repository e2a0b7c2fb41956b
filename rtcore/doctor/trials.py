"""What the doctor tries in a child process: `python -P -m rtcore.doctor.trials NAME FD`, a request on stdin, the
answer into that file; both are JSON.

A trial does what a run does, by the same code, so that its answer is the one a run would get. Its process ends with
it, and whatever was granted, locked or loaded ends with the process.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from rtcore.config.resolved import resolve
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.processes.sizing import layout_for
from rtcore.realtime import prepare_env_process, wake_soon


def realtime(request: dict[str, Any]) -> dict[str, Any]:
    """Ask for what a run's processes ask for, with `lock_bytes` of memory beside; read back what came of it."""
    ballast = mmap.mmap(-1, max(1, request["lock_bytes"]))
    turns = wake_soon()  # of normal priority: before the env process's
    report = prepare_env_process(None)
    locked_kb = next(
        int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck:")
    )
    answer = {
        "report": report,
        "turns": turns,
        "fifo": os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO,
        "priority": os.sched_getparam(0).sched_priority,
        "locked_bytes": 1024 * locked_kb,
        "timer_slack_ns": int(Path("/proc/self/timerslack_ns").read_text()),
    }
    ballast.close()
    return answer


def world(request: dict[str, Any]) -> dict[str, Any]:
    """Make the configured world, as the env process does; returns the layout a run would have, also if traced.

    {"wrong_setting": why} if there is no such world, or none that takes such arguments.
    """
    config = RuntimeConfig.from_jsonable(request["config"])
    with contextlib.suppress(FileNotFoundError):  # the current folder may have been deleted
        sys.path.append(str(Path.cwd()))  # own worlds, as rtcore-run looks for them
    from rtcore.loop.process import build_world, describe  # noqa: PLC0415 - the other trials need none of it

    try:
        made = build_world(config.world, config.world.seed)
        spec = describe(made, config)
    except ConfigError as error:
        return {"wrong_setting": str(error)}
    run = resolve(config, Fraction(spec.rate_hz), made.observation.nbytes)
    traced = replace(run, config=run.config.replace(trace=True))
    layouts = {
        name: layout_for(chosen, spec.observation, spec.action, spec.to_header()).to_json()
        for name, chosen in (("layout", run), ("traced", traced))
    }
    made.close()
    return layouts


def torch(request: dict[str, Any]) -> dict[str, Any]:
    """Whether this PyTorch can use a GPU.

    Has not been run on a machine with a GPU.
    """
    import torch as library  # noqa: PLC0415 - takes seconds

    cuda = library.cuda
    answer: dict[str, Any] = {"version": library.__version__, "cuda": library.version.cuda, "error": ""}
    try:
        cuda.init()  # type: ignore[no-untyped-call]
        library.zeros(1, device="cuda").add_(1).item()  # a kernel: a build without code for this GPU fails here only
    except Exception as error:
        answer["error"] = " ".join(str(error).split()) or type(error).__name__
    return answer


TRIALS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"realtime": realtime, "world": world, "torch": torch}


def main() -> None:
    """Program entry."""
    name, descriptor = sys.argv[1:]
    answer = TRIALS[name](json.load(sys.stdin))
    os.pwrite(int(descriptor), json.dumps(answer).encode(), 0)


if __name__ == "__main__":
    main()
