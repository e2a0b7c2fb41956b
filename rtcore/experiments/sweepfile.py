"""What a sweep file says, and the cells that it comes to. Pure: nothing is started, no world is made.

A sweep file is TOML. What every cell has in common stands in [settings], by the names of `rtcore-run`'s flags; worlds
and agents add to that what is their own. `rtcore-sweep --help` shows one, docs/experiments.md has every key.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rtcore.config.run import GROUP_OF, RuntimeConfig, load_toml, make_config
from rtcore.errors import ConfigError, nearest
from rtcore.files.values import to_json

#: What a cell is about, by axis: its place in every table. `delay_ticks`, `latency_ms`, or a setting's flat name.
Axes = dict[str, str | int | float | bool]
Settings = dict[str, Any]
#: Which of the weights that were learned are played.
Play = Literal["last", "best"]
Role = Literal["staggered", "sequential", "zero-delay", "best", "floor"]

#: Settings that a sweep decides itself: what to write instead.
_DECIDED: dict[str, str] = {
    "seed": "`seeds`, at the top of the file",
    "duration": "`ticks`",
    "resume": "nothing: a sweep goes on by itself",
    **dict.fromkeys(
        (
            "out",
            "live",
            "pictures",
            "show_world",
            "trace",
            "record",
            "video",
            "tensorboard",
            "wandb",
            "mlflow",
            "checkpoint_every_s",
        ),
        "nothing: a cell keeps its numbers alone",
    ),
}
#: Episodes that are played to judge begin from seeds that training never saw: these, and no others.
EVALUATION_SEED = 1_000_000
#: `delay` in a setting's value, as a number of ticks: "delay", "2 * delay", "delay - 1", "2 * delay + 1".
_OF_DELAY = re.compile(r"(?:(?P<times>\d+) *\* *)?delay(?: *(?P<sign>[+-]) *(?P<plus>\d+))?")
#: Everything else in a cell's name would have to be quoted in a shell, or cannot be in a file's name.
_UNSAFE = re.compile(r"[^A-Za-z0-9.=_]+")
_LONGEST_NAME = 200
#: Groups of settings that no evaluation has.
_OF_TRAINING = ("learning", "exploration")
#: How a cell came to its numbers; another one makes every cell's fingerprint another.
_METHOD = 1


def _distinct(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("expected at least one")
    if len({json.dumps(value) for value in values}) < len(values):
        raise ValueError("holds one twice")
    return values


def _counted(seeds: Any) -> Any:
    if isinstance(seeds, list):
        return seeds
    if type(seeds) is not int or not 1 <= seeds <= EVALUATION_SEED:
        raise ValueError("expected a number of seeds, 1 or more, or a list of them")
    return list(range(seeds))


Seed = Annotated[int, Field(ge=0, lt=EVALUATION_SEED, strict=True)]
Seeds = Annotated[list[Seed], BeforeValidator(_counted), AfterValidator(_distinct)]
Delays = Annotated[list[Annotated[int, Field(ge=1, le=100_000, strict=True)]], AfterValidator(_distinct)]
#: [ms], or models such as "normal:80,10".
Latencies = Annotated[
    list[Annotated[float, Field(gt=0, le=1e9, strict=True)]] | list[Annotated[str, Field(strict=True)]],
    AfterValidator(_distinct),
]
Names = Annotated[list[str], AfterValidator(_distinct)]
Count = Annotated[int, Field(ge=0, le=10**6, strict=True)]


class _NamedSettings(BaseModel):
    """What a world or an agent may say for its own cells. Everything else in its table are settings."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Annotated[str, Field(min_length=1)]
    seeds: Seeds | None = None
    delays: Delays | None = None
    episodes: Count | None = None
    play: Play | None = None
    #: Settings from above that this part does not have: the defaults are back.
    without: list[str] = Field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return dict(self.model_extra or {})


class WorldPart(_NamedSettings):
    """A table of [[worlds]]."""

    best_known: float | None = None


class AgentPart(_NamedSettings):
    """A table of [[agents]]: a policy and its schedule. `worlds`: it plays in these only."""

    worlds: Names | None = None
    role: Role | None = None


