"""Every setting of a run, in groups of what belongs together: each is described here, and nowhere else.

A group is one object (`config.schedule`) and a heading of `--help`. Flags, the keys of a settings file and the keyword
arguments of `RuntimeConfig` are flat: a name stands for one setting, whichever group that is in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rtcore.clock import Overrun, rate_from
from rtcore.config.contract import Condition, parse_conditions
from rtcore.config.factories import import_path
from rtcore.errors import ConfigError
from rtcore.files.values import plain
from rtcore.host.addresses import is_loopback, parse_addresses
from rtcore.scheduling.dispatch import COMMITTED_TICKS, ChunkRest
from rtcore.scheduling.on_missing import OnMissing
from rtcore.scheduling.schedule import ChunkFrom, OnLate, OnReset, Stagger, TauEstimate

Wait = Literal["auto", "hybrid", "block", "spin"]
WeightsSharing = Literal["auto", "private", "stand-in"]
Mode = Literal["async", "infer-then-learn", "learn-then-infer"]
#: Counts of what is in memory, or started, at one time; counts over time, which shared memory keeps as 64 bits.
Few = Annotated[int, Field(ge=1, le=4096)]
Many = Annotated[int, Field(ge=1, le=10**8)]
Counted = Annotated[int, Field(ge=1, lt=1 << 62)]
#: Finite, and of a size that a 32-bit float holds.
Positive = Annotated[float, Field(gt=0, le=1e38)]
Milliseconds = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
#: inf: never, without end.
Seconds = Annotated[float, Field(gt=0)]

#: Workers of a run: on the virtual clock, and processes with places in shared memory, of which a machine starts far
#: fewer.
MOST_WORKERS, MOST_PROCESSES = 65_536, 4096
#: The built-in policy with two speeds; one of the user's own may have them, too.
TWO_SPEEDS = "two-speed"
#: How a policy is called that is a server, which has the network: this, then its address.
POLICY_SERVER = "openpi:"
#: Who may step in by name: devices of a person, each read by a process of its own, and the program itself.
DEVICES = ("keyboard", "gamepad")
OPERATORS = (*DEVICES, "program")
#: Learning updates per tick on the virtual clock, where no machine says how fast learners are.
VIRTUAL_UPDATES_PER_TICK = 0.25


def _possible_name(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("holds a zero byte, which no file name has")
    return path


FilePath = Annotated[Path, AfterValidator(_possible_name)]


def _plain_values(args: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value, name) for name, value in args.items()}


#: Keyword arguments that other processes get as they were given.
Arguments = Annotated[dict[str, Any], AfterValidator(_plain_values)]


def _declared_arrays(extras: dict[str, Any], what: str = "policy_extras") -> dict[str, Any]:
    from rtcore.spaces.payload import Block  # noqa: PLC0415 - NumPy and Gymnasium, which a help text needs not

    try:
        declared = Block.of(what, extras)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return {name: [list(shape), dtype] for name, shape, dtype in declared.fields}


def _parse_limits(given: Any) -> tuple[str, ...]:
    from rtcore.scheduling.limits import parse_limit  # noqa: PLC0415 - NumPy, which a help text needs not

    texts = given if isinstance(given, (list, tuple)) else (given,)
    for text in texts:
        parse_limit(str(text))
    return tuple(map(str, texts))


def _declared_scalars(keys: dict[str, str]) -> dict[str, str]:
    declared = _declared_arrays({name: ((), dtype) for name, dtype in keys.items()}, "info_keys")
    return {name: dtype for name, (_, dtype) in declared.items()}


def _possible_task(task: dict[str, Any]) -> dict[str, Any]:
    from rtcore.spaces.task import TaskSpec, as_json  # noqa: PLC0415 - NumPy and Gymnasium, which a help text needs not

    try:
        TaskSpec(task)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("task: ")) from None
    return as_json(task)


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


def _parse_action(value: Any) -> Any:
    """An action as text: `noop`, or JSON of a number or a list."""
    if value is None or value == "noop":
        return value
    try:
        parsed = json.loads(value) if isinstance(value, str) else plain(value, "safe_action")
    except ValueError:
        parsed = None
    if isinstance(parsed, bool) or not isinstance(parsed, (int, float, list)):
        raise ValueError("expected noop, a number, or a list of numbers such as [0, 0.5]")
    return json.dumps(parsed)


class SettingsGroup(BaseModel):
    """Settings that belong together. Frozen; no other names than these.

    A field's description is its help; `metavar` in its `json_schema_extra` is what stands for its value there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    #: Over these settings in `--help`.
    heading: ClassVar[str] = ""

    @property
    def given(self) -> dict[str, Any]:
        """The settings that somebody gave, by name; the others are defaults."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class WorldSettings(SettingsGroup):
    """The world, how fast it ticks, and what acts where no action came."""

    heading: ClassVar[str] = "world"

    env_id: Annotated[str, BeforeValidator(import_path)] = Field(
        default="rtcore/Blocks-v0",
        description="Gymnasium id (rtcore/Blocks-v0, rtcore/Catch-v0 need nothing), or module:factory of an own world.",
        json_schema_extra={"metavar": "ID"},
    )
    env_args: Arguments = Field(
        default_factory=dict,
        description="Arguments of the world: k=v,... such as level=9 for the built-in games. A value may hold commas: "
        "only where NAME= follows does one end it.",
        json_schema_extra={"metavar": "K=V,..."},
    )
    rom: FilePath | None = Field(
        default=None,
        description="ROM of a Game Boy world (the same as --env-args rom=FILE), of any game for rtcore/GameBoy-v0. "
        "Default: that of the world's own game, looked for by its hash; see rtcore-rom --help.",
        json_schema_extra={"metavar": "FILE"},
    )
    fps: Annotated[str | None, BeforeValidator(_parse_fps, json_schema_input_type=str | float | None)] = Field(
        default=None,
        description="Tick rate [Hz], exact: 60, 59.7275 or 4194304/70224. Default: the world's render_fps.",
        json_schema_extra={"metavar": "HZ"},
    )
    overrun: Overrun = Field(
        default="skip",
        description="After a tick that took longer than its period: skip the ticks that have gone by, or stretch: run "
        "every tick, the later ones put off. A run of --duration then lasts longer.",
    )
    on_missing: OnMissing = Field(default="noop", description="What acts at a tick without a policy action.")
    noop_action: Annotated[int, Field(ge=-(1 << 62), lt=1 << 62)] | None = Field(
        default=None,
        description="The no-op of a discrete world that names none itself.",
        json_schema_extra={"metavar": "N"},
    )
    safe_action: Annotated[str | None, BeforeValidator(_parse_action)] = Field(
        default=None,
        description="The action that makes the world safe: noop, a number, or a list such as [0,0]. The world is "
        "stepped with it once more before it is closed, however the run ends (docs/robots.md). Default: none.",
        json_schema_extra={"metavar": "ACTION"},
    )
    starve_ms: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None,
        description="For so long no fresh action: then the safe action acts, until there is one [ms]. Default: never.",
        json_schema_extra={"metavar": "FLOAT"},
    )
    limit: Annotated[tuple[str, ...], BeforeValidator(_parse_limits)] = Field(
        default=(),
        description="How fast a Box action may change: velocity<=V and acceleration<=A, in its units and seconds, or "
        "smoothing<=S, the share of the last one that each keeps. Once for each; the safe action is never limited.",
        json_schema_extra={"metavar": "NAME<=N"},
    )
    info_keys: Annotated[dict[str, str], AfterValidator(_declared_scalars)] = Field(
        default_factory=dict,
        description="Numbers of the world's info that stay with each tick, in recording and batches: NAME=DTYPE,... as "
        "in cost=float32.",
        json_schema_extra={"metavar": "NAME=DTYPE,..."},
    )
    task: Annotated[dict[str, Any], AfterValidator(_possible_task)] = Field(
        default_factory=dict,
        description="What policy and world are to do: goal=[0.5,0.2],speed=0.1,... or JSON. A running program may "
        "change the values (Runtime.set_task, --task-stdin), not their names and kinds.",
        json_schema_extra={"metavar": "NAME=VALUE,..."},
    )
    on_reset: OnReset = Field(
        default="hold",
        description="After a reset: hold the first frame until the first action is due, or let the world run.",
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = Field(
        default=0, description="Seeds the world, the policy's weights and every random choice."
    )

    @model_validator(mode="after")
    def _one_rom(self) -> Self:
        given = self.env_args.get("rom")
        if self.rom is not None and given is not None and Path(str(given)) != self.rom:
            raise ValueError(f"rom={self.rom}, but env_args has rom={given}: give one of them")
        return self

    @model_validator(mode="after")
    def _starving_has_an_action(self) -> Self:
        if self.starve_ms is not None and self.safe_action is None:
            raise ValueError(
                f"starve_ms={self.starve_ms:g}: there is no safe action that could act then; give --safe-action too"
            )
        return self

    @property
    def args(self) -> dict[str, Any]:
        """What the world is made with: `env_args`, and `rom`."""
        return self.env_args if self.rom is None else self.env_args | {"rom": str(self.rom)}


class AgentSettings(SettingsGroup):
    """What computes the actions, on which device, and how many at a time."""

    heading: ClassVar[str] = "policy"

    policy: Annotated[str, BeforeValidator(import_path)] = Field(
        default="auto",
        description="auto: impala for images, mlp for vectors. Or impala, nature, dqn, tiles, two-speed, mlp, "
        "trained (plays Blocks and Catch), random, synthetic, module:factory (net.py:Net) returning an nn.Module or "
        "any callable, sb3:FILE.zip (a saved Stable-Baselines3 model), openpi:ws://HOST:PORT (a policy server).",
        json_schema_extra={"metavar": "NAME"},
    )
    policy_args: Arguments = Field(
        default_factory=dict,
        description="Arguments of the policy: k=v,... Any policy takes pad_ms=T: it then takes at least T ms.",
        json_schema_extra={"metavar": "K=V,..."},
    )
    device: str = Field(
        default="auto",
        description="auto, cpu, cuda, cuda:0 or cuda:0,cuda:1: worker w uses number w mod n.",
        json_schema_extra={"metavar": "DEVICE"},
    )
    weights_sharing: WeightsSharing = Field(
        default="auto",
        description="auto: one copy of the weights per GPU for all its workers, by CUDA IPC where that goes. private: "
        "two copies per worker. stand-in: for tests without a GPU, shared memory in the place of a GPU's.",
    )
    chunk: Few = Field(default=1, description="Actions per inference, for the ticks due, due+1, ...")
    chunk_rest: ChunkRest = Field(
        default="own",
        description="Actions of a chunk behind its first. own: the policy gives all. noop, hold: the policy decides "
        "once for a whole chunk; then the world's no-op acts (a key is let go), or the same action goes on.",
    )
    chunk_from: ChunkFrom = Field(
        default="due",
        description="What a chunk begins with: the tick that it is due at, or the first tick after its frame, as in "
        "ACT, SmolVLA and pi0. Then its first actions are past when it is due.",
    )
    on_overlap: Annotated[str, BeforeValidator(import_path)] = Field(
        default="newest",
        description="What acts at a tick that several chunks have an action for: that of the newest, their mean, or "
        "what module:function makes of them, (n, *action_shape), oldest first.",
        json_schema_extra={"metavar": "NAME"},
    )

    policy_extras: Annotated[dict[str, Any], AfterValidator(_declared_arrays)] = Field(
        default_factory=dict,
        description="Arrays that the policy gives with each action, where it does not declare them itself: as JSON, "
        '{"logp": [[], "float32"]}, shape and dtype of each.',
        json_schema_extra={"metavar": "JSON"},
    )
    context_ticks: Few = Field(
        default=COMMITTED_TICKS,
        description="Ticks behind its frame whose actions a policy is told, if it asks for a context.",
    )
    on_policy_error: Literal["end", "miss"] = Field(
        default="end",
        description="An inference that raises: ends the run, or gives no action this time, which is counted. If more "
        "than half raise, the run has failed at its end.",
    )

    @property
    def policy_chunk(self) -> int:
        """Actions that the policy itself gives in one inference."""
        return self.chunk if self.chunk_rest == "own" else 1


class ScheduleSettings(SettingsGroup):
    """How many workers start when, and what becomes of an action that is late."""

    heading: ClassVar[str] = "schedule"

    workers: Annotated[int | Literal["auto"], BeforeValidator(_parse_workers)] = Field(
        default="auto",
        description="Inference processes, or auto: as many as give an action every tick.",
        json_schema_extra={"metavar": "N|auto"},
    )
    max_workers: int = Field(default=128, ge=1, le=MOST_WORKERS, description="Most workers that auto may start.")
    replan_every: Few | None = Field(
        default=None,
        description="Ticks between two chunks, if not as few as the workers allow: --workers auto then starts as few "
        "as that takes. Default: auto starts one as the last one ends.",
        json_schema_extra={"metavar": "N"},
    )
    stagger: Stagger = Field(default="max-time", description="How starts are spread over the workers.")
    tau_estimate: TauEstimate = Field(
        default="quantile",
        description="Longest inference: high quantile of a window, or the paper's ratchet (never falls).",
    )
    on_late: OnLate = Field(default="apply", description="An action after its due tick, if it is still the newest.")
    guard_ms: Milliseconds | None = Field(
        default=None,
        description="Slack added to the inference time for the plan. Default: an eighth of a tick, none if virtual.",
        json_schema_extra={"metavar": "FLOAT"},
    )

    @field_validator("max_workers")
    @classmethod
    def _as_many_as_are_started(cls, max_workers: int, info: ValidationInfo) -> int:
        workers = info.data.get("workers", "auto")
        return max_workers if workers == "auto" else max(max_workers, workers)


def _operator(given: Any) -> Any:
    name = import_path(given)
    if name is None or name in OPERATORS or (isinstance(name, str) and all(name.partition(":"))):
        return name
    raise ValueError(f"expected {', '.join(OPERATORS)} or module:function")


class TakeOverSettings(SettingsGroup):
    """Who may take the controls in the middle of a run."""

    heading: ClassVar[str] = "a person at the controls"

    operator: Annotated[str | None, BeforeValidator(_operator)] = Field(
        default=None,
        description="Who may take the controls and give them back (docs/robots.md): keyboard, gamepad, or "
        "module:function of your own. program: only Runtime.take_over() of the program that starts the run.",
        json_schema_extra={"metavar": "NAME"},
    )
    blend_ticks: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0,
        description="At a hand-over Box actions pass from the old hand's to the new one's over so many ticks, "
        "linearly. Default: at once, as all others do.",
    )


class RemoteSettings(SettingsGroup):
    """Workers whose inferences are made on other hosts."""

    heading: ClassVar[str] = "workers elsewhere"

    workers_at: Annotated[tuple[str, ...], BeforeValidator(parse_addresses)] = Field(
        default=(),
        description="Workers on other hosts, where rtcore-worker --listen runs: HOST:PORT,..., or ray:NAME,... of "
        "rtcore-worker --ray. They are the first of --workers; auto starts them all, and local ones if it takes more.",
        json_schema_extra={"metavar": "HOST:PORT"},
    )
    remote_keys: FilePath | None = Field(
        default=None,
        description="run.key of rtcore-worker keygen; no other host is reached without.",
        json_schema_extra={"metavar": "FILE"},
    )
    link_timeout_s: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        default=1.0, description="A worker elsewhere that shows no sign of life for so long is down [s]."
    )

    @model_validator(mode="after")
    def _other_hosts_are_reached_with_keys(self) -> Self:
        if self.remote_keys is not None and not self.workers_at:
            raise ValueError("remote_keys is for workers on other hosts: give --workers-at HOST:PORT too")
        outside = [text for text in self.workers_at if not is_loopback(text)]
        if outside and self.remote_keys is None:
            raise ValueError(
                f"workers_at={outside[0]} is another host, and there are no keys: frames and actions would travel as "
                "anybody can read and change them. Make keys with rtcore-worker keygen, and give --remote-keys run.key"
            )
        return self


class LearningSettings(SettingsGroup):
    """How to learn, if at all."""

    heading: ClassVar[str] = "learning"

    learn: Literal["dqn", "imitate"] | None = Field(
        default=None,
        description="Learn while the world runs: dqn, from rewards. imitate, on the virtual clock: what the world's "
        "own teacher would do, from old frames. Default: only play.",
        json_schema_extra={"metavar": "dqn"},
    )
    learners: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1, description="Learner processes, staggered as workers are."
    )
    mode: Mode = Field(
        default="async",
        description="async: learners beside the workers. infer-then-learn, learn-then-infer: one process does both in "
        "turn, the paper's sequential agents.",
    )
    learning_rate: Positive = Field(default=1e-3, description="Step size of Adam.")
    gamma: Share = Field(default=0.99, description="Discount per tick.")
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)] = Field(default=16, description="Transitions in one update.")
    n_step: Few = Field(default=1, description="Decisions whose rewards are summed before the bootstrap.")
    double_dqn: bool = Field(default=False, description="Choose the bootstrap action with the online network.")
    target_every: Counted = Field(default=10_000, description="Updates between two copies to the target network.")
    learning_starts: Counted = Field(default=1_000, description="Transitions to collect before the first update.")
    max_grad_norm: Positive = Field(default=10.0, description="Gradients of a larger norm are scaled down to it.")
    publish_every: Counted = Field(default=10, description="Updates between two publications of the weights.")
    updates_per_tick: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        default=None,
        description="Learning updates for each tick: on the wall clock the most (default: as many as learners "
        f"manage), on the virtual clock how many (default {VIRTUAL_UPDATES_PER_TICK}).",
        json_schema_extra={"metavar": "FLOAT"},
    )
    learn_latency_ms: Milliseconds = Field(
        default=0.0,
        description="Virtual clock only: how long an update takes, which the sequential modes wait for [ms].",
    )
    learner_nice: Annotated[int, Field(ge=0, le=19)] = Field(
        default=19, description="Niceness of learners: the higher, the more workers and world come first."
    )

    @model_validator(mode="after")
    def _sequential_modes_are_one_learning_process(self) -> Self:
        if self.mode == "async":
            return self
        if self.learn is None:
            raise ValueError(f"mode={self.mode} is about learning: give --learn dqn too")
        if self.learners > 1:
            raise ValueError(f"mode={self.mode} is one process that acts and learns in turn: use --learners 1")
        if self.learn == "imitate":
            raise ValueError(f"mode={self.mode}: learn=imitate learns beside the workers; use --mode async")
        return self

    @property
    def learner_processes(self) -> int:
        """Processes that only learn: none where the worker learns itself."""
        return self.learners if self.learn is not None and self.mode == "async" else 0


class ExplorationSettings(SettingsGroup):
    """How often an action is a random one, in a run that is learnt from."""

    heading: ClassVar[str] = "exploration"

    explore: bool = Field(
        default=False, description="Explore as when learning: for a trainer of your own that learns from this run."
    )
    epsilon_start: Share = Field(default=1.0, description="Share of random actions at tick 0.")
    epsilon_end: Share = Field(default=0.05, description="Share of random actions from epsilon-ticks on.")
    epsilon_ticks: Counted = Field(default=100_000, description="Ticks over which it falls, linearly.")
    explore_ticks: Counted = Field(default=1, description="Ticks that a random action is kept up.")


class HistorySettings(SettingsGroup):
    """What the policy sees beside the newest frame."""

    heading: ClassVar[str] = "histories"

    obs_history: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="Older frames the policy sees beside the newest."
    )
    obs_every: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="Frames from one of these older frames to the next."
    )
    act_history: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="Last applied actions the policy sees beside the frame."
    )


class WeightsSettings(SettingsGroup):
    """Weights to begin with, and how those of this run are kept."""

    heading: ClassVar[str] = "weights on disk"

    policy_checkpoint: FilePath | None = Field(
        default=None,
        description="Weights to play with: a safetensors file, a checkpoint, or the folder of a run. Policy and world "
        "are those of the checkpoint unless they are given.",
        json_schema_extra={"metavar": "PATH"},
    )
    resume: FilePath | None = Field(
        default=None,
        description="Go on learning where a run stopped: its folder (the last checkpoint) or a checkpoint. Seed, "
        "output folder and all other settings are that run's unless they are given; its rows are kept in DIR/earlier.",
        json_schema_extra={"metavar": "PATH"},
    )
    checkpoint_every_s: Seconds = Field(
        default=60.0, description="Time between two checkpoints [s]; inf: only at the end."
    )
    keep_checkpoints: Many = Field(default=3, description="Newest checkpoints to keep, beside the best one.")
    tensorboard: bool = Field(
        default=True, description="Write TensorBoard events beside the run, where it is installed."
    )

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.resume is not None and self.policy_checkpoint is not None:
            raise ValueError(
                "resume and policy_checkpoint both say where the weights come from: resume goes on learning, "
                "policy_checkpoint plays (or starts learning anew from these weights)"
            )
        return self


class TimingSettings(SettingsGroup):
    """How long the run lasts, and by which clock."""

    heading: ClassVar[str] = "run"

    ticks: Counted | None = Field(default=None, description="Stop after so many ticks.")
    duration: Seconds | None = Field(
        default=None, description="Stop after so many seconds (default 30 if no --ticks); inf: only when told to."
    )
    clock: Literal["wall", "world", "virtual"] = Field(
        default="wall",
        description="wall: real processes in real time. world: the same, and a tick is a cycle of the world's device "
        "(docs/robots.md). virtual: simulated, no sleeping, deterministic.",
    )
    latency: str | None = Field(
        default=None,
        description="Virtual clock only: inference time as constant:MS, normal:MEAN,STD, lognormal:MEDIAN,SIGMA or "
        "trace:FILE (one ms per line, or a run's jobs.csv). Default: that of a synthetic or padded policy.",
        json_schema_extra={"metavar": "MODEL"},
    )
    warmup: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=3,
        description="Inferences of each worker before tick 0, not counted; fewer where these take over a second.",
    )

    @model_validator(mode="after")
    def _virtual_latency(self) -> Self:
        if self.latency is not None and self.clock != "virtual":
            raise ValueError("latency is for --clock virtual: on the wall clock inference takes the time it takes")
        return self


class MemorySettings(SettingsGroup):
    """The size of the frame ring, and how workers wait for a frame of it."""

    heading: ClassVar[str] = "shared memory"

    wait: Wait = Field(
        default="auto",
        description="How a worker waits for its frame: hybrid (woken ahead of it, then a short spin), block (the least "
        "late where other programs keep every CPU busy) or spin.",
    )
    spin_us: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=1500, description="Longest spin of a hybrid wait [us]."
    )
    ring_slots: Many | None = Field(
        default=None,
        description="Frames the ring keeps, which is also how much can be learnt from. Default: 4096 (at most 256 MB; "
        "1 GB if the run is recorded), 100000 for a run that is learnt from (at most 1 GB).",
    )


class FaultSettings(SettingsGroup):
    """How long to wait for what may hang, and how often to start it again."""

    heading: ClassVar[str] = "faults"

    startup_timeout_s: Seconds = Field(default=120.0, description="Longest start-up of the world or of a worker [s].")
    env_timeout_s: Seconds = Field(
        default=10.0,
        description="A world silent for so long, less what it waited for a CPU, is killed; the run fails [s].",
    )
    hang_timeout_s: Seconds = Field(
        default=5.0,
        description="An inference or update that takes longer, and 10 times longer than known, is a hang [s]; "
        "waiting for a CPU does not count.",
    )
    max_restarts: Annotated[int, Field(ge=0, lt=1 << 62)] = Field(
        default=3, description="Restarts of one worker before the run fails."
    )


class HostSettings(SettingsGroup):
    """What is asked of the operating system."""

    heading: ClassVar[str] = "realtime"

    realtime: Literal["auto", "off"] = Field(
        default="auto",
        description="Ask for SCHED_FIFO, locked memory and fine timers for the env process, for short turns on the CPU "
        "for workers; goes on without.",
    )
    env_cpu: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="Pin the env process to this CPU, workers to the others."
    )


#: Conditions in words, or tables of what each number has to be.
Requirements = str | tuple[str, ...] | dict[str, Any]


class ContractSettings(SettingsGroup):
    """What the run has to keep."""

    heading: ClassVar[str] = "contract"

    require: Annotated[tuple[str, ...], BeforeValidator(parse_conditions, json_schema_input_type=Requirements)] = Field(
        default=(),
        description="What a number of summary.json has to be: acted>=0.999, lateness_p999_us<=50, missed<=3. Once for "
        "each, or with commas; they replace those of --config. Broken: exit code 4. An unknown key lists all.",
        json_schema_extra={"metavar": "KEY>=N"},
    )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """`require`, understood."""
        return tuple(map(Condition.parse, self.require))


class OutputSettings(SettingsGroup):
    """What is kept and shown of the run."""

    heading: ClassVar[str] = "output"

    trace: bool = Field(
        default=False,
        description="Record what every process did when, as a Perfetto trace in the output folder (runs/latest if "
        "--out is not given).",
    )
    #: Before `record` and `out`, which follow from it.
    video: bool = Field(
        default=False,
        description="rtcore-run draws the run as video.mp4 in the output folder, once it is over: what was seen, the "
        "applied action, its delay and its outcome. Implies --record. With --replay: the video of that recording.",
    )
    record: bool = Field(
        default=False,
        description="Keep every frame and what was applied at its tick, in recording/ of the output folder "
        "(runs/latest if --out is not given); --replay runs it again.",
    )
    out: FilePath | None = Field(
        default=None,
        description="Folder for config.json, summary.json, actions.csv, timeline.png. Default: none, but when "
        "rtcore-run learns: runs/<world>__dqn__<seed>__<time>.",
        json_schema_extra={"metavar": "DIR"},
    )
    wandb: bool = Field(
        default=False,
        description="rtcore-run gives the run's numbers to Weights & Biases, too; its environment variables say where "
        "(WANDB_MODE=offline).",
    )
    mlflow: bool = Field(
        default=False,
        description="rtcore-run gives the run's numbers to MLflow, too: to MLFLOW_TRACKING_URI, else mlflow.db in the "
        "output folder.",
    )
    pictures: bool = Field(
        default=True,
        description="Draw timeline.png in the output folder (of a run that learned learning_curve.png too, of a "
        "comparison compare.png): a second of CPU time once the run is over.",
    )
    live: bool = Field(default=True, description="Live terminal view (plain lines where there is no terminal).")
    show_world: bool = Field(
        default=True,
        description="The live view shows what the world shows, if that is an image, as half blocks: in a terminal with "
        "UTF-8, 60 columns and 10 lines or more; in five shades where NO_COLOR is set.",
    )

    @field_validator("record")
    @classmethod
    def _a_video_is_drawn_from_a_recording(cls, record: bool, info: ValidationInfo) -> bool:
        return record or info.data.get("video", False)

    @field_validator("out")
    @classmethod
    def _trace_and_recording_have_a_place(cls, out: Path | None, info: ValidationInfo) -> Path | None:
        kept = info.data.get("trace", False) or info.data.get("record", False)
        return Path("runs/latest") if kept and out is None else out
