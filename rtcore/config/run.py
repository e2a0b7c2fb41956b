"""The one configuration of a run: from flags, a TOML file or Python, frozen and closed.

What its user says is here; what that comes to in a world is a `ResolvedRun` (`config/resolved.py`).
"""

from __future__ import annotations

import math
import tomllib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError

from rtcore.config.groups import (
    MOST_PROCESSES,
    MOST_WORKERS,
    POLICY_SERVER,
    TWO_SPEEDS,
    AgentSettings,
    ContractSettings,
    ExplorationSettings,
    FaultSettings,
    HistorySettings,
    HostSettings,
    LearningSettings,
    MemorySettings,
    OutputSettings,
    RemoteSettings,
    ScheduleSettings,
    SettingsGroup,
    TakeOverSettings,
    TimingSettings,
    WeightsSettings,
    WorldSettings,
)
from rtcore.errors import ConfigError, nearest
from rtcore.files.outside import read_bytes
from rtcore.files.values import from_json, to_json

_ARGUMENTS = ("env_args", "policy_args")


def from_words(args: dict[str, Any]) -> dict[str, Any]:
    """k=v on a command line is text: numbers, true, false and none mean what they look like.

    Args:
        args: Text by name.

    Returns:
        The same names; values that are no such word stay text.
    """
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


