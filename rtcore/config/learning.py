"""The settings of learning: part of the one `RuntimeConfig`. Defaults are the paper's (arXiv 2412.14355, DQN)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from rtcore.files.values import plain

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


def _possible_name(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("holds a zero byte, which no file name has")
    return path


FilePath = Annotated[Path, AfterValidator(_possible_name)]


def _plain_values(args: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value, name) for name, value in args.items()}


#: Keyword arguments that other processes get as they were given.
Arguments = Annotated[dict[str, Any], AfterValidator(_plain_values)]

#: Learning updates per tick on the virtual clock, where no machine says how fast learners are.
VIRTUAL_UPDATES_PER_TICK = 0.25


class LearnConfig(BaseModel):
    """How to learn, if at all. Every default is said here and nowhere else."""

    # -- learning
    learn: Literal["dqn", "imitate"] | None = Field(
        None,
        description="Learn while the world runs: dqn, from rewards. imitate, on the virtual clock: what the world's "
        "own teacher would do, from old frames. Default: only play.",
    )
    learners: Annotated[int, Field(ge=1, le=256)] = Field(1, description="Learner processes, staggered as workers are.")
    mode: Mode = Field(
        "async",
        description="async: learners beside the workers. infer-then-learn, learn-then-infer: one process does both in "
        "turn, the paper's sequential agents.",
    )
    learning_rate: Positive = Field(1e-3, description="Step size of Adam.")
    gamma: Share = Field(0.99, description="Discount per tick.")
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)] = Field(16, description="Transitions in one update.")
    n_step: Few = Field(1, description="Decisions whose rewards are summed before the bootstrap.")
    double_dqn: bool = Field(False, description="Choose the bootstrap action with the online network.")
    target_every: Counted = Field(10_000, description="Updates between two copies to the target network.")
    learning_starts: Counted = Field(1_000, description="Transitions to collect before the first update.")
    max_grad_norm: Positive = Field(10.0, description="Gradients of a larger norm are scaled down to it.")
    publish_every: Counted = Field(10, description="Updates between two publications of the weights.")
    updates_per_tick: Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None,
        description="Learning updates for each tick: on the wall clock the most (default: as many as learners "
        f"manage), on the virtual clock how many (default {VIRTUAL_UPDATES_PER_TICK}).",
    )
    learn_latency_ms: Milliseconds = Field(
        0.0, description="Virtual clock only: how long an update takes, which the sequential modes wait for [ms]."
    )
    learner_nice: Annotated[int, Field(ge=0, le=19)] = Field(
        19, description="Niceness of learners: the higher, the more workers and world come first."
    )

    # -- exploration
    explore: bool = Field(
        False, description="Explore as when learning: for a trainer of your own that learns from this run."
    )
    epsilon_start: Share = Field(1.0, description="Share of random actions at tick 0.")
    epsilon_end: Share = Field(0.05, description="Share of random actions from epsilon-ticks on.")
    epsilon_ticks: Counted = Field(100_000, description="Ticks over which it falls, linearly.")
    explore_ticks: Counted = Field(1, description="Ticks that a random action is kept up.")

    # -- what the network sees
    obs_history: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="Older frames the policy sees beside the newest."
    )
    obs_every: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="Frames from one of these older frames to the next."
    )
    act_history: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="Last applied actions the policy sees beside the frame."
    )

    # -- weights on disk
    policy_checkpoint: FilePath | None = Field(
        None,
        description="Weights to play with: a safetensors file, a checkpoint, or the folder of a run. Policy and world "
        "are those of the checkpoint unless they are given.",
    )
    resume: FilePath | None = Field(
        None,
        description="Go on learning where a run stopped: its folder (the last checkpoint) or a checkpoint. Seed, "
        "output folder and all other settings are that run's unless they are given; its rows are kept in DIR/earlier.",
    )
    checkpoint_every_s: Seconds = Field(60.0, description="Time between two checkpoints [s]; inf: only at the end.")
    keep_checkpoints: Many = Field(3, description="Newest checkpoints to keep, beside the best one.")
    tensorboard: bool = Field(True, description="Write TensorBoard events beside the run, where it is installed.")

    @property
    def explores(self) -> bool:
        """Whether workers take random actions now and then."""
        return self.learn is not None or self.explore

    @property
    def learner_processes(self) -> int:
        """Processes that only learn: none where the worker learns itself."""
        return self.learners if self.learn is not None and self.mode == "async" else 0

    @model_validator(mode="after")
    def _sequential_modes_are_one_learning_process(self) -> Self:
        if self.mode == "async":
            return self
        if self.learn is None:
            raise ValueError(f"mode={self.mode} is about learning: give --learn dqn too")
        if self.learners > 1:
            raise ValueError(f"mode={self.mode} is one process that acts and learns in turn: use --learners 1")
        return self

    @model_validator(mode="after")
    def _teachers_have_no_delay(self) -> Self:
        if self.learn == "imitate" and self.mode != "async":
            raise ValueError(f"mode={self.mode}: learn=imitate learns beside the workers; use --mode async")
        return self

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.resume is not None and self.policy_checkpoint is not None:
            raise ValueError(
                "resume and policy_checkpoint both say where the weights come from: resume goes on learning, "
                "policy_checkpoint plays (or starts learning anew from these weights)"
            )
        if self.resume is not None and self.learn is None:
            raise ValueError("resume goes on learning: give --learn dqn too, or play with --policy-checkpoint")
        return self
