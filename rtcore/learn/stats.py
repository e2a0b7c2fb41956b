"""Statistics of learning, read from the learners' segment."""

from __future__ import annotations

import math
from typing import Any

from rtcore.config.run import RuntimeConfig
from rtcore.errors import key_of
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.memory.master import STOPPED_BY, LearnerState, MasterState
from rtcore.memory.weights import ParamStore
from rtcore.results.summary import LearnerStats

_NUMBERS = ("loss", "td_error", "q_mean", "grad_norm")


def learner_stats(config: RuntimeConfig, master: MasterState, store: ParamStore, ticks: int) -> LearnerStats:
    """The statistics in the segment, `ticks` after learning began. The supervisor adds rate and restarts."""
    statuses, updates = master.status, master.commit.updates
    newest = max(statuses, key=lambda status: status["updates"])
    made = [status for status in statuses if status["updates"]]
    sum_diffs, sum_made = (sum(status[name] for status in made) for name in ("version_diff_sum", "updates"))
    diff = (
        (
            float(min(status["version_diff_min"] for status in made)),
            sum_diffs / sum_made,
            float(max(status["version_diff_max"] for status in made)),
        )
        if made
        else (math.nan, math.nan, math.nan)
    )
    numbers = {name: newest.float_of(name) if made else math.nan for name in _NUMBERS}
    return LearnerStats(
        algorithm=config.learning.learn or "",
        mode=config.learning.mode,
        learners=len(statuses),
        updates=updates,
        updates_per_s=math.nan,
        version=store.newest_version(),
        loss=numbers["loss"],
        td_error=numbers["td_error"],
        q_mean=numbers["q_mean"],
        grad_norm=numbers["grad_norm"],
        epsilon=EpsilonSchedule.of(config.exploration).epsilon(ticks),
        version_diff=diff,
        transitions=max(status["transitions"] for status in statuses),
        learning_starts=config.learning.learning_starts,
        lapped_samples=sum(status["lapped_samples"] for status in statuses),
        skipped_publications=sum(status["publish_skipped"] for status in statuses),
        yields=sum(status["yields"] for status in statuses),
        yielded_s=sum(status["yielded_ns"] for status in statuses) / 1e9,
        restarts=sum(control["restarts"] for control in master.control),
        stopped=why_stopped(master),
        places=[_place(master, index) for index in range(len(statuses))],
    )


def why_stopped(master: MasterState) -> str:
    """Which number was not finite, and at which update; "" while learning goes on."""
    for index, status in enumerate(master.status):
        if status["stopped_at"]:
            what, number = STOPPED_BY.get(status["stopped_by"], STOPPED_BY[1])
            return f"{what} was {status.float_of(number):g} at update {status['stopped_at']} of learner {index}"
    return ""


def _place(master: MasterState, index: int) -> dict[str, Any]:
    status, made = master.status[index], master.status[index]["updates"]
    return {
        "index": index,
        "pid": status["pid"],
        "state": key_of(LearnerState(status["state"])),
        "updates": made,
        "publications": status["publications"],
        "publish_skipped": status["publish_skipped"],
        "transitions": status["transitions"],
        "lapped_samples": status["lapped_samples"],
        "restarts": master.control[index]["restarts"],
        "yields": status["yields"],
        "yielded_s": status["yielded_ns"] / 1e9,
        "cpu_s": status["learning_ns"] / 1e9,
        "version_diff_avg": status["version_diff_sum"] / made if made else math.nan,
        "policy_lag": status.float_of("policy_lag"),
    }
