"""The page's tables: the numbers of one run or of several with their ratios, the settings, the machine. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rtcore.config.run import SETTINGS, RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.report.numbers import NUMBERS, PART_NUMBERS, Number, parts_in, with_workers
from rtcore.report.page.data import RunDistributions
from rtcore.results.folder import RunFolder

_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class ShownNumber:
    """A number as it is shown, and against the first run's."""

    text: str
    ratio: str = ""


@dataclass(frozen=True)
class TableLine:
    """A row of the table of numbers; without cells it is a heading."""

    label: str
    meaning: str = ""
    cells: tuple[ShownNumber, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One setting over the runs. `changed[i]`: run i's value is not the default; `differs`: the runs disagree."""

    name: str
    values: tuple[str, ...]
    default: str
    changed: tuple[bool, ...]
    differs: bool
    meaning: str = ""


def numbers(samples: Sequence[RunDistributions]) -> list[TableLine]:
    """Every number that at least one run has."""
    found = [with_workers(sample.summary) for sample in samples]
    lines = [line for heading, entries in NUMBERS.items() for line in _section(heading, entries, found)]
    parts = [parts_in(run) for run in found]
    for name in dict.fromkeys(name for of_run in parts for name in of_run):
        lines += _section(f"Part {name}", PART_NUMBERS, [of_run.get(name, {}) for of_run in parts])
    return lines


def _section(heading: str, entries: Sequence[Number], runs: Sequence[Mapping[str, Any]]) -> list[TableLine]:
    known = [line for entry in entries for one in entry.each() if (line := _line(runs, one)) is not None]
    return [TableLine(heading), *known] if known else []


def _line(runs: Sequence[Mapping[str, Any]], entry: Number) -> TableLine | None:
    values = [entry.of(run) for run in runs]
    if all(value is None for value in values):
        return None
    cells = tuple(ShownNumber(entry.text(value), _ratio(value, values[0])) for value in values)
    return TableLine(entry.label.replace("_", " "), entry.meaning, cells)


def _ratio(value: float | None, first: float | None) -> str:
    if value is None or first is None or first == 0:
        return "-"
    ratio = value / first
    return f"{_TIMES}{ratio:.3g}" if ratio < 1000 else f"{_TIMES}{ratio:,.0f}"


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
