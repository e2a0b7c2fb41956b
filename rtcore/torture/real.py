"""`rtcore-torture real`: runs of random worlds and settings by real processes, with faults; and what they must leave.

A seed decides settings and faults. When exactly a fault falls is up to the machine, so a seed that broke a promise once
may need several runs to do so again; what the program said, and the folder, are kept.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.errors import ConfigError, text_of
from rtcore.files.strict_json import finite
from rtcore.torture import faults
from rtcore.torture.aftermath import ORDERLY, check_folder, lateness_us
from rtcore.torture.faults import Applied, Fault
from rtcore.torture.program import Program
from rtcore.torture.world import CLOSED, MADE, notes

_WORLD = "rtcore.torture.world:make"
#: How long start and end of a run may take on a busy machine [s]: a watchdog, no promise.
_LIMIT_S = 240.0
#: A stopped recorder is waited for this long at the end, a fork server at the start [s].
_RECORDER_S, _FORKSERVER_S = 15.0, 4.0
#: How long what is left may take to go, on a busy machine [s].
_LEFTOVER_GRACE_S = 60.0
#: What is meant for the last moments of a run may come after its last tick [s].
_BEFORE_THE_END_S = 0.3
#: A private /dev/shm, and a folder for a run's files, that can be made full.
_SHM_WRAPPER = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
_MOUNT_SHM = 'mount -t tmpfs -o size=8g tmpfs /dev/shm && exec "$@"'
_MOMENTS = {
    "import": "import",
    "world": "world",
    "workers": "workers",
    "rehearsal": "rehearsal",
    "first tick": "ticks",
    "run": "ticks",
    "publication": "ticks",
    "checkpoint": "ticks",
    "shutdown": "ticks",
}
#: The plan of a rehearsal refuses a chunk so.
_REFUSED_CHUNK = "with chunk_from=frame: an answer is due"
_NO_THREAD = "OpenBLAS blas_thread_init: pthread_create failed"
#: In a traceback: the program had begun, and its signals are its own.
_OWN_FRAME = "in end_program"
#: What an exit code of 1 has to name, by the role that was hit.
_WORDS = {
    "worker": ("worker ", "head"),
    "env": ("env 0", "env process", "the world", "Environment"),
    "learner": ("learner ",),
    "holder": ("holder", "worker "),  # its workers go down with it
    "recorder": ("recorder", "recording"),
    "forkserver": ("fork server", "LauncherDied", "no process could be started"),
    "parent": ("closed while", "stopped by", "cannot", "open files", "file descriptor", "thread"),
    "simulator": (),
    "run": ("cannot", "no process could be started", "No space", "thread", "full", "room", "fork", "File too large"),
}
#: What tells an error, or what was lost by one.
_WORDS_OF_ERRORS = ("Error", "recording stopped", "Died", "Hung", "Failed", "could not be written", "not written:")


@dataclass(frozen=True)
class Case:
    """A run and its faults, as a seed plans them. `words`: of rtcore-run, but --out and the world's note."""

    seed: int
    words: tuple[str, ...]
    world_args: tuple[str, ...]
    faults: tuple[Fault, ...]
    ticks: int
    duration_s: float
    keeps: bool  #: has an --out
    trace: bool
    record: bool
    learn: bool
    hang_s: float
    env_s: float
    max_restarts: int


@dataclass
class Result:
    """What became of a case. `violations`: promises that were broken."""

    case: Case
    exitcode: int | None
    took_s: float
    began: bool
    applied: list[Applied]
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lateness_us: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.case.seed,
            "exitcode": self.exitcode,
            "took_s": round(self.took_s, 1),
            "began": self.began,
            "faults": [applied.to_json() for applied in self.applied],
            "planned_faults": len(self.case.faults),
            "violations": self.violations,
            "notes": self.notes,
            "lateness_p99_us_within_1s_and_else": self.lateness_us,
            "words": self.case.words,
        }


# -- what a seed plans -------------------------------------------------------------------------------------


