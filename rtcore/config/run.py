"""The one configuration: frozen, closed, units in the names. From TOML, flags or Python."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rtcore.clock import Overrun, rate_from
from rtcore.config.factories import import_path
from rtcore.config.learning import Arguments, Counted, Few, FilePath, LearnConfig, Many, Milliseconds, Seconds
from rtcore.errors import ConfigError
from rtcore.files.outside import read_bytes
from rtcore.files.values import from_json, to_json
from rtcore.scheduling.dispatch import ChunkRest, OnMissing
from rtcore.scheduling.schedule import OnLate, OnReset, Stagger, TauEstimate

Wait = Literal["auto", "hybrid", "block", "spin"]
#: Places in shared memory; a machine starts far fewer.
MOST_WORKERS = 4096
WeightsSharing = Literal["auto", "private", "stand-in"]


def _parse_fps(value: Any) -> Any:
    if value is None:
        return None
    try:
        rate_from(value)
    except (ValueError, ZeroDivisionError, TypeError, OverflowError) as error:
        raise ValueError(f"{error}: expected a rate in Hz such as 60, 59.7275 or 4194304/70224") from error
    return str(value)


def _parse_workers(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        workers = int(value)
    except (TypeError, ValueError, OverflowError):
        workers = 0
    if not 1 <= workers <= MOST_WORKERS:
        raise ValueError(f"expected a whole number from 1 to {MOST_WORKERS}, or auto")
    return workers


def from_words(args: dict[str, Any]) -> dict[str, Any]:
    """k=v on a command line is text: numbers, true, false and none mean what they look like."""
    words: dict[str, Any] = {"true": True, "false": False, "none": None}

    def coerce(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lower() in words:
            return words[value.lower()]
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return value

    return {key: coerce(value) for key, value in args.items()}


_ARGUMENTS = ("env_args", "policy_args")


class RuntimeConfig(LearnConfig):
    """Everything a run needs to know. Every default is said here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # -- the world
    env_id: Annotated[str, BeforeValidator(import_path)] = Field(
        "rtcore/Blocks-v0",
        description="Gymnasium id (rtcore/Blocks-v0, rtcore/Catch-v0 need nothing), or module:factory of an own world.",
    )
    env_args: Arguments = Field(
        default_factory=dict,
        description="Arguments of the world: k=v,... such as level=9 for the built-in games. A value may hold commas: "
        "only where NAME= follows does one end it.",
    )
    rom: FilePath | None = Field(
        None,
        description="ROM of a Game Boy world (the same as --env-args rom=FILE), of any game for rtcore/GameBoy-v0. "
        "Default: that of the world's own game, looked for by its hash; see rtcore-rom --help.",
    )
    fps: Annotated[str | None, BeforeValidator(_parse_fps)] = Field(
        None, description="Tick rate [Hz], exact: 60, 59.7275 or 4194304/70224. Default: the world's render_fps."
    )
    overrun: Overrun = Field(
        "skip",
        description="After a tick that took longer than its period: skip the ticks that have gone by, or stretch: run "
        "every tick, the later ones put off. A run of --duration then lasts longer.",
    )
    on_missing: OnMissing = Field("noop", description="What acts at a tick without a policy action.")
    noop_action: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = Field(
        None, description="The no-op of a discrete world that names none itself."
    )
    on_reset: OnReset = Field(
        "hold", description="After a reset: hold the first frame until the first action is due, or let the world run."
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        0, description="Seeds the world, the policy's weights and every random choice."
    )

    # -- the policy
    policy: Annotated[str, BeforeValidator(import_path)] = Field(
        "auto",
        description="auto: impala for images, mlp for vectors. Or impala, nature, dqn, tiles, mlp, trained (plays "
        "Blocks and Catch), random, synthetic, module:factory (net.py:Net) returning an nn.Module.",
    )
    policy_args: Arguments = Field(
        default_factory=dict,
        description="Arguments of the policy: k=v,... Any policy takes pad_ms=T: it then takes at least T ms.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0 or cuda:0,cuda:1: worker w uses number w mod n.")
    weights_sharing: WeightsSharing = Field(
        "auto",
        description="auto: one copy of the weights per GPU for all its workers, by CUDA IPC where that goes. private: "
        "two copies per worker. stand-in: for tests without a GPU, shared memory in the place of a GPU's.",
    )
    chunk: Few = Field(1, description="Actions per inference, for the ticks due, due+1, ...")
    chunk_rest: ChunkRest = Field(
        "own",
        description="Actions of a chunk behind its first. own: the policy gives all. noop, hold: the policy decides "
        "once for a whole chunk; then the world's no-op acts (a key is let go), or the same action goes on.",
    )

    # -- the schedule
    workers: Annotated[int | Literal["auto"], BeforeValidator(_parse_workers)] = Field(
        "auto", description="Inference processes, or auto: as many as give an action every tick."
    )
    max_workers: Few = Field(128, description="Most workers that auto may start.")
    stagger: Stagger = Field("max-time", description="How starts are spread over the workers.")
    tau_estimate: TauEstimate = Field(
        "quantile", description="Longest inference: high quantile of a window, or the paper's ratchet (never falls)."
    )
    on_late: OnLate = Field("apply", description="An action after its due tick, if it is still the newest.")
    guard_ms: Milliseconds | None = Field(
        None,
        description="Slack added to the inference time for the plan. Default: an eighth of a tick, none if virtual.",
    )

    # -- the run
    ticks: Counted | None = Field(None, description="Stop after so many ticks.")
    duration: Seconds | None = Field(
        None, description="Stop after so many seconds (default 30 if no --ticks); inf: only when told to."
    )
    clock: Literal["wall", "virtual"] = Field(
        "wall", description="wall: real processes in real time. virtual: simulated, no sleeping, deterministic."
    )
    latency: str | None = Field(
        None,
        description="Virtual clock only: inference time as constant:MS, normal:MEAN,STD, lognormal:MEDIAN,SIGMA or "
        "trace:FILE (one ms per line, or a run's jobs.csv). Default: that of a synthetic or padded policy.",
    )
    warmup: Annotated[int, Field(ge=0, le=10_000)] = Field(
        3, description="Inferences of each worker before tick 0, not counted; fewer where these take over a second."
    )

    # -- shared memory and waiting
    wait: Wait = Field(
        "auto", description="How a worker waits for its frame: hybrid (short spin, then semaphore), block or spin."
    )
    spin_us: Annotated[int, Field(ge=0, le=1_000_000)] = Field(1500, description="Longest spin of a hybrid wait [us].")
    ring_slots: Many | None = Field(
        None,
        description="Frames the ring keeps, which is also how much can be learnt from. Default: 4096 (at most 256 MB; "
        "1 GB if the run is recorded), 100000 for a run that is learnt from (at most 1 GB).",
    )

    # -- faults
    startup_timeout_s: Seconds = Field(120.0, description="Longest start-up of the world or of a worker [s].")
    env_timeout_s: Seconds = Field(10.0, description="A world silent for so long is killed; the run fails [s].")
    hang_timeout_s: Seconds = Field(
        5.0, description="An inference or update that takes longer, and 10 times longer than known, is a hang [s]."
    )
    max_restarts: Annotated[int, Field(ge=0, lt=1 << 62)] = Field(
        3, description="Restarts of one worker before the run fails."
    )

    # -- realtime
    realtime: Literal["auto", "off"] = Field(
        "auto", description="Ask for SCHED_FIFO, locked memory and fine timers for the env process; goes on without."
    )
    env_cpu: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        None, description="Pin the env process to this CPU, workers to the others."
    )

    # -- output
    out: FilePath | None = Field(
        None,
        description="Folder for config.json, summary.json, actions.csv, timeline.png. Default: none, but when "
        "rtcore-run learns: runs/<world>__dqn__<seed>__<time>.",
    )
    trace: bool = Field(
        False,
        description="Record what every process did when, as a Perfetto trace in the output folder (runs/latest if "
        "--out is not given).",
    )
    record: bool = Field(
        False,
        description="Keep every frame and what was applied at its tick, in recording/ of the output folder "
        "(runs/latest if --out is not given); --replay runs it again.",
    )
    video: bool = Field(
        False,
        description="rtcore-run draws the run as video.mp4 in the output folder, once it is over: what was seen, the "
        "applied action, its delay and its outcome. Implies --record. With --replay: the video of that recording.",
    )
    live: bool = Field(True, description="Live terminal view (plain lines where there is no terminal).")
    show_world: bool = Field(
        True,
        description="The live view shows what the world shows, if that is an image, as half blocks: in a terminal with "
        "UTF-8, 60 columns and 10 lines or more; in five shades where NO_COLOR is set.",
    )

    @model_validator(mode="after")
    def _one_rom(self) -> Self:
        given = self.env_args.get("rom")
        if self.rom is not None and given is not None and Path(str(given)) != self.rom:
            raise ValueError(f"rom={self.rom}, but env_args has rom={given}: give one of them")
        return self

    @model_validator(mode="after")
    def _ring_outlives_the_workers(self) -> Self:
        if self.ring_slots is not None and self.workers != "auto" and self.ring_slots <= self.workers:
            raise ValueError(
                f"ring_slots={self.ring_slots} must exceed workers={self.workers}: a worker reads a frame that is "
                "as many ticks old"
            )
        return self

    @model_validator(mode="after")
    def _learning_acts_one_action_at_a_time(self) -> Self:
        if self.learn is not None and self.policy_chunk > 1:
            raise ValueError(
                f"chunk={self.chunk}: learning is about decisions of one action; give --chunk-rest noop or hold as "
                "well, or --chunk 1"
            )
        if self.learn is not None and self.policy in ("random", "synthetic"):
            raise ValueError(f"learn={self.learn}: policy={self.policy} has no network to learn with; try --policy dqn")
        if self.learn == "imitate" and self.clock != "virtual":
            raise ValueError("learn=imitate asks the world's teacher at each tick; use --clock virtual --latency ...")
        if self.mode != "async" and (self.stagger != "sequential" or self.workers not in ("auto", 1)):
            raise ValueError(f"mode={self.mode} is one process: it goes with --stagger sequential and --workers 1")
        if self.learn_latency_ms and self.clock != "virtual":
            raise ValueError("learn_latency_ms is for --clock virtual: on the wall clock an update takes what it takes")
        return self

    @model_validator(mode="after")
    def _weights_are_for_a_network(self) -> Self:
        if self.policy_checkpoint is not None and self.policy in ("random", "synthetic"):
            raise ValueError(
                f"policy_checkpoint: policy {self.policy} has no network to play the weights with; leave --policy out "
                "(a checkpoint says which it is of), or name a network"
            )
        return self

    @model_validator(mode="after")
    def _virtual_latency(self) -> Self:
        if self.latency is not None and self.clock != "virtual":
            raise ValueError("latency is for --clock virtual: on the wall clock inference takes the time it takes")
        return self

    @model_validator(mode="after")
    def _trace_and_recording_have_a_place(self) -> Self:
        if self.trace and self.clock == "virtual":
            raise ValueError("trace is for --clock wall: on the virtual clock no process does anything")
        if self.video:
            object.__setattr__(self, "record", True)
        if (self.trace or self.record) and self.out is None:
            object.__setattr__(self, "out", Path("runs/latest"))
        return self

    @model_validator(mode="after")
    def _workers_within_max(self) -> Self:
        if self.workers != "auto" and self.workers > self.max_workers:
            object.__setattr__(self, "max_workers", self.workers)
        return self

    # -- into other processes and files, and back ---------------------------------------------------------

    def to_jsonable(self) -> dict[str, Any]:
        """Every field as JSON has it; `from_jsonable` of that is this config again."""
        fields = self.model_dump(mode="json", exclude=set(_ARGUMENTS)) | {
            name: to_json(getattr(self, name)) for name in _ARGUMENTS
        }
        unlimited = {name: str(value) for name, value in self if isinstance(value, float) and math.isinf(value)}
        return {name: (fields | unlimited)[name] for name in type(self).model_fields}

    @classmethod
    def from_jsonable(cls, fields: Mapping[str, Any]) -> RuntimeConfig:
        """Inverse of `to_jsonable`. ConfigError for fields that it does not write."""
        try:
            arguments = {name: from_json(fields[name]) for name in _ARGUMENTS if name in fields}
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return make_config(**{**fields, **arguments})

    # -- derived -------------------------------------------------------------------------------------------

    @property
    def world_args(self) -> dict[str, Any]:
        """What the world is made with: `env_args`, and `rom`."""
        return self.env_args if self.rom is None else self.env_args | {"rom": str(self.rom)}

    @property
    def policy_chunk(self) -> int:
        """Actions that the policy itself gives in one inference."""
        return self.chunk if self.chunk_rest == "own" else 1