class RuntimeConfig(BaseModel):
    """What the user of a run says of it: `RuntimeConfig(env_id="CartPole-v1", workers=4)`.

    Settings are given by their flat names, which are those of flags and TOML keys, and read from their groups:
    `config.world.env_id`, `config.schedule.workers`. Code that needs one group takes that group. The group of the
    policy is called `agent`, as `policy` is the name of a setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    world: WorldSettings = Field(default_factory=WorldSettings)
    agent: AgentSettings = Field(default_factory=AgentSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    take_over: TakeOverSettings = Field(default_factory=TakeOverSettings)
    remote: RemoteSettings = Field(default_factory=RemoteSettings)
    learning: LearningSettings = Field(default_factory=LearningSettings)
    exploration: ExplorationSettings = Field(default_factory=ExplorationSettings)
    history: HistorySettings = Field(default_factory=HistorySettings)
    weights: WeightsSettings = Field(default_factory=WeightsSettings)
    timing: TimingSettings = Field(default_factory=TimingSettings)
    memory: MemorySettings = Field(default_factory=MemorySettings)
    faults: FaultSettings = Field(default_factory=FaultSettings)
    host: HostSettings = Field(default_factory=HostSettings)
    contract: ContractSettings = Field(default_factory=ContractSettings)
    output: OutputSettings = Field(default_factory=OutputSettings)

    if TYPE_CHECKING:

        def __init__(self, **settings: Any) -> None: ...

    else:

        def __getattr__(self, name: str) -> Any:
            """Settings by their flat names, as up to rtcore 0.1: with a `DeprecationWarning`, for one version."""
            if name not in GROUP_OF:
                return super().__getattr__(name)
            group = GROUP_OF[name]
            warnings.warn(f"config.{name} is now config.{group}.{name}", DeprecationWarning, stacklevel=2)
            return getattr(getattr(self, group), name)

    @model_validator(mode="before")
    @classmethod
    def _into_groups(cls, settings: Any) -> Any:
        """Flat names go to their groups. A whole group may be given as well: `schedule=ScheduleSettings(...)`."""
        if not isinstance(settings, Mapping):
            return settings
        grouped: dict[str, Any] = {}
        for name, value in settings.items():
            if name in GROUPS and not isinstance(value, SettingsGroup):
                # Files have flat keys only: what checks them (`refuse_code`, `with_resumed`) looks at those.
                raise ValueError(f"unknown key {name!r}. {suggest(name)}")
            if name not in GROUPS and name not in GROUP_OF:
                grouped[name] = value
                continue
            group = GROUP_OF[name] if name in GROUP_OF else str(name)
            given = value.given if isinstance(value, SettingsGroup) else {name: value}
            if twice := sorted(grouped.get(group, {}).keys() & given.keys()):
                raise ValueError(f"{', '.join(twice)}: given twice, by name and in the group {group}")
            grouped[group] = {**grouped.get(group, {}), **given}
        return grouped

    # -- what groups have to do with each other --------------------------------------------------------------

    @model_validator(mode="after")
    def _ring_outlives_the_workers(self) -> Self:
        ring_slots, workers = self.memory.ring_slots, self.schedule.workers
        if ring_slots is not None and workers != "auto" and ring_slots <= workers:
            raise ValueError(
                f"ring_slots={ring_slots} must exceed workers={workers}: a worker reads a frame that is "
                "as many ticks old"
            )
        return self

    @model_validator(mode="after")
    def _a_machine_can_start_the_workers(self) -> Self:
        if self.timing.clock != "virtual" and (most := self.schedule.max_workers) > MOST_PROCESSES:
            name = "max_workers" if self.schedule.workers == "auto" else "workers"
            raise ValueError(
                f"{name}={most}: each is a process; expected at most {MOST_PROCESSES}. --clock virtual has up to "
                f"{MOST_WORKERS}"
            )
        return self

    @model_validator(mode="after")
    def _a_device_does_not_stand_still(self) -> Self:
        if self.timing.clock == "world" and self.world.overrun == "stretch":
            raise ValueError(
                "overrun=stretch puts ticks off, and with --clock world they are cycles of a device, which go by; "
                "expected --overrun skip"
            )
        return self

    @model_validator(mode="after")
    def _there_are_places_for_workers_elsewhere(self) -> Self:
        elsewhere, workers = len(self.remote.workers_at), self.schedule.workers
        if elsewhere and self.timing.clock == "virtual":
            raise ValueError("workers_at is for --clock wall: on the virtual clock no process computes")
        if elsewhere > (self.schedule.max_workers if workers == "auto" else workers):
            name = "max_workers" if workers == "auto" else "workers"
            raise ValueError(
                f"workers_at names {elsewhere} workers, and {name} is {getattr(self.schedule, name)}: it counts them, "
                f"too; give --{name.replace('_', '-')} {elsewhere} or more"
            )
        return self

    @model_validator(mode="after")
    def _nobody_sits_at_the_virtual_clock(self) -> Self:
        if self.has_operator_process and self.timing.clock == "virtual":
            raise ValueError(
                f"operator={self.take_over.operator} is for --clock wall: on the virtual clock a second takes no time. "
                "Simulation.take_over() steps in there (operator='program')"
            )
        return self

    @model_validator(mode="after")
    def _learning_fits_the_rest(self) -> Self:
        learn, mode, policy = self.learning.learn, self.learning.mode, self.agent.policy
        if self.weights.resume is not None and learn is None:
            raise ValueError("resume goes on learning: give --learn dqn too, or play with --policy-checkpoint")
        if learn is not None and self.agent.policy_chunk > 1:
            raise ValueError(
                f"chunk={self.agent.chunk}: learning is about decisions of one action; give --chunk-rest noop or hold "
                "as well, or --chunk 1; or learn chunks with a trainer of your own, from Runtime.sample"
            )
        if learn is not None and policy in ("random", "synthetic"):
            raise ValueError(f"learn={learn}: policy={policy} has no network to learn with; try --policy dqn")
        if learn is not None and policy.startswith(POLICY_SERVER):
            raise ValueError(f"learn={learn}: policy={policy} is a server, which has the network; it learns there")
        if learn is not None and policy.startswith("sb3:"):
            raise ValueError(f"learn={learn}: policy={policy} learns with rtcore.sb3.learn (docs/embedding.md)")
        if learn == "imitate" and self.timing.clock != "virtual":
            raise ValueError("learn=imitate asks the world's teacher at each tick; use --clock virtual --latency ...")
        if mode != "async" and (self.schedule.stagger != "sequential" or self.schedule.workers not in ("auto", 1)):
            raise ValueError(f"mode={mode} is one process: it goes with --stagger sequential and --workers 1")
        if self.learning.learn_latency_ms and self.timing.clock != "virtual":
            raise ValueError("learn_latency_ms is for --clock virtual: on the wall clock an update takes what it takes")
        return self

    @model_validator(mode="after")
    def _chunks_are_replaced_in_time(self) -> Self:
        chunk, replan_every, stagger = self.agent.chunk, self.schedule.replan_every, self.schedule.stagger
        if self.agent.chunk_from == "frame" and self.agent.policy_chunk != chunk:
            raise ValueError(
                f"chunk_from=frame with chunk_rest={self.agent.chunk_rest}: the first action of a chunk, the only one "
                "of the policy, would be past when it is due; use chunk_rest=own"
            )
        if replan_every is not None and stagger not in ("max-time", "expected-time"):
            raise ValueError(
                f"replan_every={replan_every}: with stagger={stagger} a worker starts when it is idle; use max-time or "
                "expected-time"
            )
        if replan_every is not None and replan_every > chunk:
            raise ValueError(
                f"replan_every={replan_every} is longer than chunk={chunk}: there would be ticks without an action; "
                f"give --chunk {replan_every} or more"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_for_a_network(self) -> Self:
        policy = self.agent.policy
        if self.weights.policy_checkpoint is not None and (
            policy in ("random", "synthetic") or policy.startswith(POLICY_SERVER)
        ):
            raise ValueError(
                f"policy_checkpoint: policy {self.agent.policy} has no network to play the weights with; leave "
                "--policy out (a checkpoint says which it is of), or name a network"
            )
        return self

    @model_validator(mode="after")
    def _traces_are_of_processes(self) -> Self:
        if self.output.trace and self.timing.clock == "virtual":
            raise ValueError("trace is for --clock wall: on the virtual clock no process does anything")
        return self

    @model_validator(mode="after")
    def _what_is_required_is_measured(self) -> Self:
        absent = {
            "learner.": ("learning", "--learn dqn", self.learning.learn is None),
            "world_clock.": ("the world's clock", "--clock world", self.timing.clock != "world"),
        }
        for condition in self.contract.conditions:
            for part, (what, flag, is_absent) in absent.items():
                if is_absent and condition.path.startswith(part):
                    raise ValueError(f"require: {condition.text} is about {what}: give {flag} too, or leave it out")
        return self

    @property
    def explores(self) -> bool:
        """Whether workers take random actions now and then."""
        return self.learning.learn is not None or self.exploration.explore

    @property
    def has_operator_process(self) -> bool:
        """Whether a process of its own says what a person does."""
        return self.take_over.operator not in (None, "program")

    @property
    def may_have_head(self) -> bool:
        """Whether the policy may have two speeds."""
        policy = self.agent.policy
        return policy == TWO_SPEEDS or (":" in policy and not policy.startswith(POLICY_SERVER))

    @property
    def computes_here(self) -> bool:
        """Whether a process of this host may compute with the policy's network."""
        all_elsewhere = self.schedule.workers == len(self.remote.workers_at)
        return not all_elsewhere or self.may_have_head or self.learning.learn is not None

    # -- by flat names ---------------------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its flat name."""
        return {name: getattr(getattr(self, group), name) for name, group in GROUP_OF.items()}

    @property
    def given(self) -> dict[str, Any]:
        """The settings that somebody gave, by their flat names; the others are defaults."""
        return {name: value for group in GROUPS for name, value in getattr(self, group).given.items()}

    def replace(self, **settings: Any) -> RuntimeConfig:
        """With other values of these settings, which are not checked; by flat names."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            changed.setdefault(GROUP_OF[name], {})[name] = value
        groups = {group: getattr(self, group).model_copy(update=update) for group, update in changed.items()}
        return self.model_copy(update=groups)

    def to_jsonable(self) -> dict[str, Any]:
        """Every setting as JSON has it, flat; `from_jsonable` of that is this config again."""
        try:
            groups = self.model_dump(mode="json")
        except PydanticSerializationError as error:
            if error.__cause__ is None or isinstance(error.__cause__, Exception):
                raise
            raise error.__cause__ from None  # a signal came meanwhile, as Ctrl-C does: nothing is wrong with a setting
        plain = {name: value for group in groups.values() for name, value in group.items()}
        settings = self.settings
        plain |= {name: to_json(settings[name]) for name in _ARGUMENTS}
        unlimited = {name: str(x) for name, x in settings.items() if isinstance(x, float) and math.isinf(x)}
        return plain | unlimited

    @classmethod
    def from_jsonable(cls, fields: Mapping[str, Any]) -> RuntimeConfig:
        """Inverse of `to_jsonable`. ConfigError for fields that it does not write."""
        try:
            arguments = {name: from_json(fields[name]) for name in _ARGUMENTS if name in fields}
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return make_config(**{**fields, **arguments})


#: The groups, by their attributes, in the order of `--help`.
GROUPS: dict[str, type[SettingsGroup]] = {
    name: info.annotation
    for name, info in RuntimeConfig.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, SettingsGroup)
}
#: Every setting by its flat name: the group it is in, and its description.
GROUP_OF: dict[str, str] = {name: group for group, kind in GROUPS.items() for name in kind.model_fields}
SETTINGS: dict[str, FieldInfo] = {name: info for kind in GROUPS.values() for name, info in kind.model_fields.items()}


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` of a config by their flat names: what a whole group says is there by the names of its settings.

    Raises:
        ConfigError: A setting is given twice, by its name and in its group.
    """
    opened: dict[str, Any] = {}
    for name, value in fields.items():
        given = value.given if name in GROUPS and isinstance(value, SettingsGroup) else {name: value}
        if twice := sorted(opened.keys() & given.keys()):
            raise ConfigError(f"{', '.join(twice)}: given twice, by name and in a group")
        opened |= given
    return opened