def plan_case(seed: int) -> Case:
    """The run and the faults of a seed: the same on every machine."""
    draw = random.Random(seed)
    blocks, learn, record, trace = (draw.random() < share for share in (0.25, 0.35, 0.4, 0.3))
    fps = 60 if blocks else draw.choice([30, 60, 100, 200])
    duration_s = draw.uniform(1.5, 4.0)
    ticks, workers = int(fps * duration_s), draw.randint(2, 10)
    world = [f"env_id={'rtcore/Blocks-v0' if blocks else 'CartPole-v1'}", f"simulator={draw.random() < 0.5}"]
    words = ["--no-live", "--env-id", _WORLD, "--fps", str(fps)]
    learners = 0
    if learn:
        turns = draw.random() < 0.2
        workers, learners = (1, 0) if turns else (min(workers, 4), draw.choice([1, 1, 2]))
        words += [
            "--policy",
            draw.choice(["mlp", "two-speed"]) if not (blocks or turns) else ("nature" if blocks else "mlp"),
        ]
        words += ["--learn", "dqn", "--learning-starts", "30", "--no-tensorboard"]
        words += ["--publish-every", str(draw.choice([1, 10])), "--checkpoint-every-s", str(draw.choice([0.3, 60]))]
        if turns:
            words += ["--mode", draw.choice(["infer-then-learn", "learn-then-infer"]), "--stagger", "sequential"]
        else:
            words += ["--learners", str(learners)]
    else:
        policy, latency_ms = draw.choice(["synthetic", "synthetic", "mlp", "two-speed"]), 0
        if policy == "synthetic":
            latency_ms = draw.choice([5, 20, 50, 100, 150])
            words += ["--policy", policy, "--policy-args", f"latency_ms={latency_ms}"]
        else:
            workers = min(workers, 5)
            words += ["--policy", "impala" if blocks and policy == "mlp" else policy]
        words += ["--stagger", draw.choice(["max-time", "max-time", "expected-time", "sequential", "free-running"])]
        if policy != "two-speed" and draw.random() < 0.25:
            chunk, chunk_from = draw.randint(2, 4), draw.choice(["due", "frame"])
            if chunk_from == "frame":
                chunk += 2 + latency_ms * fps // 1000  # one that is past before it is due is refused
            words += ["--chunk", str(chunk), "--chunk-from", chunk_from]
        if draw.random() < 0.25:
            words += ["--ring-slots", str(draw.choice([64, 256]))]
    hang_s, env_s, max_restarts = draw.choice([1.0, 5.0]), draw.choice([2.0, 10.0]), draw.choice([0, 3, 3])
    words += ["--workers", str(workers), "--ticks", str(ticks), "--seed", str(seed), "--warmup", "1"]
    words += ["--wait", draw.choice(["auto", "hybrid", "block", *(["spin"] if workers <= 2 else [])])]
    words += ["--overrun", draw.choice(["skip", "skip", "stretch"]), "--on-reset", draw.choice(["hold", "run"])]
    words += ["--on-missing", draw.choice(["noop", "repeat", "random"]), "--on-late", draw.choice(["apply", "drop"])]
    words += ["--hang-timeout-s", str(hang_s), "--env-timeout-s", str(env_s), "--max-restarts", str(max_restarts)]
    # On a machine whose CPUs others have, a start takes more than a minute.
    words += ["--startup-timeout-s", "150", *(["--record"] if record else []), *(["--trace"] if trace else [])]
    keeps = record or trace or learn or draw.random() < 0.8
    # Most runs are over sooner without; some are hit while they draw.
    words += ["--no-pictures"] if keeps and seed % 4 else []
    roles = ["worker"] * 3 + ["env"] * 2 + ["forkserver", "parent", "parent", "simulator"]
    roles += ["learner"] * 2 * bool(learners) + ["recorder"] * 2 * record
    if "synthetic" not in words and random.Random(f"holder {seed}").random() < 0.3:
        words += ["--weights-sharing", "stand-in"]
        roles += ["holder"] * 4
    planned = _plan_faults(draw, roles, duration_s, learn=learn, keeps=keeps)
    return Case(
        seed=seed,
        words=tuple(words),
        world_args=tuple(world),
        faults=planned,
        ticks=ticks,
        duration_s=duration_s,
        keeps=keeps,
        trace=trace,
        record=record,
        learn=learn,
        hang_s=hang_s,
        env_s=env_s,
        max_restarts=max_restarts,
    )