def load_toml(path: Path) -> dict[str, Any]:
    """The keys of a config file, as `make_config` takes them. Kebab-case keys are accepted."""
    try:
        raw = tomllib.loads(read_bytes(path, "config").decode())
        return {key.replace("-", "_"): from_json(value) for key, value in raw.items()}
    except RecursionError as error:
        raise ConfigError(f"config {path} is not TOML: nested too deep") from error
    except ValueError as error:
        raise ConfigError(f"config {path} is not TOML: {error}") from error


def make_config(**fields: Any) -> RuntimeConfig:
    """A config, or a `ConfigError` that names each wrong field and suggests the right one for a typo."""
    try:
        return RuntimeConfig(**fields)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from error


def _explain(problem: Any) -> str:
    field = ".".join(str(part) for part in problem["loc"][:1])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {field!r}. {suggest(field)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = "" if not field or isinstance(problem.get("input"), dict) else f" (got {problem['input']!r})"
    return f"{field.replace('_', '-')}: {message}{given}" if field else message


def suggest(name: str) -> str:
    """Which option was probably meant."""
    known = list(RuntimeConfig.model_fields)
    close = difflib.get_close_matches(name.replace("-", "_").lower(), known, n=2, cutoff=0.7)
    if close:
        return f"Did you mean {' or '.join(repr(key) for key in close)}?"
    return (
        "`rtcore-run --help` lists every option; arguments of the world go into --env-args, those of the policy into "
        "--policy-args"
    )
