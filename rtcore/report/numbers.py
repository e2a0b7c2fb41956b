"""The numbers of a run's summary: what each is called, what it means and how it is written. For terminal and page.

A new number of the summary is one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from rtcore.report.wording import SKIPPED_MEANING, number, points, share
from rtcore.results.folder import number_at
from rtcore.results.part_ages import STALE_PERIODS
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Outcome, TickKind


class Row(NamedTuple):
    """A line of the terminal's summary."""

    label: str
    text: str
    style: str = ""


class Number(NamedTuple):
    """One number, or the quantiles of a distribution."""

    label: str
    where: str  #: in the summary: its keys, with dots between
    meaning: str = ""
    form: str = "n"  #: digits behind the point; n: a count; %: a share; points: a sum of rewards
    unit: str = ""
    quantiles: tuple[str, ...] = ()  #: keys of the distribution
    warns: bool = False  #: where there are any, somebody should know
    on_terminal: bool = True  #: else on the page only

    def of(self, summary: Mapping[str, Any]) -> float | None:
        return number_at(summary, *self.where.split("."))

    def text(self, value: float | None) -> str:
        """As people read it."""
        if self.form == "%":
            return share(value)
        return points(value) if self.form == "points" else number(value, 0 if self.form == "n" else int(self.form))

    def each(self) -> list[Number]:
        """The quantiles one by one, each with its name in the label; the number itself if it is none."""
        unit, plain = f" [{self.unit}]" if self.unit else "", self._replace(quantiles=(), unit="")
        if not self.quantiles:
            return [plain._replace(label=f"{self.label}{unit}")]
        return [
            plain._replace(label=f"{self.label}, {quantile_name(key)}{unit}", where=f"{self.where}.{key}")
            for key in self.quantiles
        ]

    def row(self, summary: Mapping[str, Any]) -> Row | None:
        """For the terminal; None of what did not occur."""
        label = f"{self.label}, {self.unit}" if self.unit else self.label
        if self.quantiles:
            known = [(key, quantile.of(summary)) for key, quantile in zip(self.quantiles, self.each(), strict=True)]
            text = "  ".join(f"{quantile_name(key)} {self.text(value)}" for key, value in known)
            return Row(label, text if any(value is not None for _, value in known) else "no sample")
        value = self.of(summary)
        if not value and (self.warns or (self.form == "n" and self.meaning)):
            return None
        text = f"{self.text(value):>9}  {self.meaning}".rstrip() if self.form == "n" else self.text(value)
        return Row(label, text, "yellow" if self.warns and value else "")