def _plan_faults(
    draw: random.Random, roles: Sequence[str], duration_s: float, *, learn: bool, keeps: bool
) -> tuple[Fault, ...]:
    """None to three, some of them at once."""
    moments = [*_MOMENTS, "run", "shutdown"]
    moments = [moment for moment in moments if learn or moment not in ("publication", "checkpoint")]
    planned: list[Fault] = []
    at_once = draw.random() < 0.4
    for _ in range(draw.choice([0, 1, 1, 1, 1, 1, 1, 2, 2, 3])):
        moment = draw.choice(moments)
        after_s = {
            "import": draw.uniform(0, 3),
            "world": draw.uniform(0, 0.5),
            "workers": draw.uniform(0, 2),
            "rehearsal": draw.uniform(0, 2),
            "first tick": draw.uniform(0, 0.1),
            "run": draw.uniform(0.1, duration_s),
            "publication": draw.uniform(0.7, duration_s),
            "checkpoint": draw.uniform(0.7, duration_s),
            "shutdown": duration_s + draw.uniform(-_BEFORE_THE_END_S, 1.5),
        }[moment]
        kind = draw.choice([*(faults.SIGNALS * 2), "KILL", "STOP", faults.NO_DESCRIPTORS, *faults.MACHINE])
        if kind == faults.FULL_DISK and not keeps:
            kind = "KILL"
        role = "run" if kind in faults.MACHINE else draw.choice(roles)
        hold_s = round(10 ** draw.uniform(-1, 0.7), 2)
        fault = Fault(
            kind=kind,
            role=role,
            index=draw.randrange(10),
            phase=_MOMENTS[moment],
            moment=moment,
            after_s=round(after_s, 3),
            hold_s=hold_s,
        )
        if planned and at_once:
            first = planned[0]
            fault = replace(fault, phase=first.phase, moment=first.moment, after_s=first.after_s)
        planned.append(fault)
    return tuple(planned)


# -- one of them -------------------------------------------------------------------------------------------


def run_case(case: Case, folder: Path) -> Result:
    """Play it, and look at what is left.

    Args:
        case: What a seed plans.
        folder: Where its files go; it is made, and stays.
    """
    with _room_for(case, folder) as out:
        note = folder / "world.txt"
        words = [*case.words, "--env-args", ",".join((*case.world_args, f"note={note}"))]
        if case.keeps:
            words += ["--out", str(out)]
        private = _wants(case, faults.FULL_SHM)
        wrapper = (*_SHM_WRAPPER, _MOUNT_SHM, "sh") if private else ()
        program = Program(words, f"{os.getpid()}-{case.seed}", wrapper=wrapper, private_shm=private)
        applied: list[Applied] = []
        try:
            return _watch(case, program, applied, out if case.keeps else None, note)
        finally:
            program.clean_up()
            (folder / "said.txt").write_text(program.output)


def _watch(case: Case, program: Program, applied: list[Applied], out: Path | None, note: Path) -> Result:
    clock = MonotonicClock()
    start_ns = clock.now_ns()

    def inject(fault: Fault) -> None:
        if (done := faults.apply(fault, program, out)) is not None:
            done.into_ticks_s = program.into_ticks_s(done.at_ns)
            applied.append(done)

    threads = [threading.Thread(target=inject, args=(fault,), daemon=True) for fault in case.faults]
    for thread in threads:
        thread.start()
    held_s = sum(fault.hold_s for fault in case.faults)
    exitcode = program.wait(_LIMIT_S + case.duration_s + held_s)
    took_s = (clock.now_ns() - start_ns) / NS_PER_S
    result = Result(case, exitcode, took_s, "tau p50" in program.output, applied)
    if exitcode is None:
        left = "; ".join(f"{process.pid} {process.name()}" for process in program.marked())
        result.violations.append(f"it did not end; its processes: {left}")
        return result
    for thread in threads:
        thread.join(8)
    hit = {(one.fault.role, one.fault.kind in faults.DEADLY or one.fault.kind == "HUP") for one in applied}
    nobody_cleans = hit >= {("parent", True), ("forkserver", True)}
    parent_died = any(one.fault.role == "parent" and one.fault.kind in faults.DEADLY for one in applied)
    processes, names = program.leftovers(_LEFTOVER_GRACE_S + (case.env_s + 2 if parent_died else 0))
    # The next run on the machine removes what both of them leave when they are killed at once.
    told = result.notes if nobody_cleans else result.violations
    told += [f"processes are left: {processes}"] if processes else []
    told += [f"shared memory is left: {names}"] if names else []
    judge_end(result, program.output)
    _judge_closing(result, notes(note))
    if out is not None:
        _judge_files(result, out, parent_died=parent_died)
    return result


