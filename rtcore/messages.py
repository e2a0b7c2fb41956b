"""Every message between the processes of a run: one class each, by who sends it to whom."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any

from rtcore.channel import Message
from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, RtcoreError, printable, shortage_behind, shortened, words_of
from rtcore.memory.layout import Layout
from rtcore.spaces import ActionSpec, Block, ObservationSpec, PolicyNeeds

#: Of an error's text and of its traceback, what is shown [characters].
_TEXT_CHARS = 8_000
_TRACEBACK_CHARS = 24_000


# -- supervisor and fork server --------------------------------------------------------------------------------


@dataclass
class Setup(Message):
    """To the fork server, first: whose it is, and its children's `sys.path`. `own_folders`: of these, the program's
    own (its current folder and its script's), in which no library is looked for before all others. `grace_s`: what the
    env process gets to close its world in if the program is killed. `is_shared`: other runs may come after this one."""

    sys_path: list[str]
    own_folders: list[str]
    run_id: str
    parent_pid: int
    grace_s: float
    is_shared: bool


@dataclass
class Split(Message):
    """To the fork server: start another one, which is served over `descriptor` and imports more than this one does."""

    descriptor: int


@dataclass
class RunOver(Message):
    """To the fork server: end the run's children, remove its shared memory, and wait for the next run."""


@dataclass
class RunCleared(Message):
    """From the fork server: that is done. `num_left`: children that hang in the kernel and could not be ended."""

    num_left: int


@dataclass
class Inherit(Message):
    """To the fork server, before `NextRun`: the program's standard output (1) or error (2), or its current folder
    (-1)."""

    number: int
    descriptor: int


@dataclass
class NextRun(Message):
    """To the fork server: serve this run. `variables`: those of the environment that may differ between two runs;
    None: there is none."""

    setup: Setup
    variables: dict[str, str | None]


@dataclass
class NextRunAccepted(Message):
    """From the fork server. `changed`: no; what it has imported is no longer what this file or folder holds."""

    changed: str


@dataclass
class Preload(Message):
    """To the fork server: import these, for all children to come."""

    modules: list[str]


@dataclass
class Preloaded(Message):
    """From the fork server: that is done."""


@dataclass
class Fork(Message):
    """To the fork server: start a child `rt-NAME` that calls `entry` ("module:function") with (boot, channel).

    `boot`: a `Boot` as `to_plain` makes it; the child, and not the fork server, makes it again.
    """

    token: int
    name: str
    entry: str
    boot: list[Any]


@dataclass
class Forked(Message):
    """From the fork server: the child of that token, and the supervisor's end of the channel to it."""

    token: int
    pid: int
    descriptor: int


@dataclass
class ForkFailed(Message):
    """From the fork server: there is no child. `errno`: the kernel's error number; `why`: the same in words."""

    token: int
    errno: int
    why: str


@dataclass
class Exited(Message):
    """From the fork server: a child has ended. `exitcode` as in `errors.WorkerDied`."""

    pid: int
    exitcode: int


# -- what a process is started with ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Boot(Message):
    """What its entry is called with, beside the channel to the supervisor.

    `entropy`: what the process's global random generators begin from.
    """

    run_id: str
    entropy: list[int]


@dataclass(frozen=True)
class EnvironmentBoot(Boot):
    """For `rtcore.loop.process:main`. The rest, `SegmentsMade`, follows from what its world looks like.

    `seed`: of the world. `played`: the program itself answers the jobs, and orders the resets.
    """

    config: RuntimeConfig
    seed: int
    played: bool


@dataclass(frozen=True)
class RunBoot(Boot):
    """The same, once the run is resolved."""

    run: ResolvedRun


@dataclass(frozen=True)
class WorkerBoot(RunBoot):
    """For `rtcore_workers.inference:main`.

    `noop`: the action that fills a chunk. `run_phase_seq`: jobs of this phase add to the counts of the place that are
    there; -1: there are none. `has_weights`: the run's parameter store has been made. `ticks_before`: of earlier runs.
    """

    layout: Layout
    observation: ObservationSpec
    action: ActionSpec
    index: int
    generation: int
    noop: Any
    run_phase_seq: int
    has_weights: bool
    ticks_before: int


@dataclass(frozen=True)
class LearnerBoot(RunBoot):
    """For `rtcore_workers.learner:main`. `run_phase_seq`, `run_first_frame`: where the run's frames begin."""

    layout: Layout
    observation: ObservationSpec
    action: ActionSpec
    index: int
    generation: int
    run_phase_seq: int
    run_first_frame: int


@dataclass(frozen=True)
class HolderBoot(RunBoot):
    """For `rtcore_workers.holder:main`. `part`: the store of its heads; `claim`: its number among those who claim
    buffers of the run's store. `device`, `kind`, `num_buffers`, `buffer_bytes`: the memory it is to own."""

    generation: int
    part: str
    claim: int
    device: str
    kind: str
    num_buffers: int
    buffer_bytes: int


@dataclass(frozen=True)
class RecorderBoot(RunBoot):
    """For `rtcore.recording.process:main`. `folder`: the run's. `about`: what the file says of the run
    (`writer.describe_run`). It begins with the frame and the record of the job log of these numbers."""

    layout: Layout
    observation: ObservationSpec
    action: ActionSpec
    folder: str
    about: dict[str, Any]
    first_frame_seq: int
    first_log_seq: int


@dataclass(frozen=True)
class OperatorBoot(RunBoot):
    """For `rtcore_workers.operator:main`. `noop`: of the world, as JSON. `action_meanings`: what it calls its actions,
    by number; [] where it does not say. `number`: `run_control.operator_seq` as long as it is the one."""

    layout: Layout
    observation: ObservationSpec
    action: ActionSpec
    noop: Any
    action_meanings: list[str]
    number: int


# -- from a child to the supervisor ----------------------------------------------------------------------------


@dataclass
class Failed(Message):
    """A child's last words: what it raised. `kind`: the exception's class. `traceback`: "" where it says nothing."""

    kind: str
    text: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """Whole, or shortened and saying so; printable on any terminal, even if the exception itself is not."""
        if isinstance(error, ConfigError):
            error = shortage_behind(error) or error
        # A user's world or policy that raised is shown with its own traceback, without the way of our error from there;
        # our own errors say everything themselves.
        cause = error.__cause__
        plain = isinstance(cause, ModuleNotFoundError | None) or type(cause).__module__ == "rtcore_envs.errors"
        says_it_all = isinstance(error, ConfigError) or (isinstance(error, RtcoreError) and plain)
        shown = "" if says_it_all else _traceback(cause if isinstance(error, RtcoreError) and cause else error)
        return cls(type(error).__name__, shortened(printable(words_of(error)), _TEXT_CHARS), shown)


@dataclass
class Ready(Message):
    """A child can do its work from now on. Classes below: what it found out on the way there."""


@dataclass
class EnvironmentReady(Ready):
    """`realtime`: what the kernel granted, by what was asked for."""

    realtime: dict[str, str]


@dataclass
class WorkerReady(Ready):
    """What the policy turned out to be, and where it computes. `warmup_ns`: times of the first inferences."""

    policy: str
    synthetic: bool
    pad_ms: float | None
    num_parameters: int
    device: str
    notes: list[str]
    mps: str
    num_gpus: int
    warmup_ns: list[int]


@dataclass
class LearnerReady(Ready):
    device: str


@dataclass(frozen=True)
class DeviceBuffers:
    """How another process opens the buffers that a weight holder owns (`rtcore_workers.weights.device_memory`).

    `stride`: from one buffer to the next [bytes]. `handle`: of CUDA, as hexadecimal digits; `path`: of the stand-in.
    """

    kind: str
    num_buffers: int
    buffer_bytes: int
    stride: int
    handle: str = ""
    path: str = ""


@dataclass
class HolderReady(Ready):
    """`memory`: how workers open what it owns."""

    memory: DeviceBuffers
    notes: list[str]


@dataclass
class AtWorld(Message):
    """From the env process, while there is no memory to show it in: what it asks of the world next ("step 3 of 20").

    `may_take_a_start`: the first of its kind, in which worlds load what they need; any other has a step's time.
    """

    call: str
    may_take_a_start: bool = False


@dataclass
class WorldSpec(Message):
    """From the env process: what the world looks like (`loop.process.describe`).

    `rate_hz`: exact, as a fraction. `noop`, `noop_value`: the action that stands in, for people and as JSON.
    `safe_action`: what the world is stepped with before it is closed, as JSON; None: nothing. `keeps`: what it leaves
    with each tick. `can_pause`: it may be left standing. `cycles`: what its device was measured to do, where that gives
    the ticks (`world_clock.MeasuredCycles`). `own`: what it says of itself (`rtcore_info`). `step_ns`: how
    long a step takes. For a recording: `env_spec`, how Gymnasium makes this world again, and `action_meanings`.
    """

    env_id: str
    observation: ObservationSpec
    action: ActionSpec
    rate_hz: str
    seed: int
    noop: str
    noop_value: Any
    noop_source: str
    own: dict[str, Any]
    notes: list[str]
    leaves_space: str
    env_spec: str | None = None
    action_meanings: list[str] | None = None
    step_ns: int | None = None
    safe_action: Any = None
    keeps: Block = field(default_factory=Block)
    can_pause: bool = True
    cycles: dict[str, Any] | None = None

    def to_header(self) -> dict[str, Any]:
        """As JSON, for the run's header and files: what is None is left out."""
        plain = vars(self) | {"observation": self.observation.to_json(), "action": self.action.to_json()}
        plain["keeps"] = self.keeps.to_json() or None
        return {name: value for name, value in plain.items() if value is not None}


@dataclass
class WeightSizes(Message):
    """From worker 0: how large its network is (`ParamLayout.sizes`), and whether building it computed something
    (`rtcore_workers.weights.building`). Answered by `WeightsMade`."""

    sizes: dict[str, int]
    has_computed: bool = False


@dataclass
class PolicyNeedsSaid(Message):
    """From a worker: what its policy takes and gives beside frame and action. Answered by `PayloadMade`."""

    needs: PolicyNeeds


@dataclass
class LeavesItsSpace(Message):
    """From a worker, once: what in the world's observations is not as its space declares."""

    what: str


@dataclass
class PolicyRaised(Message):
    """From a worker, once: what its policy raised, where that gives no action instead of ending the run."""

    what: str


@dataclass
class NoLink(Message):
    """From a worker whose inferences are made elsewhere: why that cannot be reached, as long as it cannot.

    `is_over`: there was a link. The process waits for its place's next generation, and then makes another link.
    """

    why: str
    is_over: bool = False


@dataclass
class WeightsWanted(Message):
    """From a worker: that the weights on its device be held. Answered by `WeightsHeld`."""

    device: str
    kind: str


@dataclass
class KeepsOwnWeights(Message):
    """From a worker: it does not use what is held on its device."""

    device: str
    why: str


@dataclass(frozen=True)
class RecordingCounts:
    """What a recording holds and lacks. `bytes`: size of ticks.hdf5 as of the last flush."""

    frames: int = 0
    lost_frames: int = 0
    jobs: int = 0
    lost_jobs: int = 0
    bytes: int = 0


@dataclass
class Recorded(Message):
    """From the recorder: how far it is. `end`: its file is closed; `failed_with`: it cannot be."""

    counts: RecordingCounts
    end: str = ""
    note: str = ""
    failed_with: str = ""


# -- from the supervisor to a child ----------------------------------------------------------------------------


@dataclass
class SegmentsMade(Message):
    """To the env process: the run's shared memory is there, and what the settings leave open is decided."""

    layout: Layout
    run: ResolvedRun


@dataclass
class ResetOrder(Message):
    """To the env process of a program that plays: begin an episode. Sent before `run_control.reset_seq` is raised."""

    reset_seq: int
    seed: int | None
    options: dict[str, Any] | None


@dataclass
class WeightsMade(Message):
    """To worker 0: the memory for the weights is there."""


@dataclass
class PayloadMade(Message):
    """To a worker: the memory for what its policy needs is there."""


@dataclass
class WeightsHeld(Message):
    """To a worker: where the weights on its device are (`part`: their store), or why they are not held."""

    part: str = ""
    memory: DeviceBuffers | None = None
    refused: str = ""


@dataclass
class End(Message):
    """To a recorder or holder: finish. `soon`: somebody waits for it."""

    soon: bool = False


def _traceback(error: BaseException) -> str:
    try:
        lines = "".join(traceback.format_exception(error))
    except Exception as second:  # a user's __str__ or source that cannot be read
        return f"(its traceback cannot be had: {type(second).__name__})"
    return shortened(printable(lines), _TRACEBACK_CHARS)
