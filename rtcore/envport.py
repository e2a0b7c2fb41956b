"""The env process's side of the shared memory: the `Workers` and the `Recorder` of a real run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import posix_ipc

from rtcore.dispatch import Entry, Resolution, TickKind
from rtcore.schedule import Job, Schedule
from rtcore.shared import SharedRun
from rtcore.tickloop import Answer, TickRecord

#: Counter of each tick kind and outcome, in the order of the enums.
_KIND_COUNTERS = ("acted", "missed", "idle", "lead_in", "reset")
_OUTCOME_COUNTERS = (
    "on_time",
    "late",
    "superseded",
    "stale_episode",
    "dropped_dead_worker",
    "dropped_late",
    "unfinished",
)


class SharedWorkers:
    """Worker processes behind job records, slots and semaphores. Implements `tickloop.Workers`.

    `num_workers` processes are taken to be up; the first `membership` corrects that.
    """

    def __init__(
        self,
        shared: SharedRun,
        semaphores: Sequence[posix_ipc.Semaphore],
        num_workers: int,
        *,
        chunk: int,
        phase_seq: int,
        spinning: bool,
    ) -> None:
        self._shared = shared
        self._slots = shared.slots
        self._semaphores = semaphores
        self._chunk = chunk
        self._phase_seq = phase_seq
        self._spinning = spinning
        self._waiting: dict[int, tuple[Job, int, int]] = {}
        self._seen_entry = [shared.slots.newest(worker) for worker in range(shared.layout.max_workers)]
        self._up = {worker: shared.worker_control[worker]["generation"] for worker in range(num_workers)}
        self._membership_seen = -1
        self.unknown_entries = 0

    def collect(self, tick: int) -> Iterable[Entry]:
        found: list[Entry] = []
        for worker, (job, job_seq, booked_ns) in list(self._waiting.items()):
            entry_seq = self._slots.newest(worker)
            if entry_seq == self._seen_entry[worker]:
                continue
            self._seen_entry[worker] = entry_seq
            answer = self._slots.read(worker, entry_seq)
            if answer is None or answer[0].job_seq != job_seq:
                self.unknown_entries += 1
                continue
            slot, actions = answer
            del self._waiting[worker]
            payload = Answer(
                actions,
                worker,
                booked_ns,
                slot.frame_publish_ns,
                slot.start_ns,
                slot.read_ns,
                slot.infer_end_ns,
                slot.write_ns,
                slot.cpu_ns,
                slot.policy_version,
                slot.clipped,
            )
            found.append(Entry(job, slot.obs_tick, slot.episode, self._chunk, payload))
        return found

    def membership(self) -> Iterable[tuple[int, bool]]:
        seq = self._shared.run_control["membership_seq"]
        if seq == self._membership_seen:
            return ()
        self._membership_seen = seq
        changes: list[tuple[int, bool]] = []
        for worker, control in enumerate(self._shared.worker_control):
            generation = control["generation"] if control["up"] else None
            known = self._up.get(worker)
            if generation == known:
                continue
            if known is not None:
                # Down, or back already as a new process: either way its job is lost.
                changes.append((worker, False))
                self._waiting.pop(worker, None)
                del self._up[worker]
            if generation is not None:
                changes.append((worker, True))
                self._up[worker] = generation
                self._seen_entry[worker] = self._slots.newest(worker)
        return changes

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        board, frame_seq = self._shared.jobs, self._shared.ring.next_seq
        for job in jobs:
            worker = job.worker
            fields = (
                job.obs_tick,
                job.due_tick,
                frame_seq,
                int(job.hold),
                booked_ns,
                self._phase_seq,
                self._up.get(worker, 0),
            )
            self._waiting[worker] = (job, board.post(worker, fields), booked_ns)
            self._wake(worker)

    def publish(self, frame: Any, header: tuple[Any, ...], action: bytes) -> int:
        return self._shared.ring.publish(frame, header, action)

    def announce(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._wake(job.worker)

    @property
    def num_waiting(self) -> int:
        """Jobs that are out."""
        return len(self._waiting)

    def _wake(self, worker: int) -> None:
        if not self._spinning:
            self._semaphores[worker].release()


class SharedRecorder:
    """Counters and histograms in shared memory and the job log. Implements `tickloop.Recorder`."""

    def __init__(self, shared: SharedRun, schedule: Schedule, period_ns: int, phase_seq: int) -> None:
        self._counters = shared.env_counters
        self._status = shared.env_status
        self._log = shared.log
        self._schedule = schedule
        self._period_ns = period_ns
        self._phase_seq = phase_seq
        self._counters.clear()
        for histogram in shared.env_histograms.values():
            histogram.clear()
        self._histograms = shared.env_histograms
        self._lateness = shared.env_histograms["lateness_ns"]
        self._step = shared.env_histograms["step_ns"]
        self._reset = shared.env_histograms["reset_ns"]
        self._publish = shared.env_histograms["publish_ns"]

    def begin_tick(self, tick: int, now_ns: int) -> None:
        self._status["tick"] = tick
        self._status["heartbeat_ns"] = now_ns

    def end_tick(self, record: TickRecord) -> None:
        counters, plan = self._counters, record.plan
        if counters["ticks"] == 0:
            counters["first_start_ns"] = record.start_ns
        counters["last_start_ns"] = record.start_ns
        counters.add("ticks")
        counters.add(_KIND_COUNTERS[record.kind])
        counters.add("skipped_ticks", plan.skipped_ticks)
        if record.end_ns - plan.deadline_ns > self._period_ns:
            counters.add("overruns")
        self._lateness.add(record.start_ns - plan.deadline_ns)
        (self._reset if record.kind is TickKind.RESET else self._step).add(record.step_ns)
        self._publish.add(record.end_ns - record.publish_ns)
        schedule, status = self._schedule, self._status
        counters["skipped_starts"] = schedule.skipped_starts
        counters["replans"] = schedule.replans
        status["delay_ticks"] = schedule.delay_ticks
        status["stride_ticks"] = schedule.stride_ticks
        status["num_up"] = schedule.num_up
        if record.entry is not None:
            self._policy_tick(record, record.entry.payload)

    def job_ended(self, resolution: Resolution) -> None:
        self._counters.add("jobs")
        self._counters.add(_OUTCOME_COUNTERS[resolution.outcome])
        job, entry = resolution.job, resolution.entry
        if entry is None:
            times, obs_tick, episode = (0, 0, 0, 0, 0, 0), -1, -1
        else:
            answer: Answer = entry.payload
            times = (
                answer.booked_ns,
                answer.start_ns,
                answer.read_ns,
                answer.infer_end_ns,
                answer.write_ns,
                answer.cpu_ns,
            )
            obs_tick, episode = entry.obs_tick, entry.episode
            self._counters.add("clipped_actions", answer.clipped)
        self._log.append(
            (
                job.worker,
                obs_tick,
                job.obs_tick,
                job.due_tick,
                int(job.hold),
                episode,
                int(resolution.outcome),
                resolution.tick,
                *times,
                self._phase_seq,
            )
        )

    def episode_ended(self, episode_return: float, episode_ticks: int) -> None:
        self._counters.add("episodes")

    def _policy_tick(self, record: TickRecord, answer: Answer) -> None:
        histograms = self._histograms
        if record.interval_ticks >= 0:
            histograms["interval_ticks"].add(record.interval_ticks)
        histograms["delay_ticks"].add(record.delay_ticks)
        histograms["observation_age_ns"].add(record.dispatch_ns - answer.frame_publish_ns)
        if record.first_use:
            ready_ns = max(answer.write_ns, record.due_deadline_ns)
            histograms["write_to_dispatch_ns"].add(record.dispatch_ns - ready_ns)
