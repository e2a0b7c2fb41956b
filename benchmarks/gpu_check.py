"""Everything that docs/gpu.md lists, once, on a GPU, within minutes: for whoever has one and wants to know.

    python -m benchmarks.gpu_check --out gpu-check [--device cuda:0] [--only NAME,...] [--list]

Each check is a command with a time limit of its own and its log in the folder `--out`; one that fails does not end the
others. What is wrong is said at the end; exit code 1 then. `--device cpu` rehearses the same checks without a GPU.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.clock import MonotonicClock
from rtcore.errors import RtcoreError
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import TickKind

_SAMPLING = """\
import sys, rtcore
device, policy = sys.argv[1:]
with rtcore.Runtime(policy=policy, device=device, workers=2, duration=60) as runtime:
    batches = 0
    while batches < 50 and not runtime.wait(0.01):
        batch = runtime.sample(32, device=device)
        batches += batch is not None
    assert batch.obs.device == __import__("torch").device(device), batch.obs.device
    assert batch.obs.float().std() > 0
print("sampled", batches, tuple(batch.obs.shape), batch.obs.device)
"""


#: What is wrong with what a check left: of its folder and of what it said.
Look = Callable[[Path, str], Iterator[str]]


class Carries(nn.Module):
    """Takes a context and a state and gives back what it saw of them: the recording says whether they came through.

    Nothing in it makes the host wait for the device, so that it can be captured into a CUDA graph.
    """

    policy_extras: ClassVar = {
        "tick": ((), "int64"),
        "delay": ((), "int64"),
        "known": ((), "int64"),
        "count": ((), "float32"),
    }

    def __init__(self, observation_space: spaces.Box, action_space: spaces.Discrete) -> None:
        super().__init__()
        self.values = nn.Linear(prod(observation_space.shape), int(action_space.n))

    def initial_state(self) -> Tensor:
        return torch.zeros(1, 1)

    def forward(self, observation: Tensor, *, context: Any, state: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        count, known = state + 1, (context.committed_mask == 0).logical_not().sum(dim=1)
        values = self.values(observation.float().flatten(1))
        extras = {"tick": context.tick, "delay": context.delay_ticks, "known": known, "count": count[:, 0]}
        return values, count, extras


@dataclass
class Check:
    """`command`, and what is wrong with what it left: (its folder, what it said) -> complaints."""

    name: str
    command: list[str]
    limit_s: int
    exit_code: int = 0
    look: Look = field(default=lambda _folder, _said: iter(()))


def all_checks(device: str, out: Path) -> list[Check]:
    on_gpu = device != "cpu"
    sharing = "auto" if on_gpu else "stand-in"

    def play(name: str, *words: str, sharing: str = sharing, limit_s: int = 60, also: Look | None = None) -> Check:
        command = _program("run", "--device", device, "--weights-sharing", sharing, "--out", str(out / name), *words)
        return Check(name, command, limit_s, look=_looks(device, sharing, also))

    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # By file: those alone are collected, which takes a moment and needs few of the other tests' packages.
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    tests = ["-m", "gpu", *files] if on_gpu else ["tests/unit/workers/test_executors.py"]
    weights = [sys.executable, "-m", "benchmarks.weights_on_gpu"]
    profile = ("--policy-args", "k=29", "--workers", "1,2,4", "--seconds", "1", "--samples", "100")
    return [
        Check("doctor", _program("doctor"), 60),
        Check("tests", [*pytest, *tests], 150, look=_no_skips),
        play("k1", "--policy-args", "k=1", "--workers", "2", "--duration", "5"),
        play("k29", "--policy-args", "k=29", "--workers", "4", "--duration", "8"),
        play("k29-auto", "--policy-args", "k=29", "--workers", "auto", "--duration", "5"),
        play("private", "--policy-args", "k=1", "--workers", "2", "--duration", "4", sharing="private"),
        play(
            "carries",
            *("--env-id", "CartPole-v1", "--policy", "benchmarks.gpu_check:Carries", "--policy-args", "pad_ms=30"),
            *("--workers", "3", "--duration", "5", "--record"),
            also=_carried,
        ),
        play(
            "two-speed",
            *("--policy", "two-speed", "--policy-args", "k=1,pad_ms=60", "--workers", "5", "--duration", "6"),
            also=_headed,
        ),
        play(
            "learn-two-speed",
            *("--learn", "dqn", "--policy", "two-speed", "--workers", "2", "--duration", "15"),
            limit_s=90,
            also=_headed,
        ),
        play("learn", "--learn", "dqn", "--policy", "dqn", "--workers", "2", "--duration", "15", limit_s=90),
        Check("sample", [sys.executable, "-c", _SAMPLING, device, "impala"], 60),
        Check(
            "profile",
            _program("profile", "gpu", "--device", device, *profile, "--json", str(out / "profile.json")),
            120,
        ),
        Check("weights", [*weights, "--device", device, "--workers", "4", "--windows", "2", "--window", "2"], 120),
        Check("no-such-gpu", _program("run", "--device", "cuda:9", "--duration", "1"), 60, exit_code=2, look=_names_it),
        Check("no-such-device", _program("run", "--device", "gpu", "--duration", "1"), 60, exit_code=2, look=_names_it),
        # The last one: runs that others have on this machine do not count, those of the dead do.
        Check("nothing-left", _program("doctor", "--json"), 60, look=_nothing_left),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for logs [%(default)s]")
    parser.add_argument("--only", default="", metavar="NAME,...", help="some of the checks")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    options = parser.parse_args()
    wanted = {name for name in options.only.split(",") if name}
    checks = [check for check in all_checks(options.device, options.out) if not wanted or check.name in wanted]
    if options.list:
        for check in checks:
            print(f"{check.name:16}{shlex.join(check.command)}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    sys.exit(max([run(check, options.out) for check in checks], default=0))


def run(check: Check, out: Path) -> int:
    """1 if anything is wrong."""
    clock = MonotonicClock()
    begin_ns = clock.now_ns()
    log = out / f"{check.name}.log"
    with log.open("w") as file:
        try:
            code: int | str = subprocess.run(
                check.command, stdout=file, stderr=subprocess.STDOUT, timeout=check.limit_s, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"none within {check.limit_s} s"
    wrong = [] if code == check.exit_code else [f"exit code {code}, expected {check.exit_code}"]
    if not wrong:
        try:
            wrong += check.look(out / check.name, log.read_text())
        except (OSError, KeyError, ValueError, RtcoreError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    verdict = "ok" if not wrong else f"WRONG ({log}): " + "; ".join(wrong)
    print(f"{check.name:16}{(clock.now_ns() - begin_ns) / 1e9:6.1f} s  {verdict}", flush=True)
    return 1 if wrong else 0


def _program(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"rtcore.cli.{name}", *words]


def _looks(device: str, sharing: str, also: Look | None = None) -> Look:
    def look(folder: Path, said: str) -> Iterator[str]:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        kinds = summary["ticks"]["kinds"]
        if not kinds["acted"]:
            yield f"no tick was acted on: {kinds}"
        weights = summary["weights"]
        if weights["torn"]:
            yield f"{weights['torn']} torn weights"
        if "capture failed" in said:
            yield "the policy was not captured into a CUDA graph"
        shared = {holder["memory"]: holder["refused"] for holder in weights.get("holders", ())}
        expected = {} if sharing == "private" else {"stand-in" if device == "cpu" else "cuda-ipc": ""}
        if shared != expected:
            yield f"weights shared by {shared}, expected {expected}"
        if also is not None:
            yield from also(folder, said)

    return look


def _carried(folder: Path, _said: str) -> Iterator[str]:
    """What `Carries` gave back, against the rows of the recording."""
    with Recording(folder) as recording:
        acted = recording.column("kind") == TickKind.ACTED
        names = ("obs_tick", "due_tick", "extras/tick", "extras/delay", "extras/known", "extras/count", "state/value")
        columns = {name: recording.column(name)[acted] for name in names}
        came_from = recording.column("state_tick")[acted]
    for extra, expected in (
        ("tick", columns["obs_tick"]),
        ("delay", columns["due_tick"] - columns["obs_tick"]),
        ("count", columns["state/value"].ravel() + 1),
    ):
        if (wrong := (columns[f"extras/{extra}"] != expected).sum()) or not len(expected):
            yield f"{wrong} of {len(expected)} actions came with another {extra} than the policy was told"
    if (columns["extras/known"] >= columns["extras/delay"]).any():
        yield "more actions were known than lie between a frame and its action"
    if not (came_from >= 0).any() or columns["state/value"].max() < 1:
        yield "no state was carried on"


def _headed(folder: Path, _said: str) -> Iterator[str]:
    head = json.loads((folder / "summary.json").read_text())["head"]
    if head["acted_ticks"] <= head["base_ticks"]:
        yield f"the head acted at {head['acted_ticks']} ticks, a base action at {head['base_ticks']}"


def _no_skips(_folder: Path, said: str) -> Iterator[str]:
    if " passed" not in said or ("needs a CUDA device" in said and "cuda" in said):
        yield "tests were skipped, or none ran"


def _nothing_left(_folder: Path, said: str) -> Iterator[str]:
    for check in json.loads(said)["checks"]:
        if check["check"] == "shm.stale" and check["status"] != "ok":
            yield check["found"]


def _names_it(_folder: Path, said: str) -> Iterator[str]:
    if "ConfigError: device is" not in said:
        yield "the message does not name the device"


if __name__ == "__main__":
    main()