def load_toml(path: Path) -> dict[str, Any]:
    """The keys of a config file, as `make_config` takes them. Kebab-case keys are accepted.

    Args:
        path: A TOML file of flat keys.

    Returns:
        Value by setting, not yet checked.

    Raises:
        ConfigError: It cannot be read, or is no TOML.
    """
    try:
        raw = tomllib.loads(read_bytes(path, "config").decode())
        return {key.replace("-", "_"): from_json(value) for key, value in raw.items()}
    except RecursionError as error:
        raise ConfigError(f"config {path} is not TOML: nested too deep") from error
    except ValueError as error:
        raise ConfigError(f"config {path} is not TOML: {error}") from error


def make_config(**fields: Any) -> RuntimeConfig:
    """A config, with every setting checked.

    Args:
        fields: Settings by their flat names, which are those of flags and TOML keys.

    Returns:
        The config, with defaults for the rest.

    Raises:
        ConfigError: It names each wrong setting, and suggests the right one for a typo.
    """
    try:
        return RuntimeConfig(**fields)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(problem) for problem in error.errors())) from error


def _explain(problem: Any) -> str:
    place = [str(part) for part in problem["loc"]]
    # A group's own rules say themselves which settings they are about.
    field = next(iter(place[1:] if place and place[0] in GROUPS else place), "")
    if problem["type"] == "extra_forbidden":
        return f"unknown key {field!r}. {suggest(field)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = "" if not field or isinstance(problem.get("input"), dict) else f" (got {problem['input']!r})"
    return f"{field.replace('_', '-')}: {message}{given}" if field else message


def suggest(name: str) -> str:
    """Which option was probably meant."""
    return nearest(
        name,
        GROUP_OF,
        "`rtcore-run --help` lists every option; arguments of the world go into --env-args, those of the policy into "
        "--policy-args",
    )
