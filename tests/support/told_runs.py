"""Runs made up of rows, and what is told of their ticks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rtcore.results.explain import explain_tick
from rtcore.results.folder import RunFolder
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.scheduling.dispatch import Outcome, TickKind

MS = 1_000_000


PERIOD_NS = 10 * MS


EPOCH_NS = 5_000 * MS


DELAY = 3


def tick(number: int, kind: TickKind = TickKind.ACTED, job: InferenceRow | None = None, **fields: Any) -> TickRow:
    late_us = fields.pop("lateness_us", 2.0)
    row = TickRow(
        tick=number,
        kind=kind,
        source={TickKind.ACTED: "policy", TickKind.RESET: "held", TickKind.LEAD_IN: "held"}.get(kind, "noop"),
        applied_action="" if kind in (TickKind.RESET, TickKind.LEAD_IN) else "1",
        requested_action="1" if kind is TickKind.ACTED else "",
        obs_tick=job.obs_tick if job else -1,
        due_tick=job.due_tick if job else -1,
        delay_ticks=number - job.obs_tick if job else -1,
        worker=job.worker if job else -1,
        outcome=job.outcome if job else None,
        lateness_us=late_us,
        step_us=500.0,
        skipped_ticks=0,
        reward=0.0,
        terminated=False,
        truncated=False,
        episode=0,
        episode_return=0.0,
        policy_version=-1,
        policy_checksum="",
        start_ns=EPOCH_NS + number * PERIOD_NS + round(late_us * 1000),
    )
    return row._replace(**fields)


def inference(
    booked: int,
    worker: int = -1,
    *,
    outcome: Outcome = Outcome.ON_TIME,
    at: int | None = None,
    took_ms: float = 25.0,
    woke_ms: float = 0.0,
    wrote_ms: float = 0.01,
    step_ms: float = 0.5,
    hold: bool = True,
) -> InferenceRow:
    """Round robin over 3 workers unless `worker` is given."""
    published_ns = EPOCH_NS + booked * PERIOD_NS + round(step_ms * MS) + 2_000
    start_ns = published_ns + (round(woke_ms * MS) or -100_000)
    read_ns = published_ns + round(woke_ms * MS) + 100_000
    infer_end_ns = read_ns + round(took_ms * MS)
    return InferenceRow(
        worker=booked % 3 if worker < 0 else worker,
        obs_tick=booked,
        booked_tick=booked,
        due_tick=booked + DELAY if hold else -1,
        episode=0,
        outcome=outcome,
        resolved_tick=booked + DELAY if at is None else at,
        inference_ms=(infer_end_ns - read_ns) / MS,
        booked_ns=EPOCH_NS + booked * PERIOD_NS,
        start_ns=start_ns,
        read_ns=read_ns,
        infer_end_ns=infer_end_ns,
        write_ns=infer_end_ns + round(wrote_ms * MS),
    )


def unanswered(job: InferenceRow, outcome: Outcome, at: int) -> InferenceRow:
    times = dict.fromkeys(("booked_ns", "start_ns", "read_ns", "infer_end_ns", "write_ns"), 0)
    return job._replace(outcome=outcome, resolved_tick=at, obs_tick=-1, episode=-1, **times)


def run_of(
    ticks: dict[int, TickRow], jobs: dict[int, InferenceRow | None], num_ticks: int = 40, **settings: Any
) -> RunFolder:
    """A smooth max-time run of 3 workers in which the given ticks and jobs (by booked tick) are otherwise."""
    booked = {number: inference(number) for number in range(num_ticks - DELAY)} | jobs
    rows = {0: tick(0, TickKind.RESET), 1: tick(1, TickKind.LEAD_IN), 2: tick(2, TickKind.LEAD_IN)}
    for number in range(3, num_ticks):
        rows[number] = tick(number, job=booked.get(number - DELAY))
    rows |= ticks
    present = [row for row in rows.values() if row is not None]
    about = {"config": {"stagger": "max-time", "chunk": 1, **settings}}
    summary = {"plan": {"workers": 3, "stride_ticks": 1}}
    kept = sorted((job for job in booked.values() if job is not None), key=lambda job: job.resolved_tick)
    return RunFolder(Path("made"), about, summary, present, kept)


def text_of(run: RunFolder, number: int) -> str:
    return "\n".join(f"{fact.label}: {fact.text}" for fact in explain_tick(run, number))


def without(run: RunFolder, *numbers: int) -> RunFolder:
    """The run with these ticks not run, as the tick after them says."""
    rows = [
        row._replace(skipped_ticks=len(numbers)) if row.tick == max(numbers) + 1 else row
        for row in run.ticks
        if row.tick not in numbers
    ]
    return replace(run, ticks=rows)


def says(text: str, *phrases: str) -> None:
    for phrase in phrases:
        assert phrase in text, f"{phrase!r} not in:\n{text}"