def judge_end(result: Result, output: str) -> None:
    """Exit code and words against README's exit codes and the table of deaths in docs/architecture.md."""
    case, applied, found = result.case, result.applied, result.violations
    allowed = {0} if not applied else set()
    for one in applied:
        allowed |= _allowed(case, one, alone=len(applied) == 1)
    if not result.began and _REFUSED_CHUNK in output:
        allowed.add(2)  # on a busy machine any chunk may be past before its answer is there; the rehearsal tells
    if not result.began and _NO_THREAD in output:
        allowed.add(128 + signal.SIGINT)  # NumPy's OpenBLAS raises it, as it is imported and can start no thread
    if result.exitcode not in allowed:
        found.append(f"exit code {result.exitcode}, expected one of {sorted(allowed)}")
    if result.exitcode == 1 and applied:
        if not any(word in output for one in applied for word in _WORDS[one.fault.role]):
            found.append("exit code 1, and no word of what was hit")
        if not any(word in output for word in _WORDS_OF_ERRORS):
            found.append("exit code 1 without an error in words")
    # An error of another process brings its own traceback, under the program's line. Ctrl-C while Python is about to
    # find the program is answered by Python.
    of_python_itself = result.exitcode == -signal.SIGINT and _OWN_FRAME not in output
    if "Traceback (most recent call last)" in output.partition("rtcore-run: ")[0] and not of_python_itself:
        needs_no_words = any(one.fault.role != "parent" and one.fault.kind == faults.NO_DESCRIPTORS for one in applied)
        (result.notes if needs_no_words else found).append("a traceback was printed")


def _allowed(case: Case, one: Applied, *, alone: bool) -> set[int]:
    fault, ticking = one.fault, one.was_ticking
    role, kind = fault.role, fault.kind
    at_the_end = fault.moment == "shutdown" or one.into_ticks_s > case.duration_s - _BEFORE_THE_END_S
    if role == "simulator" or (kind == "INT" and role != "parent") or (role == "forkserver" and kind == "TERM"):
        return {0}
    if kind in (faults.FREEZE, faults.QUOTA):
        return {0}
    if kind in faults.MACHINE or kind == faults.NO_DESCRIPTORS:
        return {0, 1}
    if role == "parent":
        if kind == "STOP":
            return {0}
        number = int(getattr(signal, f"SIG{kind}"))
        if kind in faults.DEADLY:
            return {-number, 0} if at_the_end else {-number}  # it may have had its exit code already
        return {-number, 128 + number, 0}
    if kind == "STOP":
        limits = {"worker": case.hang_s, "learner": case.hang_s, "env": case.env_s, "holder": math.inf}
        limit_s = limits.get(role, _RECORDER_S if role == "recorder" else _FORKSERVER_S)
        return {0, 1} if fault.hold_s > 0.8 * limit_s else {0}
    if role in ("worker", "learner", "holder"):
        survives = ticking and case.max_restarts > 0 and alone and not at_the_end
        return {0} if survives else {0, 1}
    return {0, 1} if at_the_end else {1}


def _judge_closing(result: Result, written: Sequence[str]) -> None:
    """`close()` is called however a run ends, but where the world's own process is killed or does not run any more."""
    case = result.case
    for one in result.applied:
        role, kind = one.fault.role, one.fault.kind
        if role == "env" and (
            kind in (*faults.DEADLY, "HUP") or (kind == "STOP" and one.fault.hold_s > 0.8 * case.env_s)
        ):
            return
        if role == "forkserver" and kind not in ("INT", "TERM", "STOP", faults.NO_DESCRIPTORS):
            return
        if kind in (faults.FREEZE, faults.QUOTA) and len(result.applied) > 1:
            return  # what came meanwhile finds nobody at home
    count = Counter(written)
    if count[CLOSED] < count[MADE]:
        result.violations.append(f"the world was made {count[MADE]} times and closed {count[CLOSED]} times")


