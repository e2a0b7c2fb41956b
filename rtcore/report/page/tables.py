"""The page's tables: the numbers of one run or of several with their ratios, the settings, the machine. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rtcore.config.run import SETTINGS, RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.report.page.data import Samples, quantile
from rtcore.report.table import OUTCOME_MEANING, TICK_KIND_MEANING
from rtcore.results.folder import RunFolder, number_at

_TIMES = "\N{MULTIPLICATION SIGN}"

Getter = Callable[[RunFolder, Samples], float | None]


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, and against the first run's."""

    text: str
    ratio: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the table of numbers; without cells it is a heading."""

    label: str
    meaning: str = ""
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One setting over the runs. `changed[i]`: run i's value is not the default; `differs`: the runs disagree."""

    name: str
    values: tuple[str, ...]
    default: str
    changed: tuple[bool, ...]
    differs: bool
    meaning: str = ""


def numbers(runs: Sequence[RunFolder], samples: Sequence[Samples]) -> list[Line]:
    """Every number that at least one run has: from its summary, else from its rows."""
    lines: list[Line] = []
    for heading, rows in _TABLE:
        found = [line for row in rows if (line := _line(runs, samples, *row)) is not None]
        if found:
            lines += [Line(heading), *found]
    return lines


def _line(
    runs: Sequence[RunFolder], samples: Sequence[Samples], label: str, meaning: str, form: str, get: Getter
) -> Line | None:
    values = [get(run, sample) for run, sample in zip(runs, samples, strict=True)]
    known = [value if value is not None and not math.isnan(value) else None for value in values]
    if all(value is None for value in known):
        return None
    if form.endswith("?") and not any(known):
        return None
    return Line(label, meaning, tuple(Cell(_form(value, form), _ratio(value, known[0])) for value in known))


