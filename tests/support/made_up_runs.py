"""Made-up runs, tick by tick, for what draws and counts them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from rtcore.clock import NS_PER_S
from rtcore.memory.counters import Histogram
from rtcore.memory.layout import ENV_COUNTERS, ENV_HISTOGRAMS, FrameHeader
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunHeader, RunStats, WorkerStats
from rtcore.scheduling.dispatch import Outcome, TickKind
from rtcore.scheduling.jobs import JobRow
from rtcore.scheduling.planner import Tau, make_plan

PERIOD_NS = NS_PER_S // 50


NUM_TICKS = 40


REALTIME = {"SCHED_FIFO 20": "refused: Operation not permitted", "mlockall": "granted"}


POLICY = "synthetic latency 70 ms, no parameters, cpu"


def made_up_run(
    workers: int = 4, delay: int = 4, policy: str = POLICY, dead: int | None = None
) -> tuple[RunStats, RunRecord]:
    """40 ticks at 50 Hz: worker k % N starts at tick k, answers half a tick early; `dead` never does."""
    record = RunRecord(None, lambda raw: raw)
    counters = dict.fromkeys(ENV_COUNTERS.fields, 0)
    shapes = {name: Histogram() for name in ENV_HISTOGRAMS}
    for tick in range(NUM_TICKS):
        worker = (tick - delay) % workers
        lost = worker == dead
        kind = TickKind.RESET if tick == 0 else TickKind.LEAD_IN
        if tick >= delay:
            kind = TickKind.MISSED if lost else TickKind.ACTED
            outcome = Outcome.DROPPED_DEAD_WORKER if lost else Outcome.ON_TIME
            record.add_job(made_up_job(len(record.jobs), worker, tick - delay, tick, outcome))
            counters[outcome.name.lower()] += 1
        if kind is TickKind.ACTED:
            shapes["interval_ticks"].add(1)
            shapes["delay_ticks"].add(delay)
        counters[kind.name.lower()] += 1
        shapes["lateness_ns"].add(4000 + 100 * tick)
        record.add_tick(made_up_tick(tick, kind, worker, delay), b"")
    counters |= {"ticks": NUM_TICKS, "jobs": len(record.jobs), "first_start_ns": 0}
    counters["last_start_ns"] = (NUM_TICKS - 1) * PERIOD_NS
    return made_up_stats(workers, delay, policy, counters, shapes), record


def made_up_job(seq: int, worker: int, booked: int, tick: int, outcome: Outcome) -> JobRow:
    row = JobRow(seq, worker, booked, booked, tick, hold=1, episode=0, outcome=outcome, tick=tick, phase_seq=1)
    if outcome is Outcome.DROPPED_DEAD_WORKER:
        return row
    booked_ns, write_ns = booked * PERIOD_NS, tick * PERIOD_NS - PERIOD_NS // 2
    start_ns = booked_ns + 1000
    return row._replace(
        booked_ns=booked_ns, start_ns=start_ns, read_ns=start_ns, infer_end_ns=write_ns, write_ns=write_ns
    )


def made_up_tick(tick: int, kind: TickKind, worker: int, delay: int) -> FrameHeader:
    deadline_ns = tick * PERIOD_NS
    acted = {"worker": worker, "obs_tick": tick - delay, "due_tick": tick, "chunk_index": 0, "outcome": 0}
    return FrameHeader(
        frame_seq=tick,
        tick=tick,
        deadline_ns=deadline_ns,
        start_ns=deadline_ns + 4000,
        publish_ns=deadline_ns + 9000,
        step_ns=5000,
        kind=kind,
        episode_ticks=tick,
        dispatch_ns=deadline_ns,
        phase_seq=1,
        **(acted | {"policy_version": 0} if kind is TickKind.ACTED else {}),
    )


def made_up_stats(
    workers: int, delay: int, policy: str, counters: dict[str, int], shapes: dict[str, Histogram]
) -> RunStats:
    took = Histogram()
    took.add(70_000_000)
    rate_hz = Fraction(50)
    tau = Tau.of([(delay * PERIOD_NS) - PERIOD_NS // 2], [0])
    plan = make_plan("max-time", tau, rate_hz, workers=workers, max_workers=128, guard_ns=0, device_parallelism=2.0)
    places = [
        WorkerStats(index, 100 + index, "cpu", 9, took.snapshot(), took.snapshot(), 0, 0, float("nan"))
        for index in range(workers)
    ]
    return RunStats(
        plan=plan,
        rate_hz=rate_hz,
        clock="wall",
        counters=counters,
        distributions={name: shape.snapshot() for name, shape in shapes.items()},
        workers=places,
        episodes=[],
        policy=policy,
        env={"env_id": "Toy-v0"},
        delay_ticks=delay,
        stride_ticks=1,
        num_up=workers,
    )


def header_of(stats: RunStats) -> RunHeader:
    return RunHeader("run-1", "Toy-v0", 50.0, stats.policy, "max-time", stats.plan.workers, "cpu", 80, "wall", REALTIME)


def made_up_run_with_head() -> tuple[RunStats, RunRecord]:
    """A head in place 16 beside a trunk of 4 workers: it acts at all ticks but each fifth, where a base action does."""
    stats, trunk = made_up_run()
    record, head = RunRecord(None, lambda raw: raw), stats.workers[0]
    for header in trunk.ticks:
        acted = header.kind == TickKind.ACTED
        if acted and header.tick % 5:
            about = {"features_tick": header.obs_tick, "features_worker": header.worker}
            record.add_tick(header._replace(worker=16, obs_tick=header.tick - 1, **about), b"")
            job = made_up_job(len(record.jobs), 16, header.tick - 1, header.tick, Outcome.ON_TIME)
            record.add_job(job._replace(write_ns=job.booked_ns + 2_000_000))
        else:
            record.add_tick(header, b"")
        if acted:
            outcome = Outcome.FEATURES_USED if header.tick % 5 else Outcome.ON_TIME
            record.add_job(made_up_job(len(record.jobs), header.worker, header.obs_tick, header.tick, outcome))
    head_actions = sum(header.features_tick >= 0 for header in record.ticks)
    counters = stats.counters | {"head_actions": head_actions}
    return replace(stats, counters=counters, head=replace(head, index=16, restarts=1)), record