def _judge_files(result: Result, out: Path, *, parent_died: bool) -> None:
    case, exitcode = result.case, result.exitcode
    if parent_died or not result.began or exitcode not in (*ORDERLY, 1):
        return
    kinds = {one.fault.kind for one in result.applied}
    if exitcode == 1 and kinds & {faults.FULL_DISK, faults.FULL_SHM, faults.NO_FORKS, faults.NO_DESCRIPTORS}:
        # It has said what it could not write. What is there must be readable.
        for path in (out / name for name in ("summary.json", "config.json")):
            if path.exists():
                try:
                    json.loads(path.read_text())
                except (OSError, ValueError) as error:
                    result.violations.append(f"{path.name}: {error}")
        return
    env_died = any(one.fault.role in ("env", "forkserver") and one.fault.kind != "STOP" for one in result.applied)
    try:
        found = check_folder(out, ticks=case.ticks, exitcode=exitcode, env_died=env_died)
    except (KeyError, ValueError, TypeError, OSError) as error:
        found = [f"the folder cannot be understood: {text_of(error)}"]
    result.violations += found
    if case.trace and exitcode == 0 and not (out / "trace.perfetto-trace").exists():
        result.violations.append("there is no trace")
    first = next((one for one in result.applied if one.was_ticking and one.fault.moment != "shutdown"), None)
    if first is not None and not found:
        result.lateness_us = lateness_us(out, first.at_ns)
    if case.record and exitcode == 0 and not found and case.seed % 3 == 0 and not kinds & {faults.FULL_DISK}:
        words = [sys.executable, "-m", "rtcore.cli.run", "--replay", str(out), "--env-id", _WORLD]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        if done.returncode:
            result.violations.append(f"the replay is another run: {(done.stdout + done.stderr)[-400:]}")
        result.notes.append("played again")


def _wants(case: Case, kind: str) -> bool:
    """Whether a file system of its own is needed, and can be had."""
    return os.getuid() == 0 and any(fault.kind == kind for fault in case.faults)


@contextmanager
def _room_for(case: Case, folder: Path) -> Iterator[Path]:
    """Where the run's own folder is to be: in a file system of its own if that is to get full."""
    shutil.rmtree(folder, ignore_errors=True)
    room = folder / "room"
    room.mkdir(parents=True)
    mounts = _wants(case, faults.FULL_DISK)
    if mounts:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(room)], check=False)
        mounts = done.returncode == 0
    try:
        yield room / "run"
    finally:
        if mounts:
            subprocess.run(["umount", "--lazy", str(room)], check=False)


# -- all of them -------------------------------------------------------------------------------------------