class SweepFile(BaseModel):
    """A sweep file's keys, those of [settings] and of worlds and agents not yet checked: `cells` does that."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: Seeds = Field(default_factory=lambda: [0])
    #: Ticks from frame to action: a latency of half a tick less.
    delays: Delays | None = None
    latencies: Latencies | None = None
    #: Played to judge, without exploring; 0: of a cell that does not learn, `ticks` ticks are played.
    episodes: Count = 20
    #: Of training, or of playing where `episodes` is 0.
    ticks: Annotated[int, Field(ge=1, strict=True)] | None = None
    #: Longest episode when judging; a cell whose episodes do not end is an error.
    most_episode_ticks: Annotated[int, Field(ge=1, le=10**8, strict=True)] = 10_000
    clock: Literal["virtual", "wall"] = "virtual"
    play: Play = "last"
    #: Of a Ray task: 1 if nothing is said.
    cpus: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] = 0
    settings: Settings = Field(default_factory=dict)
    #: Settings that differ when a cell plays to judge.
    evaluation: Settings = Field(default_factory=dict)
    worlds: list[WorldPart] = Field(default_factory=list)
    agents: list[AgentPart] = Field(default_factory=list)
    #: Values by setting; one argument as `policy-args.k = [1, 7]`.
    axes: dict[str, Any] = Field(default_factory=dict)


#: What a table may hold beside settings.
_OWN_KEYS = {"[[worlds]]": WorldPart.model_fields, "[[agents]]": AgentPart.model_fields}


@dataclass(frozen=True)
class Cell:
    """One independent run: what it is about, and every setting of it but those that follow from the tick rate."""

    name: str
    axes: Axes
    settings: Settings
    evaluation: Settings
    episodes: int
    most_episode_ticks: int
    play: Play
    role: Role | None = None
    best_known: float | None = None

    @property
    def delay_ticks(self) -> int | None:
        delay = self.axes.get("delay_ticks")
        return int(delay) if delay is not None else None

    @property
    def learns(self) -> bool:
        return self.settings.get("learn") is not None

    @property
    def is_on_wall_clock(self) -> bool:
        return bool(self.settings["clock"] == "wall")

    @property
    def fingerprint(self) -> str:
        """Of everything that its numbers depend on, as far as the sweep file says it."""
        what = {
            "method": _METHOD,
            "axes": self.axes,
            "settings": to_json(self.settings),
            "evaluation": to_json(self.evaluation),
            "episodes": self.episodes,
            "most_episode_ticks": self.most_episode_ticks,
            "play": self.play,
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def config(self, rate_hz: Fraction, **others: Any) -> RuntimeConfig:
        """Of its training, or of its only run; `rate_hz`: of its world. `others` win."""
        return make_config(**(self.settings | self._latency(rate_hz, self.settings) | others))

    def evaluation_config(self, rate_hz: Fraction, **others: Any) -> RuntimeConfig:
        """Of the episodes that judge it: nothing is learned or explored. Their seeds are the same for all agents."""
        settings = _joined(self.settings, self.evaluation)
        unlearned = {name: value for name, value in settings.items() if GROUP_OF[name] not in _OF_TRAINING}
        unlearned |= {"ticks": self.most_episode_ticks * self.episodes}
        unlearned["seed"] = EVALUATION_SEED + self.settings["seed"]
        return make_config(**(unlearned | self._latency(rate_hz, unlearned) | others))

    def _latency(self, rate_hz: Fraction, settings: Settings) -> Settings:
        """Half a tick less than the delay, so that it is that many ticks exactly."""
        if self.delay_ticks is None:
            return {}
        return _latency_setting(float((self.delay_ticks - Fraction(1, 2)) * 1000 / rate_hz), settings)


def load_sweep(path: Path) -> SweepFile:
    """The file's keys. ConfigError names a key that there is not, and the nearest right one."""
    raw = load_toml(path)
    try:
        for name in ("settings", "evaluation", "axes"):
            raw |= {name: _snake(raw[name])} if isinstance(raw.get(name), dict) else {}
        for name in ("worlds", "agents"):
            if isinstance(raw.get(name), list):
                raw |= {name: [_snake(part) if isinstance(part, dict) else part for part in raw[name]]}
        return SweepFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {_explain(problem, raw)}" for problem in error.errors())) from error


def _snake(table: Mapping[str, Any]) -> Settings:
    return {key.replace("-", "_"): value for key, value in table.items()}


def _explain(problem: Any, raw: Mapping[str, Any]) -> str:
    place = [part for part in problem["loc"] if not (isinstance(part, str) and "[" in part)]
    where = str(place[0]) if place else ""
    if len(place) > 1 and place[0] in ("worlds", "agents"):
        part = raw[str(place[0])][place[1]]
        name = part.get("name") if isinstance(part, dict) else None
        where = f"[[{place[0]}]] {name or f'number {int(place[1]) + 1}'}"
        where += f": {place[2]}" if len(place) > 2 else ""
    if problem["type"] == "extra_forbidden":
        key = str(place[-1])
        if key in GROUP_OF:
            return f"{key} is a setting of the runs; expected it under [settings], or in a world or an agent"
        return f"unknown key {key!r}. {nearest(key, SweepFile.model_fields)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    got = "" if problem["type"] == "missing" else f" (got {problem['input']!r:.80})"
    return f"{where}: {message}{got}"


