"""Everything that docs/gpu.md lists, once, on a GPU, in eight minutes at most: for whoever has one and wants to know.

    make gpu-proof                                                 # from a checkout, with a CUDA build of PyTorch
    python -m benchmarks.gpu_proof --out gpu-proof [--device cuda:0] [--minutes 8] [--only NAME,...] [--list]

For a machine that has PyTorch and nothing else, and no network: what else it needs travels as wheels.

    python -m benchmarks.gpu_proof --pack wheels --python 3.12     # where there is a network: fills the folder
    python3 -m benchmarks.gpu_proof --wheels wheels                # there, in a checkout, by the Python with PyTorch

Each step is a command with a time limit of its own and its log in the folder `--out`: one that fails or hangs does not
end the others, and what is left when the time is up is said to be so. `proof.json` holds what was found, `proof.md` the
table of docs/gpu.md (`--write-docs` puts it there). Exit code 1 if anything is wrong. `--device cpu` rehearses the same
steps without a GPU.

What is imported here comes with Python, or needs nothing else: this program has to begin on a bare machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rtcore.clock import MonotonicClock, unix_time_s
from rtcore.errors import RtcoreError
from rtcore.scheduling.dispatch import TickKind

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- begin of what make gpu-proof found -->", "<!-- end of what make gpu-proof found -->"
#: What a step says with its exit code when this machine cannot do it.
_CANNOT = 77
#: A rehearsal on CPUs gets so many times the time of each step: networks take longer there, and it is no measurement.
_PATIENCE = 5
#: What is told to end has so long for it.
_END_S = 5.0
#: What PyTorch does not bring, of rtcore and of the tests that are run here.
_PACKED = (
    *("gymnasium", "h5py", "hypothesis", "matplotlib", "numpy", "packaging", "pillow", "posix_ipc", "psutil", "pyboy"),
    *("pydantic", "pydantic-settings", "pytest", "pytest-timeout", "rich", "safetensors"),
)
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
#: Runs its arguments under an MPS daemon of their own, in folder $0, and ends that again.
_UNDER_MPS = f"""\
export CUDA_MPS_PIPE_DIRECTORY="$0/pipe" CUDA_MPS_LOG_DIRECTORY="$0/log"
mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
command -v nvidia-cuda-mps-control >/dev/null || {{ echo "no nvidia-cuda-mps-control here"; exit {_CANNOT}; }}
nvidia-cuda-mps-control -d || {{ echo "the MPS daemon cannot be started"; exit {_CANNOT}; }}
trap 'echo quit | nvidia-cuda-mps-control' EXIT
trap 'exit 143' TERM
"$@" & wait $!
"""

#: What is wrong with what a step left: of its folder and of what it said.
Look = Callable[[Path, str], Iterator[str]]
_RESULTS = {"ok": "ok", "cannot": "cannot be done here", "no time": "not run: no time was left"}
Figures = dict[str, Any]


@dataclass
class Step:
    """A command, and what to make of what it left: of its folder and of what it said."""

    name: str
    proves: str  #: in words, for the table
    command: list[str]
    limit_s: int
    exit_code: int = 0
    look: Look = lambda _folder, _said: iter(())
    figures: Callable[[Path, str], Figures] = lambda _folder, _said: {}


def all_steps(device: str, out: Path) -> list[Step]:
    on_gpu = device != "cpu"
    # On CPUs an inference of the large networks takes seconds, of eight at once a minute: a rehearsal has small ones.
    large, largest = (29, 98) if on_gpu else (1, 2)
    network = ("--policy-args", f"k={large}")
    # On busy CPUs an inference may take a while, and one has to come.
    sharing, seconds, more = ("auto", "4", []) if on_gpu else ("stand-in", "8", ["--hang-timeout-s", "120"])

    def play(
        name: str, proves: str, *words: str, sharing: str = sharing, limit_s: int = 45, also: Look | None = None
    ) -> Step:
        command = _program(
            "run", "--device", device, "--weights-sharing", sharing, "--out", str(out / name), *more, *words
        )
        return Step(name, proves, command, limit_s, look=_looks(device, sharing, also), figures=_of_run)

    def profile(name: str, proves: str, limit_s: int) -> Step:
        folder, sizes = out / name, (*network, "--workers", "1,2,4,8", "--seconds", "1")
        command = _program("profile", "gpu", "--device", device, *sizes, "--samples", "100")
        return Step(name, proves, [*command, "--json", str(folder / "profile.json")], limit_s, figures=_of_profile)

    def under_mps(step: Step) -> Step:
        step.command = ["sh", "-c", _UNDER_MPS, str((out / "mps").resolve()), *step.command]
        return step

    def staggered(k: int, workers: int, name: str = "") -> Step:
        words = ("--policy-args", f"k={k}", "--fps", "60", "--workers", str(workers), "--duration", seconds)
        return play(name or f"k{k}-{workers}", f"IMPALA, k = {k}, at 60 Hz, {workers} worker processes", *words)

    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # By file: those alone are collected, which takes a moment and needs few of the other tests' packages.
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    tests = ["-m", "gpu", *files] if on_gpu else ["tests/unit/workers/test_executors.py"]
    weights = [sys.executable, "-m", "benchmarks.weights_on_gpu", "--json", str(out / "weights" / "weights.json")]
    carries = ("--env-id", "CartPole-v1", "--policy", "benchmarks.carries:Carries", "--policy-args", "pad_ms=30")
    learns = ("--learn", "dqn", "--learning-starts", "100", "--workers", "2", "--duration", "10")
    return [
        Step("doctor", "what rtcore-doctor says of the machine", _program("doctor"), 60),
        Step("tests", "the tests marked gpu", [*pytest, *tests], 120, look=_no_skips, figures=_of_tests),
        profile("profile", "CUDA graph against eager; copies; k processes side by side", 120),
        *(staggered(large, workers) for workers in (1, 2, 4, 8)),
        staggered(largest, 4),
        Step(
            "weights",
            "one copy of the weights by CUDA IPC, with publications",
            [*weights, "--device", device, *network, "--workers", "4", "--windows", "2", "--window", "2"],
            90,
            figures=_of_weights,
        ),
        under_mps(profile("mps-profile", "the same k processes side by side, under MPS", 90)),
        under_mps(staggered(large, 8, f"mps-k{large}-8")),
        play("learn", "a learner on the same GPU", *learns, "--policy", "dqn", limit_s=60, also=_learned),
        play(
            "carries",
            "context, carried state and extras at fixed addresses",
            *(*carries, "--workers", "3", "--duration", "5", "--record"),
            also=_carried,
        ),
        play(
            "two-speed",
            "a head beside trunk workers",
            *("--policy", "two-speed", "--policy-args", "k=1,pad_ms=60", "--workers", "5", "--duration", "6"),
            also=_headed,
        ),
        play("learn-two-speed", "a learner, a head", *learns, "--policy", "two-speed", limit_s=60, also=_learned_head),
        play("auto", "--workers auto", *network, "--workers", "auto", "--duration", seconds),
        play(
            "private",
            "two copies of the weights in each worker",
            *("--policy-args", "k=1", "--workers", "2", "--duration", "4"),
            sharing="private",
        ),
        Step("sample", "Runtime.sample(device=...)", [sys.executable, "-c", _SAMPLING, device, "impala"], 45),
        *(
            Step(
                name, "an error that names it", _program("run", "--device", wrong, "--duration", "1"), 30, 2, _names_it
            )
            for name, wrong in (("no-such-gpu", "cuda:9"), ("no-such-device", "gpu"))
        ),
        # The last one: runs that others have on this machine do not count, those of the dead do.
        Step("nothing-left", "no shared memory is left", _program("doctor", "--json"), 30, look=_nothing_left),
    ]


def main() -> None:
    options = _parser().parse_args()
    if options.pack is not None:
        sys.exit(pack(options.pack, options.python))
    if options.wheels is not None:
        _again_with(options.wheels, options.out / "site")
    wanted = {name for name in options.only.split(",") if name}
    steps = all_steps(options.device, options.out)
    if unknown := wanted - {step.name for step in steps}:
        sys.exit(f"no step {', '.join(sorted(unknown))}; --list says which there are")
    steps = [step for step in steps if not wanted or step.name in wanted]
    patience = _PATIENCE if options.device == "cpu" else 1
    options.minutes = options.minutes or 8 * patience
    for step in steps:
        step.limit_s *= patience
    if options.list:
        for step in steps:
            print(f"{step.name:16}{step.limit_s:4} s  {shlex.join(step.command)}")
        return
    if options.write_docs and (options.device == "cpu" or wanted):
        sys.exit("--write-docs is for all steps on a GPU")
    options.out.mkdir(parents=True, exist_ok=True)
    sys.exit(prove(steps, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("gpu-proof"), help="folder for all that is left [%(default)s]")
    parser.add_argument("--minutes", type=float, help=f"for all steps together [8; in a rehearsal {8 * _PATIENCE}]")
    parser.add_argument("--only", default="", metavar="NAME,...", help="some of the steps")
    parser.add_argument("--list", action="store_true", help="say what would be run")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/gpu.md, too")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="use these beside PyTorch; nothing is installed")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="fetch those wheels into a folder, and end")
    parser.add_argument("--python", default="3.12", help="with --pack: version of Python there [%(default)s]")
    return parser


# -- a machine that has only PyTorch ---------------------------------------------------------------------------------


def pack(folder: Path, python: str) -> int:
    """Fetch wheels for Linux on x86-64, in the versions that rtcore is tested with; pip's exit code."""
    platforms = [f"--platform=manylinux_{glibc}_x86_64" for glibc in ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")]
    chosen = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    legacy = [f"--platform=manylinux{name}_x86_64" for name in ("2014", "2010", "1")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *chosen, *legacy, f"--dest={folder}"]
    code = subprocess.run([*command, f"--constraint={ROOT / 'constraints.txt'}", *_PACKED], check=False).returncode
    found = sorted(folder.glob("*.whl"))
    print(
        f"{folder}: {len(found)} wheels, {sum(wheel.stat().st_size for wheel in found) / 1e6:.0f} MB, Python {python}"
    )
    return code


def _again_with(wheels: Path, site: Path) -> None:
    """This program once more, with what is in the wheels. Does not return."""
    found = sorted(map(str, wheels.glob("*.whl")))
    if not found:
        sys.exit(f"{wheels}: no wheels; expected a folder that --pack filled")
    shutil.rmtree(site, ignore_errors=True)
    install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", f"--target={site}", *found]
    subprocess.run([sys.executable, "-m", *install], check=True)
    place = sys.argv.index("--wheels") if "--wheels" in sys.argv else None
    words = sys.argv[1:] if place is None else sys.argv[1:place] + sys.argv[place + 2 :]
    words = [word for word in words if not word.startswith("--wheels=")]
    paths = map(str, (site.resolve(), ROOT, ROOT / "workers", ROOT / "envs"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks.gpu_proof", *words], environment)


# -- the steps, one after another ------------------------------------------------------------------------------------


def prove(steps: list[Step], options: argparse.Namespace) -> int:
    """1 if anything is wrong."""
    clock = MonotonicClock()
    begin_ns, found, machine = clock.now_ns(), [], _machine()
    for step in steps:
        left_s = options.minutes * 60 - (clock.now_ns() - begin_ns) / 1e9
        found.append(run(step, options.out, left_s))
        record = {
            "schema_version": 1,
            "unix_time_s": round(unix_time_s()),
            "device": options.device,
            "machine": machine,
            "minutes": options.minutes,
            "elapsed_s": round((clock.now_ns() - begin_ns) / 1e9, 1),
            "steps": found,
        }
        # After each: whatever becomes of this program, what was found is there.
        (options.out / "proof.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.out / "proof.md").write_text(table_of(record))
    if options.write_docs:
        write_docs(table_of(record))
    print(f"{options.out / 'proof.json'}, {options.out / 'proof.md'}: {record['elapsed_s']:.0f} s")
    return int(any(step["verdict"] not in ("ok", "cannot") for step in found))


def run(step: Step, out: Path, left_s: float) -> dict[str, Any]:
    """Its verdict: "ok", "wrong", "cannot" (this machine does not allow it), "no time" (it was not run)."""
    clock, log, folder = MonotonicClock(), out / f"{step.name}.log", out / step.name
    about = {"name": step.name, "proves": step.proves, "command": shlex.join(step.command), "figures": {}}
    if left_s < 1:
        print(f"{step.name:16}         no time was left", flush=True)
        return about | {"verdict": "no time", "wrong": [], "elapsed_s": 0.0}
    folder.mkdir(parents=True, exist_ok=True)
    begin_ns = clock.now_ns()
    with log.open("w") as file:
        code = _exit_code(step.command, min(step.limit_s, left_s), file)
    elapsed_s, said = (clock.now_ns() - begin_ns) / 1e9, log.read_text(errors="replace")
    wrong = [] if code in (step.exit_code, _CANNOT) else [f"exit code {code}, expected {step.exit_code}"]
    figures: Figures = {}
    if code == step.exit_code:
        try:
            wrong += step.look(folder, said)
            figures = step.figures(folder, said)
        except (OSError, LookupError, TypeError, ValueError, RtcoreError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
    verdict = "cannot" if code == _CANNOT else "wrong" if wrong else "ok"
    text = {"ok": "ok", "cannot": f"cannot be done here: {said.strip()[-200:]}"}.get(verdict)
    print(f"{step.name:16}{elapsed_s:6.1f} s  {text or f'WRONG ({log}): ' + '; '.join(wrong)}", flush=True)
    return about | {"verdict": verdict, "wrong": wrong, "elapsed_s": round(elapsed_s, 1), "figures": figures}


def _exit_code(command: list[str], limit_s: float, file: Any) -> int | str:
    """With all its processes: what hangs is told to end, and then killed, with those that it started."""
    process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return f"none within {limit_s:g} s"
    finally:
        if process.returncode is None:  # also after a Ctrl-C, which a step of a session of its own does not get
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    with contextlib.suppress(ProcessLookupError):  # those that it started may be left also where it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _machine() -> dict[str, Any]:
    """Without touching CUDA in this process."""
    query = "--query-gpu=name,driver_version,memory.total,compute_cap,compute_mode"
    return {
        "gpus": _said(["nvidia-smi", query, "--format=csv,noheader"]).splitlines(),
        "torch": metadata.version("torch"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "rtcore": _said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]),
    }


def _said(command: list[str]) -> str:
    """What a program says; "" if it is not there, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


# -- the table -------------------------------------------------------------------------------------------------------


def table_of(record: dict[str, Any]) -> str:
    """The table of docs/gpu.md."""
    machine = record["machine"]
    gpus = "; ".join(machine["gpus"]) or "no GPU: a rehearsal on CPUs, whose figures say nothing about any GPU"
    date = _said(["date", "-u", "-d", f"@{record['unix_time_s']}", "+%Y-%m-%d"])
    lines = [
        f"{date}, {gpus}. PyTorch {machine['torch']}, Python {machine['python']}, Linux {machine['kernel']}, "
        f"{machine['cpus']} CPUs, rtcore {machine['rtcore']}; {record['elapsed_s']:.0f} s in all.",
        "",
        "| step | proves | result | figures |",
        "|---|---|---|---|",
    ]
    for step in record["steps"]:
        result = _RESULTS.get(step["verdict"]) or "**wrong**: " + "; ".join(step["wrong"])
        figures = ", ".join(f"{name} {_number(value)}" for name, value in step["figures"].items())
        cells = (f"`{step['name']}`", step["proves"], result, figures)
        lines.append("| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_docs(table: str) -> None:
    """Between the marks in docs/gpu.md."""
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{rest.split(END)[1]}")


# -- what is wrong with what a step left, and its figures ------------------------------------------------------------


def _program(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"rtcore.cli.{name}", *words]


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def _of_run(folder: Path, _said: str) -> Figures:
    summary = _summary(folder)
    took, actions = summary["inference_ms"], summary["actions"]
    figures = {
        "acted": actions["acted_fraction"],
        "delay [ticks]": actions["delay_ticks"]["p50"],
        "inference p50 [ms]": took["p50"],
        "p99 [ms]": took["p99"],
        "lateness p99 [us]": summary["ticks"]["lateness_us"]["p99"],
        "workers": len(summary["workers"]),
    }
    if learner := summary.get("learner"):
        figures |= {"updates": learner["updates"], "version": learner["version"]}
    return figures


def _of_tests(_folder: Path, said: str) -> Figures:
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped|deselected)", said)}


def _of_profile(folder: Path, _said: str) -> Figures:
    found = json.loads((folder / "profile.json").read_text())
    figures: Figures = {}
    for row in found["rows"]:
        if row["part"] == "inference":
            figures[f"{row['mode']} p50 [us]"] = row["p50_us"]
        if row["part"] == "overlap":
            figures[f"{row['workers']} side by side [1/s]"] = row["inferences_per_s"]
            figures[f"of {row['workers']} times one"] = row["of_perfect_fraction"]
    return figures


def _of_weights(folder: Path, _said: str) -> Figures:
    found = json.loads((folder / "weights.json").read_text())
    return {f"{name} {what}": value for name, figures in found.items() for what, value in figures.items()}


def _looks(device: str, sharing: str, also: Look | None = None) -> Look:
    def look(folder: Path, said: str) -> Iterator[str]:
        summary = _summary(folder)
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
    from rtcore.recording.reader import Recording

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
    head = _summary(folder)["head"]
    if head["acted_ticks"] <= head["base_ticks"]:
        yield f"the head acted at {head['acted_ticks']} ticks, a base action at {head['base_ticks']}"


def _learned(folder: Path, _said: str) -> Iterator[str]:
    learner = _summary(folder)["learner"]
    if not learner["updates"]:
        yield "the learner made no update"
    if not learner["checkpoints"]:
        yield "no checkpoint was written"


def _learned_head(folder: Path, said: str) -> Iterator[str]:
    yield from _learned(folder, said)
    yield from _headed(folder, said)


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