def torture(options: argparse.Namespace) -> int:
    """What the words of `rtcore-torture real` ask for; the exit code."""
    # Whatever started this program (nohup, a background job) may ignore them: a run gets them as in a terminal.
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    base = Path(options.out) if options.out else Path(tempfile.mkdtemp(prefix="rtcore-torture-"))
    clock = MonotonicClock()
    end_ns = clock.now_ns() + int(options.minutes * 60 * NS_PER_S) if options.minutes else None
    code = code_fingerprint()
    records = read_log(Path(options.log), code) if options.log else []
    known = {record["seed"] for record in records}

    def one(seed: int) -> None:
        if end_ns is not None and clock.now_ns() > end_ns:
            return
        case = plan_case(seed)
        if options.show:
            print(f"seed {seed}: rtcore-run {' '.join(case.words)}", *(f"  {fault}" for fault in case.faults), sep="\n")
        folder = base.resolve() / f"seed{seed}"
        try:
            result = run_case(case, folder)
        except Exception as error:  # a fault of the campaign itself is one of that case: the others go on
            result = Result(
                case,
                exitcode=None,
                took_s=0.0,
                began=False,
                applied=[],
                violations=[f"the campaign failed: {text_of(error)}"],
            )
        record = finite(result.to_json() | {"code": code})
        records.append(record)
        print(line_of(result), file=sys.stderr, flush=True)
        if options.log:
            with Path(options.log).open("a") as file:
                file.write(json.dumps(record) + "\n")
        if not result.violations:
            shutil.rmtree(folder, ignore_errors=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            for done in [pool.submit(one, seed) for seed in options.seeds if seed not in known]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: those under way come to their end, no others begin
            raise
    about = summary_of(records)
    print(json.dumps(about, indent=2) if options.json else markdown_of(about))
    return int(bool(about["violations"]))


def code_fingerprint() -> str:
    """Of rtcore's own code, Python and C: a campaign says something of one version alone."""
    digest = hashlib.sha256()
    for package in ("rtcore", "rtcore_workers", "rtcore_envs"):
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec is not None else ():
            for path in sorted(path for kind in ("py", "c", "h") for path in Path(root).rglob(f"*.{kind}")):
                digest.update(f"{package}/{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def read_log(path: Path, code: str) -> list[dict[str, Any]]:
    """What a campaign has done so far: it goes on from there, and its table is that of all.

    Args:
        path: Of `--log`; it need not exist.
        code: `code_fingerprint` of today.

    Returns:
        A record of each run, as `Result.to_json` made it.

    Raises:
        ConfigError: It is no such log, or of other code.
    """
    records: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        try:
            record = json.loads(line)
            others = record.get("code")
            records.append(record | {"seed": int(record["seed"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"--log {path}: line {number} is no run of a campaign ({text_of(error)}); give another file"
            ) from error
        if others != code:
            raise ConfigError(
                f"--log {path}: seed {record['seed']} ran with other code ({others}, now {code}); one table cannot "
                "speak of both. Give another file"
            )
    return records


def line_of(result: Result) -> str:
    """A case in a line, with the command that runs it again if it broke a promise."""
    hits = ", ".join(f"{one.fault.kind} {one.target} at {one.fault.moment}" for one in result.applied) or "no fault"
    line = f"seed {result.case.seed}: exit code {result.exitcode} after {result.took_s:.1f} s; {hits}"
    if not result.violations:
        return f"{line}; ok"
    again = f"rtcore-torture real --seeds {result.case.seed}..{result.case.seed}"
    return f"{line}; BROKEN: {' | '.join(result.violations)}\n    again: {again}"


def summary_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of a campaign: faults by role and moment, and by kind; what was broken; how late ticks were after a fault.

    Args:
        records: Of its runs, as `Result.to_json` makes them.

    Returns:
        Counts, as JSON has them.
    """
    table: dict[str, Counter[str]] = defaultdict(Counter)
    kinds: Counter[str] = Counter()
    for fault in (fault for record in records for fault in record["faults"]):
        if not any(note.startswith("not possible") for note in fault["notes"]):
            table[fault["role"]][fault["moment"]] += 1
            kinds[fault["kind"]] += 1
    late = [record["lateness_p99_us_within_1s_and_else"] for record in records]
    ratios = [after / max(rest, 1.0) for after, rest in filter(None, late)]
    return {
        "runs": len(records),
        "began": sum(record["began"] for record in records),
        "faults": sum(kinds.values()),
        "kinds": dict(kinds.most_common()),
        "by_role": {role: dict(counts) for role, counts in sorted(table.items())},
        "exitcodes": dict(Counter(str(record["exitcode"]) for record in records).most_common()),
        "lateness_p99_after_over_else": {"runs": len(ratios), "median": round(median(ratios), 2) if ratios else None},
        "violations": {str(record["seed"]): record["violations"] for record in records if record["violations"]},
    }


def markdown_of(about: Mapping[str, Any]) -> str:
    """The summary as tables."""
    moments = [*_MOMENTS]
    late = about["lateness_p99_after_over_else"]
    lines = [
        f"{about['runs']} runs, {about['faults']} faults, {len(about['violations'])} runs that broke a promise.",
        "",
        f"| role hit | {' | '.join(moments)} | all |",
        f"|---|{'---:|' * (len(moments) + 1)}",
    ]
    for role, counts in about["by_role"].items():
        cells = " | ".join(str(counts.get(moment, 0)) for moment in moments)
        lines.append(f"| {role} | {cells} | {sum(counts.values())} |")
    lines += ["", f"| fault | {' | '.join(about['kinds'])} |", f"|---|{'---:|' * len(about['kinds'])}"]
    lines.append(f"| count | {' | '.join(map(str, about['kinds'].values()))} |")
    lines += ["", "Exit codes: " + ", ".join(f"{code}: {count}" for code, count in about["exitcodes"].items()) + "."]
    if late["runs"]:
        what = "p99 of lateness within a second after a fault over that of the rest of the same run"
        lines.append(f"{what}: median {late['median']} ({late['runs']} runs).")
    lines += [f"- seed {seed}: {'; '.join(found)}" for seed, found in about["violations"].items()]
    return "\n".join(lines)