# -- from the file to its cells ------------------------------------------------------------------------------------


def cells_of(sweep: SweepFile) -> list[Cell]:
    """The product, first seeds first: what is done when a sweep is broken off is a whole table of fewer seeds.

    Within a seed those that learn come first: they take longest.

    Raises:
        ConfigError: A setting that there is not, or that a sweep decides; a cell whose settings are refused, by its
            name; two cells of one name.
    """
    if sweep.delays is not None and sweep.latencies is not None:
        raise ConfigError("delays and latencies both say how late actions are: expected one of them")
    _check_parts(sweep)
    cells = list(_product(sweep))
    if not cells:
        raise ConfigError("the sweep has no cell: no agent plays in any of its worlds")
    seen: dict[str, Cell] = {}
    for cell in cells:
        if (other := seen.setdefault(cell.name.casefold(), cell)) is not cell:
            first, second = ({axis: one.axes[axis] for axis in ("world", "agent")} for one in (other, cell))
            raise ConfigError(
                f"two cells are called {cell.name}, of {first} and of {second}; give worlds and agents names that "
                "differ in letters or digits"
            )
        _check_cell(cell)
    return sorted(cells, key=lambda cell: (cell.axes["seed"], not cell.learns))


def _check_parts(sweep: SweepFile) -> None:
    for where, settings in _tables(sweep):
        for key in settings:
            _check_setting(where, key, has_delays=sweep.delays is not None or sweep.latencies is not None)
    for part in (*sweep.worlds, *sweep.agents):
        for key in part.without:
            if (name := key.replace("-", "_")) not in GROUP_OF:
                raise ConfigError(f"{part.name}: without: unknown key {key!r}. {nearest(name, GROUP_OF)}")
        if part.delays is not None and sweep.latencies is not None:
            raise ConfigError(f"{part.name}: delays, in a sweep over latencies; expected one of them")
    names = [world.name for world in sweep.worlds]
    for agent in sweep.agents:
        for name in agent.worlds or ():
            if name not in names:
                raise ConfigError(f"{agent.name}: worlds: there is no world {name!r}. {nearest(name, names)}")
    for axis, values in _axes(sweep).items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"[axes] {axis}: expected a list of values, got {values!r:.80}")
        if any(not isinstance(value, (str, int, float, bool)) for value in values):
            raise ConfigError(f"[axes] {axis}: expected numbers, texts, true or false, got {values!r:.80}")


def _tables(sweep: SweepFile) -> Iterator[tuple[str, Settings]]:
    yield "[settings]", sweep.settings
    yield "[evaluation]", sweep.evaluation
    yield from ((f"[[worlds]] {world.name}", world.settings) for world in sweep.worlds)
    yield from ((f"[[agents]] {agent.name}", agent.settings) for agent in sweep.agents)
    yield "[axes]", {axis.partition(".")[0]: None for axis in _axes(sweep)}


def _check_setting(where: str, key: str, *, has_delays: bool) -> None:
    if key in _DECIDED:
        raise ConfigError(f"{where}: {key} is decided by the sweep; write {_DECIDED[key]}")
    if key == "latency" and has_delays:
        raise ConfigError(f"{where}: latency follows from the delays or latencies of the sweep; expected one of them")
    if key not in GROUP_OF:
        known = [*GROUP_OF, *_OWN_KEYS.get(where.partition(" ")[0], ())]
        raise ConfigError(f"{where}: unknown key {key!r}. {nearest(key, known)}")


def _axes(sweep: SweepFile) -> dict[str, Any]:
    """Values by flat name, or by `setting.argument`."""
    found: dict[str, Any] = {}
    for key, values in sweep.axes.items():
        if isinstance(values, dict):
            found |= {f"{key}.{argument}": given for argument, given in values.items()}
        else:
            found[key] = values
    return found


class _Lateness(NamedTuple):
    """A value of the axis of delays or latencies; `axis` is "" where a sweep has neither."""

    axis: str = ""
    value: int | float | str = ""


def _product(sweep: SweepFile) -> Iterator[Cell]:
    policy, env_id = (str(sweep.settings.get(name, default)) for name, default in _DEFAULT_NAMES)
    worlds = sweep.worlds or [WorldPart(name=env_id)]
    agents = sweep.agents or [AgentPart(name=policy)]
    axes = _axes(sweep)
    for world, agent in itertools.product(worlds, agents):
        if agent.worlds is not None and world.name not in agent.worlds:
            continue
        seeds = agent.seeds or world.seeds or sweep.seeds
        for late, *values in itertools.product(_latenesses(sweep, world, agent), *axes.values()):
            for seed in seeds:
                named = dict(zip(axes, values, strict=True))
                yield _cell(sweep, world, agent, late=late, values=named, seed=seed)