def with_workers(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary, and as `all_workers` what its workers have in common: the spread and the sum of their numbers."""
    listed = summary.get("workers")
    workers = [worker for worker in listed if isinstance(worker, dict)] if isinstance(listed, list) else []
    plain = ("inferences", "pss_mb", "restarts", "lapped_frames", "policy_errors")
    places: dict[str, tuple[str, ...]] = {key: (key,) for key in plain}
    places |= {key: ("inference_ms", key) for key in _P50_P99}
    together = {}
    for name, keys in places.items():
        if values := [value for worker in workers if (value := number_at(worker, *keys)) is not None]:
            spread = {"min": min(values), "median": median(values), "max": max(values)}
            together[name] = spread | {"sum": sum(values)}
    errors, inferences = (together.get(name, {}).get("sum", 0) for name in ("policy_errors", "inferences"))
    if errors and inferences:
        together["policy_errors"]["share"] = errors / inferences
    return {**summary, "all_workers": together}


def parts_in(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the summary says of each part of the observation that has a time stamp."""
    parts = summary.get("part_ages")
    return {name: part for name, part in parts.items() if isinstance(part, dict)} if isinstance(parts, dict) else {}


def part_rows(summary: Mapping[str, Any]) -> list[Row]:
    """The same for the terminal."""
    found = [
        (name, entry.row(part))
        for name, part in parts_in(summary).items()
        for entry in PART_NUMBERS
        if entry.on_terminal
    ]
    return [row._replace(label=f"{name}: {row.label}") for name, row in found if row is not None]


def quantile_name(key: str) -> str:
    """ "p999" is 99.9%."""
    return "p99.9" if key == "p999" else key


def rows_of(section: str, summary: Mapping[str, Any]) -> list[Row]:
    """A section's numbers for the terminal."""
    return [row for entry in NUMBERS[section] if entry.on_terminal and (row := entry.row(summary)) is not None]


_P50_P99, _TAIL, _IPC = ("p50", "p99"), ("p50", "p90", "p99", "p999", "max"), ("p50", "p99", "p999", "max")
_SPREAD, _OVER = ("min", "median", "max"), "over workers"
_POSSIBLE = "acted / (acted + missed + idle)"
_ALTERED = "steps in which the world wrote to its action: it acted on other numbers than recorded"
_LOST_REQUESTS = "applied actions are kept, what was asked for is not: the world did not say beforehand that it reports"
_STARVED = "the safe action acted: no fresh one had come for --starve-ms"
#: Tick kinds and outcomes that nobody needs to worry about.
FINE = ("acted", "lead_in", "reset", "idle", "on_time", "unfinished", "features_used")

#: Of one part of the observation.
PART_NUMBERS = [
    Number("age", "age_ms", "when its frame was published", "1", "ms", quantiles=("p50", "p99", "max")),
    Number("measured", "hz", "times a second", "2", "Hz"),
    Number("declared", "nominal_hz", "by the world", "2", "Hz", on_terminal=False),
    Number("stale", "stale_ticks", f"ticks at which it was older than {STALE_PERIODS} of its periods", warns=True),
]

#: By section. On the terminal, counts of what did not occur are left out if they have a meaning to explain.
NUMBERS: dict[str, list[Number]] = {
    "Ticks": [
        Number("ran", "ticks.count"),
        *(
            Number(kind, f"ticks.kinds.{kind}", TickKind[kind.upper()].meaning, warns=kind not in FINE)
            for kind in KIND_COUNTERS
        ),
        Number("starved", "ticks.starved", _STARVED, warns=True),
        Number("starved", "ticks.starvations", "times in all", warns=True),
        Number("skipped", "ticks.skipped", SKIPPED_MEANING, warns=True),
        Number("overruns", "ticks.overruns", "took longer than a period", warns=True),
        Number("reset overruns", "ticks.reset_overruns", "resets that took longer than a period", warns=True),
        Number("stretched", "ticks.stretched", "put off: the tick before took too long", warns=True),
        Number("stretched by", "ticks.stretched_ms", "in all", unit="ms", warns=True),
        Number("per second", "ticks.hz", form="4", on_terminal=False),
        Number(
            "lateness",
            "ticks.lateness_us",
            "after the deadline",
            "1",
            "us",
            quantiles=_TAIL,
        ),
        Number("world step", "ticks.world_step_us", "", "1", "us", quantiles=("p50", "p99", "max")),
        Number("world reset", "ticks.world_reset_ms", "", "2", "ms", quantiles=("p50", "max")),
        Number("garbage", "ticks.garbage.collections", "times collected, between ticks"),
        Number("garbage", "ticks.garbage.ms", "in all", unit="ms"),
        Number("garbage forced", "ticks.garbage.forced", "times in more time than there was"),
    ],
    "Actions": [
        Number("acted, of possible ticks", "actions.acted_fraction", _POSSIBLE, "%", on_terminal=False),
        Number("acted, of all ticks", "actions.acted_fraction_of_all_ticks", form="%"),
        Number("interval, mean [ticks]", "actions.interval_ticks.mean", "between actions", "3", on_terminal=False),
        Number("interval, CV", "actions.interval_ticks.cv", "0 is perfectly even", "3", on_terminal=False),
        Number("delay", "actions.delay_ticks", "frame to action", "0", "ticks", quantiles=_P50_P99, on_terminal=False),
        Number("frame age", "actions.observation_age_ms", "when its action was applied", "1", "ms", quantiles=_P50_P99),
        Number("jobs booked", "actions.jobs"),
        *(
            Number(name, f"actions.outcomes.{name}", Outcome[name.upper()].meaning, warns=name not in FINE)
            for name in OUTCOME_COUNTERS
        ),
        Number("explored", "actions.explored", "drawn at random, to explore"),
        Number("clipped", "actions.clipped", "policy actions outside the action space, clipped into it", warns=True),
        Number("altered", "actions.altered", _ALTERED, warns=True),
        Number("by a person", "actions.human", "ticks at which a person's action was applied"),
        Number("take-overs", "actions.take_overs", "times a person took the controls"),
        Number("by a shield", "actions.shield", "ticks at which the world's shield changed the action"),
        Number("limited", "actions.limited", "policy actions that --limit cut"),
        Number("requests lost", "actions.lost_requests", _LOST_REQUESTS, warns=True),
        Number("skipped starts", "actions.skipped_starts", "starts put off: no worker was idle", warns=True),
        Number("delay changes", "actions.delay_changes", "times the delay was planned anew", warns=True),
        Number("unknown entries", "actions.unknown_entries", "answers to no known job, ignored", warns=True),
    ],
    "World's clock": [
        Number("cycles", "world_clock.cycles"),
        Number(
            "lost", "world_clock.lost_cycles", "of the skipped ticks: the device gave no cycle for them", warns=True
        ),
        Number("per second", "world_clock.cycle_hz", form="4"),
        Number("drift", "world_clock.drift_ppm", "a cycle is longer than nominal", "1", "ppm"),
        Number("phase error", "world_clock.phase_error_us", "", "1", "us", quantiles=("p50", "p99", "max")),
    ],
    "Shared memory": [
        Number("publish", "ipc_us.publish", "cost of a frame to the env process", "1", "us", quantiles=_IPC),
        Number("frame to worker", "ipc_us.publish_to_read", "until it has its own copy", "1", "us", quantiles=_IPC),
        Number("action to dispatch", "ipc_us.write_to_dispatch", "since it was there", "1", "us", quantiles=_IPC),
    ],
    "Workers": [
        Number("workers", "plan.workers", on_terminal=False),
        Number("inferences", "all_workers.inferences", _OVER, "0", "", quantiles=_SPREAD),
        Number("inference p50", "all_workers.p50", _OVER, "1", "ms", quantiles=_SPREAD),
        Number("inference p99", "all_workers.p99", _OVER, "1", "ms", quantiles=_SPREAD),
        Number("memory PSS", "all_workers.pss_mb", _OVER, "1", "MB", quantiles=_SPREAD),
        Number("memory PSS, all", "all_workers.pss_mb.sum", "MB together"),
        Number("restarts", "all_workers.restarts.sum", on_terminal=False),
        Number("lapped frames", "all_workers.lapped_frames.sum", "overwritten before they were read", warns=True),
        Number("policy errors", "all_workers.policy_errors.sum", "raised, and gave no action", warns=True),
        Number("policy errors, share", "all_workers.policy_errors.share", "of inferences", "%", warns=True),
        Number("start-up", "startup_s", form="1", unit="s", on_terminal=False),
    ],
    "Head": [
        Number("answers", "head.inferences"),
        Number("inference", "head.inference_ms", "", "1", "ms", quantiles=("p50", "p99", "max")),
        Number("acted", "head.acted_ticks", "ticks, on the newest frame"),
        Number("base action", "head.base_ticks", "ticks: the head's was not there, a worker's stood in", warns=True),
        Number("restarts", "head.restarts", "of the head", warns=True),
        Number("policy errors", "head.policy_errors", "raised, and gave no action", warns=True),
    ],
    "Episodes": [
        Number("episodes", "episodes.count"),
        Number("mean return", "episodes.return_mean", form="3"),
        Number("points", "episodes.points", "of all ticks, whether their episode ended or not", "points"),
        Number("points per 1,000 ticks", "episodes.points_per_1000_ticks", form="1"),
    ],
    "Learner": [
        Number("updates", "learner.updates"),
        Number("updates a second", "learner.updates_per_s", form="1"),
        Number("learners", "learner.learners"),
        Number("weights' version", "learner.version"),
        Number("best mean return", "learner.best_return", form="2"),
        Number("loss", "learner.loss", "of the newest updates", "4"),
        Number("mean Q", "learner.q_mean", form="3"),
        Number("gradient norm", "learner.grad_norm", form="3"),
        Number("epsilon", "learner.epsilon", form="3"),
        Number("updates behind", "learner.version_diff", form="1", quantiles=("min", "avg", "max")),
        Number("checkpoints", "learner.checkpoints"),
        Number("failed checkpoints", "learner.failed_checkpoints", "could not be written", warns=True),
        Number("yields", "learner.yields", "pauses for the ticks' sake", warns=True),
        Number("yielded", "learner.yielded_s", "in all", unit="s", warns=True),
        Number("lapped samples", "learner.lapped_samples", "overwritten while read, drawn again", warns=True),
        Number("skipped publications", "learner.skipped_publications", "every buffer was in use", warns=True),
        Number("restarts", "learner.restarts", "of learners", warns=True),
    ],
}