def _form(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    if form == "%":
        return f"{100 * value:.2f}%"
    digits = form.removesuffix("?")
    return f"{value:,.0f}" if digits == "n" else f"{value:,.{digits}f}"


def _ratio(value: float | None, first: float | None) -> str:
    if value is None or first is None or first == 0:
        return "-"
    ratio = value / first
    return f"{_TIMES}{ratio:.3g}" if ratio < 1000 else f"{_TIMES}{ratio:,.0f}"


def _from_summary(*path: str, rows: Callable[[Samples], float] | None = None) -> Getter:
    """The summary's number; of a run without one, what its rows give."""

    def get(run: RunFolder, samples: Samples) -> float | None:
        value = number_at(run.summary, *path)
        if value is None and rows is not None and not run.summary and (run.ticks or run.jobs):
            return rows(samples)
        return value

    return get


def _kind(name: str) -> Getter:
    return _from_summary("ticks", "kinds", name, rows=lambda samples: samples.kinds[name])


def _outcome(name: str) -> Getter:
    return _from_summary("actions", "outcomes", name, rows=lambda samples: samples.outcomes[name])


def _sum_of_workers(key: str) -> Getter:
    def get(run: RunFolder, samples: Samples) -> float | None:
        workers = run.summary.get("workers")
        values = [worker.get(key) for worker in workers] if isinstance(workers, list) else []
        known = [float(value) for value in values if isinstance(value, (int, float))]
        return sum(known) if known else None

    return get


def _points(samples: Samples) -> float:
    return sum(row.reward for row in samples.run.ticks)


def _points_per_1000_ticks(samples: Samples) -> float:
    return 1000 * _points(samples) / len(samples.run.ticks) if samples.run.ticks else math.nan


def _return_mean(samples: Samples) -> float:
    returns = [episode.total for episode in samples.episodes]
    return sum(returns) / len(returns) if returns else math.nan


def _cv(samples: Samples) -> float:
    values = samples.interval_ticks
    return float(values.std() / values.mean()) if len(values) and values.mean() else math.nan


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else math.nan


_TABLE: list[tuple[str, list[tuple[str, str, str, Getter]]]] = [
    (
        "Actions",
        [
            (
                "acted, of possible ticks",
                "acted / (acted + missed + idle)",
                "%",
                _from_summary("actions", "acted_fraction", rows=lambda s: s.acted_fraction),
            ),
            (
                "interval, mean [ticks]",
                "from one policy action to the next",
                "3",
                _from_summary("actions", "interval_ticks", "mean", rows=lambda s: _mean(s.interval_ticks)),
            ),
            (
                "interval, CV",
                "standard deviation / mean; 0 is perfectly even",
                "3",
                _from_summary("actions", "interval_ticks", "cv", rows=_cv),
            ),
            (
                "delay, p50 [ticks]",
                "frame to action",
                "0",
                _from_summary("actions", "delay_ticks", "p50", rows=lambda s: quantile(s.delay_ticks, 0.5)),
            ),
            (
                "delay, p99 [ticks]",
                "",
                "0",
                _from_summary("actions", "delay_ticks", "p99", rows=lambda s: quantile(s.delay_ticks, 0.99)),
            ),
            (
                "observation age, p50 [ms]",
                "age of the frame when its action was applied",
                "1",
                _from_summary(
                    "actions", "observation_age_ms", "p50", rows=lambda s: quantile(s.observation_age_ms, 0.5)
                ),
            ),
            (
                "observation age, p99 [ms]",
                "",
                "1",
                _from_summary(
                    "actions", "observation_age_ms", "p99", rows=lambda s: quantile(s.observation_age_ms, 0.99)
                ),
            ),
            ("delay changes", "the plan was adapted in the run", "n", _from_summary("actions", "delay_changes")),
            ("actions clipped", "outside the action space", "n?", _from_summary("actions", "clipped")),
        ],
    ),
    (
        "Ticks",
        [
            ("ran", "", "n", _from_summary("ticks", "count", rows=lambda s: len(s.run.ticks))),
            *((name.replace("_", "-"), meaning, "n", _kind(name)) for name, meaning in TICK_KIND_MEANING.items()),
            (
                "skipped",
                "did not run: the tick before took too long",
                "n",
                _from_summary("ticks", "skipped", rows=lambda s: s.skipped_ticks),
            ),
            ("overruns", "took longer than a period", "n", _from_summary("ticks", "overruns")),
            ("overruns of resets", "the same, of resets", "n", _from_summary("ticks", "reset_overruns")),
            ("stretched", "put off: the tick before took too long", "n?", _from_summary("ticks", "stretched")),
            ("stretched by [ms]", "in all", "1?", _from_summary("ticks", "stretched_ms")),
            ("per second", "", "4", _from_summary("ticks", "hz", rows=lambda s: s.measured_hz)),
            (
                "lateness, p50 [us]",
                "start of a tick after its deadline",
                "1",
                _from_summary("ticks", "lateness_us", "p50", rows=lambda s: quantile(s.lateness_us, 0.5)),
            ),
            (
                "lateness, p99 [us]",
                "",
                "1",
                _from_summary("ticks", "lateness_us", "p99", rows=lambda s: quantile(s.lateness_us, 0.99)),
            ),
            (
                "lateness, max [us]",
                "",
                "1",
                _from_summary("ticks", "lateness_us", "max", rows=lambda s: quantile(s.lateness_us, 1.0)),
            ),
            ("world's step, p50 [us]", "", "1", _from_summary("ticks", "world_step_us", "p50")),
            ("world's step, p99 [us]", "", "1", _from_summary("ticks", "world_step_us", "p99")),
        ],
    ),
    (
        "Inferences",
        [
            ("all", "", "n", _from_summary("actions", "jobs", rows=lambda s: len(s.run.jobs))),
            *((name.replace("_", " "), meaning, "n", _outcome(name)) for name, meaning in OUTCOME_MEANING.items()),
            (
                "starts skipped",
                "no worker was idle when one was to start",
                "n",
                _from_summary("actions", "skipped_starts"),
            ),
            ("inference, p50 [ms]", "from the rows", "1", lambda _, s: quantile(s.inference_ms, 0.5)),
            ("inference, p99 [ms]", "", "1", lambda _, s: quantile(s.inference_ms, 0.99)),
        ],
    ),
    (
        "Shared memory",
        [
            ("publish, p50 [us]", "cost of a frame to the env process", "1", _from_summary("ipc_us", "publish", "p50")),
            ("publish, p99 [us]", "", "1", _from_summary("ipc_us", "publish", "p99")),
            (
                "publish to read, p50 [us]",
                "until the worker has its own copy",
                "1",
                _from_summary("ipc_us", "publish_to_read", "p50"),
            ),
            ("publish to read, p99 [us]", "", "1", _from_summary("ipc_us", "publish_to_read", "p99")),
            (
                "answer to dispatch, p50 [us]",
                "from when it could be applied to when it was",
                "1",
                _from_summary("ipc_us", "write_to_dispatch", "p50"),
            ),
            ("answer to dispatch, p99 [us]", "", "1", _from_summary("ipc_us", "write_to_dispatch", "p99")),
        ],
    ),
    (
        "Run",
        [
            ("workers", "", "n", _from_summary("plan", "workers", rows=lambda s: s.run.num_workers)),
            ("worker restarts", "", "n", _sum_of_workers("restarts")),
            ("frames lapped", "overwritten before a worker had read them", "n?", _sum_of_workers("lapped_frames")),
            ("workers' memory [MB]", "proportional set size", "0", _sum_of_workers("pss_mb")),
            ("start-up [s]", "", "1", _from_summary("startup_s")),
            ("episodes", "that ended", "n", _from_summary("episodes", "count", rows=lambda s: len(s.episodes))),
            ("return, mean", "", "2", _from_summary("episodes", "return_mean", rows=_return_mean)),
            (
                "points",
                "sum of all rewards, those of the unfinished episode included",
                "2",
                _from_summary("episodes", "points", rows=_points),
            ),
            (
                "points per 1,000 ticks",
                "",
                "2",
                _from_summary("episodes", "points_per_1000_ticks", rows=_points_per_1000_ticks),
            ),
        ],
    ),
]


# -- settings and machine ----------------------------------------------------------------------------------


def settings(runs: Sequence[RunFolder]) -> list[Setting]:
    """Every setting of the runs beside its default; [] where no run has a readable config.json."""
    if not any(run.settings for run in runs):
        return []
    defaults = make_config().to_jsonable()
    names = list(dict.fromkeys([*defaults] + [name for run in runs for name in run.settings]))
    lines = []
    for name in names:
        texts = tuple(_value(run.settings[name]) if name in run.settings else "-" for run in runs)
        default = _value(defaults[name]) if name in defaults else "no such setting here"
        changed = tuple(_is_changed(run, name, defaults) for run in runs)
        info = SETTINGS.get(name)
        lines.append(
            Setting(
                name.replace("_", "-"), texts, default, changed, len(set(texts)) > 1, (info and info.description) or ""
            )
        )
    return sorted(lines, key=lambda line: not any(line.changed))


def _is_changed(run: RunFolder, name: str, defaults: dict[str, Any]) -> bool:
    """Whether the run's setting is not what it would have been if nobody had said anything.

    Some defaults follow from other settings (max-workers from workers, out from trace): they are not changes.
    """
    if name not in run.settings:
        return False
    if name not in defaults:
        return True
    if run.settings[name] == defaults[name]:
        return False
    others = {key: value for key, value in run.settings.items() if key != name}
    try:
        implied = RuntimeConfig.from_jsonable(others).to_jsonable()[name]
    except (ConfigError, TypeError):
        return True
    return bool(run.settings[name] != implied)


def machine(runs: Sequence[RunFolder]) -> list[Setting]:
    """Host, versions, command and what the kernel granted, one line each."""
    facts = [_facts(run) for run in runs]
    lines = []
    for name in dict.fromkeys(key for fact in facts for key in fact):
        texts = tuple(fact.get(name, "-") for fact in facts)
        lines.append(Setting(name, texts, "", tuple(False for _ in runs), len(set(texts)) > 1))
    return lines


def _facts(run: RunFolder) -> dict[str, str]:
    facts: dict[str, str] = {}
    for name in ("machine", "versions"):
        part = run.about.get(name)
        facts |= {key: _value(value) for key, value in part.items()} if isinstance(part, dict) else {}
    if run.about.get("git_revision"):
        facts["git revision"] = str(run.about["git_revision"])
    command = run.about.get("command")
    if isinstance(command, list):
        facts["command"] = " ".join(str(word) for word in command)
    environment = run.summary.get("environment")
    realtime = environment.get("realtime") if isinstance(environment, dict) else None
    facts |= {f"realtime: {key}": str(value) for key, value in realtime.items()} if isinstance(realtime, dict) else {}
    devices = [worker.get("device") for worker in run.summary.get("workers", []) if isinstance(worker, dict)]
    if devices:
        facts["devices"] = ", ".join(sorted({str(device) for device in devices}))
    return facts


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "none"
    return str(value)
