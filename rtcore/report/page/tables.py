"""The page's tables: the numbers of one run or of several with their ratios, the settings, the machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rtcore.config.run import SETTINGS, RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.report.page.data import Samples, quantile
from rtcore.report.table import OUTCOME_MEANING, TICK_KIND_MEANING
from rtcore.results.folder import RunFolder, number_at

_TIMES = "\N{MULTIPLICATION SIGN}"


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


def numbers(samples: Sequence[Samples]) -> list[Line]:
    """Every number that at least one run has."""
    found, lines = [_numbers_of(sample) for sample in samples], []
    for heading, rows in _TABLE:
        known = [line for row in rows if (line := _line(found, *row)) is not None]
        lines += [Line(heading), *known] if known else []
    return lines


def _line(runs: Sequence[dict[str, Any]], label: str, meaning: str, form: str, where: str) -> Line | None:
    values = [number_at(run, *where.split(".")) for run in runs]
    if all(value is None for value in values) or (form.endswith("?") and not any(values)):
        return None
    return Line(label, meaning, tuple(Cell(_form(value, form), _ratio(value, values[0])) for value in values))


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


def _numbers_of(samples: Samples) -> dict[str, Any]:
    """The summary, the sums over its workers, and what only the rows tell."""
    workers = samples.summary.get("workers")
    known = [worker for worker in workers if isinstance(worker, dict)] if isinstance(workers, list) else []
    sums = {key: _sum(worker.get(key) for worker in known) for key in ("restarts", "lapped_frames", "pss_mb")}
    rows = {"inference_ms": {f"p{percent}": quantile(samples.inference_ms, percent / 100) for percent in (50, 99)}}
    return samples.summary | {"all_workers": sums, "rows": rows}


def _sum(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if isinstance(value, (int, float))]
    return sum(known) if known else None


#: Heading, and its rows: label, meaning, form, and where the number is in `_numbers_of` a run.
#: Forms: digits behind the point, n for whole numbers, % for shares; with ? the row is left out where all are 0.
_TABLE: list[tuple[str, list[tuple[str, str, str, str]]]] = [
    (
        "Actions",
        [
            ("acted, of possible ticks", "acted / (acted + missed + idle)", "%", "actions.acted_fraction"),
            ("interval, mean [ticks]", "from one policy action to the next", "3", "actions.interval_ticks.mean"),
            ("interval, CV", "standard deviation / mean; 0 is perfectly even", "3", "actions.interval_ticks.cv"),
            ("delay, p50 [ticks]", "frame to action", "0", "actions.delay_ticks.p50"),
            ("delay, p99 [ticks]", "", "0", "actions.delay_ticks.p99"),
            (
                "observation age, p50 [ms]",
                "of the frame when its action was applied",
                "1",
                "actions.observation_age_ms.p50",
            ),
            ("observation age, p99 [ms]", "", "1", "actions.observation_age_ms.p99"),
            ("delay changes", "the plan was adapted in the run", "n", "actions.delay_changes"),
            ("actions clipped", "outside the action space", "n?", "actions.clipped"),
        ],
    ),
    (
        "Ticks",
        [
            ("ran", "", "n", "ticks.count"),
            *(
                (kind.replace("_", "-"), meaning, "n", f"ticks.kinds.{kind}")
                for kind, meaning in TICK_KIND_MEANING.items()
            ),
            ("skipped", "did not run: the tick before took too long", "n", "ticks.skipped"),
            ("overruns", "took longer than a period", "n", "ticks.overruns"),
            ("overruns of resets", "the same, of resets", "n", "ticks.reset_overruns"),
            ("stretched", "put off: the tick before took too long", "n?", "ticks.stretched"),
            ("stretched by [ms]", "in all", "1?", "ticks.stretched_ms"),
            ("per second", "", "4", "ticks.hz"),
            ("lateness, p50 [us]", "start of a tick after its deadline", "1", "ticks.lateness_us.p50"),
            ("lateness, p99 [us]", "", "1", "ticks.lateness_us.p99"),
            ("lateness, max [us]", "", "1", "ticks.lateness_us.max"),
            ("world's step, p50 [us]", "", "1", "ticks.world_step_us.p50"),
            ("world's step, p99 [us]", "", "1", "ticks.world_step_us.p99"),
        ],
    ),
    (
        "Inferences",
        [
            ("all", "", "n", "actions.jobs"),
            *(
                (name.replace("_", " "), meaning, "n", f"actions.outcomes.{name}")
                for name, meaning in OUTCOME_MEANING.items()
            ),
            ("starts skipped", "no worker was idle when one was to start", "n", "actions.skipped_starts"),
            ("inference, p50 [ms]", "from the rows", "1", "rows.inference_ms.p50"),
            ("inference, p99 [ms]", "", "1", "rows.inference_ms.p99"),
        ],
    ),
    (
        "Shared memory",
        [
            ("publish, p50 [us]", "cost of a frame to the env process", "1", "ipc_us.publish.p50"),
            ("publish, p99 [us]", "", "1", "ipc_us.publish.p99"),
            ("publish to read, p50 [us]", "until the worker has its own copy", "1", "ipc_us.publish_to_read.p50"),
            ("publish to read, p99 [us]", "", "1", "ipc_us.publish_to_read.p99"),
            (
                "answer to dispatch, p50 [us]",
                "from when it could be applied",
                "1",
                "ipc_us.write_to_dispatch.p50",
            ),
            ("answer to dispatch, p99 [us]", "", "1", "ipc_us.write_to_dispatch.p99"),
        ],
    ),
    (
        "Run",
        [
            ("workers", "", "n", "plan.workers"),
            ("worker restarts", "", "n", "all_workers.restarts"),
            ("frames lapped", "overwritten before a worker had read them", "n?", "all_workers.lapped_frames"),
            ("workers' memory [MB]", "proportional set size", "0", "all_workers.pss_mb"),
            ("start-up [s]", "", "1", "startup_s"),
            ("episodes", "that ended", "n", "episodes.count"),
            ("return, mean", "", "2", "episodes.return_mean"),
            ("points", "sum of all rewards, those of the unfinished episode included", "2", "episodes.points"),
            ("points per 1,000 ticks", "", "2", "episodes.points_per_1000_ticks"),
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
                name=name.replace("_", "-"),
                values=texts,
                default=default,
                changed=changed,
                differs=len(set(texts)) > 1,
                meaning=(info and info.description) or "",
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