_DEFAULT_NAMES = (("policy", "auto"), ("env_id", "rtcore/Blocks-v0"))


def _latenesses(sweep: SweepFile, world: WorldPart, agent: AgentPart) -> Iterable[_Lateness]:
    if sweep.latencies is not None:
        return [_Lateness("latency" if isinstance(value, str) else "latency_ms", value) for value in sweep.latencies]
    delays = agent.delays or world.delays or sweep.delays
    return [_Lateness("delay_ticks", delay) for delay in delays] if delays is not None else [_Lateness()]


def _cell(
    sweep: SweepFile, world: WorldPart, agent: AgentPart, *, late: _Lateness, values: Mapping[str, Any], seed: int
) -> Cell:
    settings: Settings = {"clock": sweep.clock}
    if sweep.ticks is not None:
        settings["ticks"] = sweep.ticks
    settings = _joined(settings, sweep.settings)
    for part in (world, agent):
        dropped = {key.replace("-", "_") for key in part.without}
        settings = _joined({key: value for key, value in settings.items() if key not in dropped}, part.settings)
    for axis, value in values.items():
        name, dot, argument = axis.partition(".")
        settings = _joined(settings, {name: {argument: value} if dot else value})
    axes: Axes = {"world": world.name, "agent": agent.name}
    if late.axis:
        axes[late.axis] = late.value
    axes |= {**values, "seed": seed}
    name = _name_of(axes)
    delay = late.value if late.axis == "delay_ticks" else None
    settings = _with_delay(settings, delay, name) | {"seed": seed, "tensorboard": False}
    if late.axis == "latency_ms":
        settings |= _latency_setting(float(late.value), settings)
    elif late.axis == "latency":
        settings["latency"] = late.value
    episodes = next(found for found in (agent.episodes, world.episodes, sweep.episodes) if found is not None)
    return Cell(
        name=name,
        axes=axes,
        settings=settings,
        evaluation=_with_delay(sweep.evaluation, delay, name),
        episodes=episodes,
        most_episode_ticks=sweep.most_episode_ticks,
        play=agent.play or world.play or sweep.play,
        role=agent.role,
        best_known=world.best_known,
    )


def _joined(first: Settings, second: Settings) -> Settings:
    """`second` wins; arguments of the world and of the policy are joined one by one."""
    found = dict(first)
    for name, value in second.items():
        before = found.get(name)
        found[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def _latency_setting(latency_ms: float, settings: Settings) -> Settings:
    """What makes an inference take so long: on the wall clock it is padded."""
    if settings["clock"] == "virtual":
        return {"latency": f"constant:{latency_ms}"}
    argument = "latency_ms" if settings.get("policy") == "synthetic" else "pad_ms"
    return {"policy_args": {**settings.get("policy_args", {}), argument: latency_ms}}


def _with_delay(value: Any, delay: int | float | str | None, cell: str) -> Any:
    """`value` with numbers for what is said of the delay in it."""
    if isinstance(value, dict):
        return {key: _with_delay(item, delay, cell) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_delay(item, delay, cell) for item in value]
    found = _OF_DELAY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    if delay is None:
        raise ConfigError(f"{cell}: {value!r} is said of a delay, and the sweep has no delays")
    plus = int(found["plus"] or 0) * (-1 if found["sign"] == "-" else 1)
    return int(found["times"] or 1) * int(delay) + plus


def _name_of(axes: Axes) -> str:
    """world-agent-d5-learning_rate=0.001-s3"""
    short = {"world": "", "agent": "", "delay_ticks": "d", "latency_ms": "ms", "latency": "", "seed": "s"}
    words = [f"{short[axis]}{value}" if axis in short else f"{axis}={value}" for axis, value in axes.items()]
    name = "-".join(_UNSAFE.sub("-", word).strip("-.") for word in words)
    if len(name) > _LONGEST_NAME:
        raise ConfigError(f"a cell would be called {name}: expected at most {_LONGEST_NAME} characters; shorten names")
    return name


def _check_cell(cell: Cell) -> None:
    """At any tick rate: what depends on that is checked when the world is made."""
    try:
        config = cell.config(Fraction(60))
        if cell.episodes:
            cell.evaluation_config(Fraction(60))
    except ConfigError as error:
        raise ConfigError(f"cell {cell.name}: {error}") from error
    if (cell.learns or not cell.episodes) and config.timing.ticks is None:
        raise ConfigError(f"cell {cell.name}: nobody says how long it lasts; give `ticks`")
    if cell.learns and not cell.episodes:
        raise ConfigError(f"cell {cell.name}: it learns and is never judged; give `episodes` of 1 or more")
