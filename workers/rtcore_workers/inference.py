"""A worker process: wait for a job, read its frame, run the policy, write the answer.

Owns: its action slots, its status, its histograms. Reads: its job record, the ring. Exits: on STOP, when its
generation is over, or with the fork server.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rtcore.channel import Channel
from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock, MonotonicClock, cpu_time_ns, cpu_wait_ns
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import LinkError, LinkLost, PolicyError, RtcoreError, text_of, words_of
from rtcore.host.addresses import RAY, Address
from rtcore.host.seeding import seed_generators
from rtcore.learn.checkpoint import load_weights
from rtcore.memory.history import History, HistoryReader
from rtcore.memory.layout import SLOT_ENTRY, TRACE_FIRST_WORKER, FrameHeader
from rtcore.memory.payload import ContextStage
from rtcore.memory.shared import Phase, SharedRun, phase_of
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.trace import TraceKind
from rtcore.memory.waiting import Waiting, make_waiting
from rtcore.memory.weights import ParamStore, attach_store, layout_of
from rtcore.messages import (
    LeavesItsSpace,
    NoLink,
    PayloadMade,
    PolicyNeedsSaid,
    PolicyRaised,
    WeightSizes,
    WeightsMade,
    WorkerBoot,
    WorkerReady,
)
from rtcore.realtime import keep_off, wake_soon
from rtcore.scheduling.jobs import Job
from rtcore.spaces import ActionSpec, ObservationCheck
from rtcore_workers.malloc import keep_freed_memory
from rtcore_workers.policies import Policy, PolicyInfo, as_played, policy_of

if TYPE_CHECKING:
    from rtcore_workers.learner import LearningTurn

#: How often one whose link is lost looks whether it may make another [ns].
_LOOK_NS = 5 * NS_PER_MS
#: No further inference of a warm-up begins after so long: slow ones have little to gain from a second one.
_WARM_UP_NS = 1_000_000_000


def main(boot: WorkerBoot, channel: Channel) -> None:
    """Process entry."""
    shared = SharedRun.attach(boot.run_id, boot.layout, boot.observation)
    if boot.run.config.host.env_cpu is not None:
        keep_off(boot.run.config.host.env_cpu)
    if boot.run.config.host.realtime != "off":
        wake_soon()
    life: WorkerBoot | None = boot
    while life is not None:
        life = None if _served(life, channel, shared) else _linked_again(life, shared)


def _served(boot: WorkerBoot, channel: Channel, shared: SharedRun) -> bool:
    """Serve as one generation. True: until it was told to end; False: until its link was lost, in the run."""
    worker: Worker | None = None
    try:
        worker = _prepared(boot, channel, shared)
        worker.serve()
    except LinkError as error:
        if worker is None and boot.run_phase_seq < 0:
            raise  # the run has not begun, and does not without it
        channel.send(NoLink(words_of(error), is_over=True))
        return False
    return True


def _linked_again(boot: WorkerBoot, shared: SharedRun) -> WorkerBoot | None:
    """What this process goes on as, once the supervisor has counted the loss; None: it is to end.

    No new process: when a line is cut all links end at once, and to fork as many processes took seconds.
    """
    wanted, control, clock = shared.worker_control[boot.index], shared.run_control, MonotonicClock()
    while (generation := wanted["generation"]) == boot.generation and control["phase"] != Phase.STOP:
        clock.sleep_until_ns(clock.now_ns() + _LOOK_NS)
    if generation <= boot.generation:
        return None
    return replace(boot, generation=generation, run_phase_seq=control["phase_seq"], has_weights=True)


def _prepared(boot: WorkerBoot, channel: Channel, shared: SharedRun) -> Worker:
    """A worker that has said that it is ready."""
    run, index = boot.run, boot.index
    shared.worker_status[index]["heartbeat_ns"] = MonotonicClock.now_ns()
    policy = _make_policy(boot, channel, shared)
    worker = _make_worker(boot, channel, shared, policy)
    # On a GPU the first inference compiles and allocates. And what `auto` begins its search from must be a usual one.
    is_first_of_auto = run.config.schedule.workers == "auto" and index == 0
    at_least = 2 if is_first_of_auto or policy.info.device.startswith("cuda") else 1
    at_most = run.config.timing.warmup
    if run.address_of(index) is not None and boot.run_phase_seq >= 0:
        # The link is back: the policy there is warm, and each inference more keeps the place out of the run.
        at_most, at_least = min(at_most, 1), 1
    warmup_ns = worker.warm_up(at_most, at_least)
    gc.collect()
    gc.freeze()
    ready = _ready(policy.info, warmup_ns)
    worker.be_ready()
    channel.send(ready)
    return worker


def _make_policy(boot: WorkerBoot, channel: Channel, shared: SharedRun) -> Policy:
    """The policy on the run's weights, with the memory that it needs, exploring if the run does."""
    config, is_head = boot.run.config, boot.index == boot.run.head_place
    address = boot.run.address_of(boot.index)
    policy: Policy
    if address is not None:
        policy = _policy_elsewhere(boot, channel, shared, address)
    else:
        policy = policy_of(
            config,
            boot.observation,
            boot.action,
            worker_index=boot.index,
            device=boot.run.device_of(boot.index),
            share=_RunWeights(boot, channel, shared).share,
            is_head=is_head,
        )
    channel.send(PolicyNeedsSaid(policy.needs))
    channel.expect(PayloadMade, config.faults.startup_timeout_s)
    if policy.needs:
        shared.attach_payload()
    # Only now: by default glibc gives freed memory back, and worker 0 has just freed the private copy of the weights.
    keep_freed_memory()
    return as_played(policy, config, boot.action, noop=boot.noop, ticks_before=boot.ticks_before, is_head=is_head)


def _make_worker(boot: WorkerBoot, channel: Channel, shared: SharedRun, policy: Policy) -> Worker:
    run, config, index = boot.run, boot.run.config, boot.index
    worker = Worker(
        run=run,
        index=index,
        generation=boot.generation,
        shared=shared,
        waiting=make_waiting(run.wait, shared.wake_words(), index, config.memory.spin_us * NS_PER_US, run.period_ns),
        policy=policy,
        action=boot.action,
    )
    worker.entropy = boot.entropy
    count = shared.worker_status[index].add
    worker.watch = ObservationCheck(
        boot.observation, MonotonicClock(), count, lambda what: channel.post(LeavesItsSpace(what))
    )
    worker.report_error = lambda what: channel.post(PolicyRaised(what))
    if config.learning.learn is not None and config.learning.mode != "async" and index != run.head_place:
        from rtcore_workers.learner import LearningTurn  # noqa: PLC0415 - imports torch

        worker.learning = LearningTurn(config, boot.run_id, shared, boot.observation, boot.action)
    worker.count_on(boot.run_phase_seq)
    return worker


def _ready(info: PolicyInfo, warmup_ns: list[int]) -> WorkerReady:
    return WorkerReady(
        policy=info.describe(),
        synthetic=info.synthetic,
        pad_ms=info.pad_ms,
        num_parameters=info.num_parameters,
        device=info.device,
        notes=list(info.notes),
        mps=_mps(info.device),
        num_gpus=_num_gpus(info.device),
        warmup_ns=warmup_ns,
    )


def _policy_elsewhere(boot: WorkerBoot, channel: Channel, shared: SharedRun, address: str) -> Policy:
    """The policy of a worker whose inferences are made on another host."""
    # PyZMQ is an extra; and a run without other hosts needs none of this.
    from rtcore_workers.remote.keys import Keys  # noqa: PLC0415
    from rtcore_workers.remote.near import Place, RemotePolicy  # noqa: PLC0415

    config = boot.run.config
    keys, told_ns = config.remote.remote_keys, 0

    def waits(why: str) -> None:
        nonlocal told_ns
        if shared.run_control["phase"] == Phase.STOP:
            raise LinkLost("the run is over")
        if MonotonicClock.now_ns() - told_ns > NS_PER_S:
            told_ns = MonotonicClock.now_ns()
            channel.post(NoLink(why))

    place = Place(
        run_id=boot.run_id,
        worker=boot.index,
        generation=boot.generation,
        address=_found(address),
        keys=None if keys is None else Keys.read(keys, "remote_keys"),
        link_timeout_s=config.remote.link_timeout_s,
        in_run=boot.run_phase_seq >= 0,
    )
    return RemotePolicy(
        place, config, boot.observation, boot.action, store=_RunWeights(boot, channel, shared), waits=waits
    )


def _found(address: str) -> Address:
    """Where that worker listens now."""
    if not address.startswith(RAY):
        return Address.parse(address)
    from rtcore_workers.remote.on_ray import find  # noqa: PLC0415 - most runs need none of it

    return find(address.removeprefix(RAY))


class _RunWeights:
    """The run's parameter store, as its workers make it and attach to it."""

    def __init__(self, boot: WorkerBoot, channel: Channel, shared: SharedRun) -> None:
        self._boot, self._channel, self._shared = boot, channel, shared
        weights = boot.run.config.weights
        self._path = weights.policy_checkpoint if weights.resume is None else weights.resume
        self._what = f"{'policy_checkpoint' if weights.resume is None else 'resume'} {self._path}"
        #: Nobody has made it yet: the first worker of a run does.
        self.is_first = not boot.has_weights
        self._has_computed = False

    def make(self, manifest: ParamManifest | None) -> ParamStore:
        """The store; with a manifest, a new one for that network, without a version in it."""
        config = self._boot.run.config
        if manifest is not None:
            sizes = layout_of(manifest, self._shared.layout.max_workers, self._holder_places()).sizes
            self._channel.send(WeightSizes(sizes, self._has_computed))
            self._channel.expect(WeightsMade, config.faults.startup_timeout_s)
        return attach_store(self._boot.run_id)

    def _holder_places(self) -> int:
        if not self._boot.run.config.computes_here:
            return 0
        from rtcore_workers.weights.device_memory import holder_places  # noqa: PLC0415 - imports torch

        agent = self._boot.run.config.agent
        return holder_places(agent.device, agent.weights_sharing)

    def loaded(self) -> dict[str, Any] | None:
        """What version 1 is to be in the place of what the factory drew; None: that."""
        return load_weights(self._path) if self.is_first and self._path is not None else None

    def initial(self, manifest: ParamManifest) -> dict[str, Any]:
        """The same, as arrays that go into a buffer of that manifest."""
        found = self.loaded()
        return manifest.check(found, self._what) if found is not None else {}

    def share(self, build: Any, plain: bool) -> Any:
        """Build the policy's network on these weights."""
        from rtcore_workers.weights.building import BuildWatch  # noqa: PLC0415 - imports torch
        from rtcore_workers.weights.holding import RunHolding  # noqa: PLC0415 - imports torch
        from rtcore_workers.weights.shared import connect  # noqa: PLC0415 - imports torch

        boot, config = self._boot, self._boot.run.config
        is_first = self.is_first and not plain

        def watched() -> Any:
            with BuildWatch() as watch:
                built = build()
            self._has_computed = watch.has_computed
            return built

        return connect(
            watched if is_first else build,
            self.make,
            initial=self.loaded() if is_first else None,
            what=self._what,
            is_first=is_first,
            plain=plain,
            worker=boot.index,
            generation=boot.generation,
            on_torn=partial(self._shared.worker_status[boot.index].add, "torn_weights"),
            holding=RunHolding(
                boot.run_id, self._channel, config.agent.weights_sharing, config.faults.startup_timeout_s
            ),
        )


def _mps(device: str) -> str:
    """Whether processes on one GPU run side by side (MPS) or take turns; "" on a CPU."""
    if not device.startswith("cuda"):
        return ""
    from rtcore_workers.policies.executors import mps_status  # noqa: PLC0415 - imports torch

    return mps_status()


def _num_gpus(device: str) -> int:
    """GPUs that workers are dealt out over; 0 on a CPU."""
    if not device.startswith("cuda"):
        return 0
    import torch  # noqa: PLC0415 - only where there is a GPU

    return torch.cuda.device_count()


def timed(infer: Callable[[int], None], clock: Clock, at_most: int, at_least: int) -> list[int]:
    """Times of some inferences [ns], as with a CPU to itself. After a second only those `at_least` wanted begin."""
    times: list[int] = []
    begun_ns = clock.now_ns()
    while len(times) < at_most and (len(times) < at_least or clock.now_ns() - begun_ns < _WARM_UP_NS):
        start_ns, waited_ns = clock.now_ns(), cpu_wait_ns()
        infer(len(times))
        times.append(max(1, clock.now_ns() - start_ns - (cpu_wait_ns() - waited_ns)))
    return times


class Worker:
    """One job at a time, from its booking to its answer.

    Args:
        run: What the settings come to.
        index: Place of this worker; the head has the one behind the last worker's.
        generation: It serves until the supervisor wants another one in this place.
        shared: The run's memory. Written: the slots, status, histograms and trace of this place.
        waiting: How it waits for a job and its frame.
        policy: What is asked for actions; its staging memory is filled here.
        action: The world's.

    Attributes:
        entropy: What the process's random generators begin each phase from; (): they go on where they are.
        watch: Checks frames against the declared space; says whether world or policy caused a failed inference.
        learning: Learns between two inferences; None: others learn, or nobody.
        report_error: Sends the supervisor what the policy raised, the first time.
    """

    def __init__(
        self,
        run: ResolvedRun,
        index: int,
        generation: int,
        shared: SharedRun,
        waiting: Waiting,
        policy: Policy,
        action: ActionSpec,
    ) -> None:
        config = run.config
        self._index = index
        self._generation = generation
        self._ring = shared.ring
        self._slots = shared.slots
        self._jobs = shared.jobs
        self._control = shared.run_control
        self._status = shared.worker_status[index]
        self._wanted = shared.worker_control[index]
        self._histograms = shared.worker_histograms(index)
        self._waiting = waiting
        self._newest_job = partial(shared.jobs.newest, index)
        self._policy = policy
        history = History.of(config.history)
        self._reader = HistoryReader(
            shared.ring, history, policy.observation, policy.past_actions, with_stamps=bool(policy.needs.ages)
        )
        self.entropy: Sequence[int] = ()
        self.watch: ObservationCheck | None = None
        self.learning: LearningTurn | None = None
        self._learns_first = config.learning.mode == "learn-then-infer"
        self._on_gpu = policy.info.device.startswith("cuda")
        #: Copies a job's context to the policy; None: it takes none.
        self._stage: ContextStage | None = None
        if policy.context is not None:
            self._stage = ContextStage(policy.context, policy.needs.context(action))
        self._goes_on_after_errors = config.agent.on_policy_error == "miss"
        self.report_error: Callable[[str], object] = lambda what: None
        self._has_told = False
        self._actions = np.zeros((config.agent.chunk, *action.shape), action.dtype)
        # A head gives one action at a time, in a slot that has room for a chunk.
        self._out = self._actions[:1] if index == run.head_place else self._actions
        self._clock = MonotonicClock()
        self._job_seen = shared.jobs.newest(index)
        self._phase_seen = -1
        self._usual_wait_ns = 0
        self._trace = shared.trace_ring(TRACE_FIRST_WORKER + index)
        self._idle_since_ns = 0
        self._frame_seen_ns = 0

    def count_on(self, phase_seq: int) -> None:
        """Jobs of this phase add to the counts of this place instead of starting them anew."""
        self._phase_seen = phase_seq

    def warm_up(self, at_most: int, at_least: int = 1) -> list[int]:
        """Inferences on a blank frame, in no statistic: see `timed`."""

        def infer(number: int) -> None:
            try:
                self._policy.act(frame_seq=number, out=self._out)
            except RtcoreError:
                raise
            except Exception as error:
                raise PolicyError(
                    f"the policy raised {text_of(error)} in its warm-up, for a blank observation; expected the "
                    f"{at_most} calls before tick 0 (--warmup) to succeed, whatever on_policy_error is"
                ) from error
            self._status["heartbeat_ns"] = self._clock.now_ns()

        return timed(infer, self._clock, at_most, at_least)

    def be_ready(self) -> None:
        """Say in shared memory that this generation is ready for jobs."""
        status = self._status
        status["pid"] = os.getpid()
        status["generation"] = self._generation
        status["busy_since_ns"] = status["learning_since_ns"] = status["asleep"] = 0
        status["heartbeat_ns"] = self._clock.now_ns()
        status["ready"] = self._generation

    def serve(self) -> None:
        """Until STOP, or until the supervisor wants another generation in this place."""
        while self._control["phase"] != Phase.STOP and self._wanted["generation"] == self._generation:
            self._status["heartbeat_ns"] = self._clock.now_ns()
            if self._newest_job() == self._job_seen:
                self.wait_for_job()
                continue
            job = self._jobs.read(self._index)
            self.note_job(job.job_seq)
            if job.generation == self._generation:
                self._do(job)

    def note_job(self, job_seq: int) -> None:
        """This job is known: from now on wait for a newer one."""
        self._job_seen = job_seq

    def wait_for_job(self) -> None:
        """For a moment at most, so that the caller can show a heartbeat."""
        self._waiting.for_job(self._newest_job, self._job_seen + 1)

    def _do(self, job: Job) -> None:
        clock, status = self._clock, self._status
        if job.phase_seq != self._phase_seen:
            self._phase_seen = job.phase_seq
            self._forget_statistics()
            if self.entropy:
                # How much was drawn in the rehearsal depends on how long that took.
                seed_generators(self.entropy)
        start_ns = clock.now_ns()
        header = self.read_frame(job)
        # Busy from here on: until its frame is there, it is the world that takes its time.
        status["busy_since_ns"] = clock.now_ns()
        if header is not None:
            if self._learns_first:
                self._learn(job)
            self._answer(job, header, start_ns)
            if not self._learns_first:
                self._learn(job)
        status["busy_since_ns"] = 0

    def _learn(self, job: Job) -> None:
        """One update in turn with the inferences, in the sequential modes."""
        if self.learning is not None:
            # A hang of an update is judged by how long updates take, not inferences.
            self._status["learning_since_ns"] = self._clock.now_ns()
            self.learning.take(job.phase_seq)
            self._status["learning_since_ns"] = 0

    def _answer(self, job: Job, header: FrameHeader, start_ns: int) -> None:
        clock = self._clock
        read_ns = clock.now_ns()
        cpu_start_ns = cpu_time_ns()
        timing, payload = self._policy.timing, self._policy.payload
        timing.abstained = 0  # a failed inference may have set it, and not every executor clears it
        if self._stage is not None:
            self._stage.fill(job.context, booked_tick=job.obs_tick, header=header, stamps=self._reader.stamps)
        try:
            self._policy.act(frame_seq=header.frame_seq, out=self._out, tick=header.tick)
        except LinkError:
            raise  # not the policy's: it computes elsewhere, and cannot be reached
        except Exception as error:
            self._failed(error, job, header)
        infer_end_ns = clock.now_ns()
        # What the planner reckons with: time on the device; on a CPU that is this process's CPU time.
        cost_ns = timing.h2d_ns + timing.compute_ns + timing.d2h_ns if self._on_gpu else cpu_time_ns() - cpu_start_ns
        answer = SLOT_ENTRY.new(
            entry_seq=self._slots.newest(self._index) + 1,
            job_seq=job.job_seq,
            obs_tick=header.tick,
            due_tick=job.due_tick,
            episode=header.episode,
            frame_seq=header.frame_seq,
            generation=self._generation,
            policy_version=timing.policy_version,
            frame_publish_ns=header.publish_ns,
            start_ns=start_ns,
            read_ns=read_ns,
            infer_end_ns=infer_end_ns,
            write_ns=clock.now_ns(),
            h2d_ns=timing.h2d_ns,
            compute_ns=timing.compute_ns,
            d2h_ns=timing.d2h_ns,
            cpu_ns=cost_ns,
            clipped=timing.clipped,
            policy_checksum=timing.policy_checksum,
            explored=timing.explored,
            abstained=timing.abstained,
            actions=self._actions.tobytes(),
            payload=b"" if payload is None else bytes(payload),
        )
        self._slots.write(self._index, answer)
        if self._trace is not None and phase_of(job.phase_seq) is Phase.RUN:
            self._trace_answer(job, header, start_ns, read_ns, infer_end_ns)
        self._histograms["inference_ns"].add(infer_end_ns - read_ns)
        self._histograms["publish_to_read_ns"].add(read_ns - header.publish_ns)
        self._status["policy_version"] = timing.policy_version
        self._status.add("inferences")
        # After the answer is out: it delays nothing.
        if self.watch is not None and phase_of(job.phase_seq) is Phase.RUN:
            self.watch.check(self._reader.newest, header.tick, partial(self._reader.read, header.frame_seq))

    def _failed(self, error: Exception, job: Job, header: FrameHeader) -> None:
        """An inference raised: raise its culprit, or count it and go on without an action."""
        try:
            if self.watch is None:
                raise error
            self._reader.read(header.frame_seq)  # again: the policy may have written to it
            self.watch.bounds.raise_culprit(error, self._policy.observation, _when(job, header))
        except PolicyError as culprit:
            if not self._goes_on_after_errors:
                raise
            self._policy.timing.abstained = 1
            self._status.add("policy_errors")
            if not self._has_told:
                self._has_told = True
                self.report_error(words_of(culprit))

    def _trace_answer(self, job: Job, header: FrameHeader, start_ns: int, read_ns: int, infer_end_ns: int) -> None:
        """Trace what this worker did since its last job. After the answer is out, so that it delays nothing."""
        if self._trace is None:
            return
        written_ns = self._clock.now_ns()
        add, timing = self._trace.add, self._policy.timing
        about = (header.tick, self._index, job.obs_tick, header.frame_seq)
        # Where nobody waited it was there already, or came while the worker began to look for it.
        seen_ns = self._frame_seen_ns or max(start_ns, header.publish_ns)
        if self._idle_since_ns:
            add(TraceKind.IDLE, self._idle_since_ns, start_ns)
        add(TraceKind.WAIT_FRAME, start_ns, seen_ns, *about)
        add(TraceKind.READ, seen_ns, read_ns, *about)
        add(TraceKind.INFER, read_ns, infer_end_ns, *about)
        at_ns = read_ns
        for kind, took_ns in (
            (TraceKind.HOST_TO_DEVICE, timing.h2d_ns),
            (TraceKind.COMPUTE, timing.compute_ns),
            (TraceKind.DEVICE_TO_HOST, timing.d2h_ns),
        ):
            if took_ns:
                add(kind, at_ns, min(at_ns + took_ns, infer_end_ns), *about)
                at_ns += took_ns
        add(TraceKind.WRITE, infer_end_ns, written_ns, *about)
        self._idle_since_ns = written_ns

    def read_frame(self, job: Job) -> FrameHeader | None:
        """The booked frame (or, without a due tick to keep, the newest) with its history in the policy's memory."""
        sequence, wanted, until_ns = self._ring.sequence, job.frame_seq, 0
        newest = sequence.newest()
        if newest < wanted:
            # The booked frame does not exist yet: meanwhile warm the caches.
            if not self._ring.is_quick_to_copy:
                self._ring.touch(wanted)
            elif newest >= 0:
                self._reader.read(newest)
            until_ns = self._clock.now_ns() + self._waiting.spin_ns(self._usual_wait_ns)
        header = self._reader.read(wanted if job.hold else max(wanted, newest), until_ns)
        self._frame_seen_ns = self._ring.seen_ns if until_ns else 0
        while header is None:
            if not self._waiting.for_frame(sequence.newest, wanted, self._goes_on):
                return None
            self._frame_seen_ns = self._clock.now_ns()
            header = self._reader.read(wanted if job.hold else sequence.newest())
            if header is None:
                # Overwritten: this worker did not run for a whole ring. Counted; go on with the newest frame.
                self._status.add("lapped_frames")
                wanted = sequence.newest()
        # How long the world's step takes, roughly.
        self._usual_wait_ns += (header.publish_ns - job.booked_ns - self._usual_wait_ns) >> 3
        return header

    def _goes_on(self) -> bool:
        """Whether a frame may still come. Also shows a heartbeat."""
        self._status["heartbeat_ns"] = self._clock.now_ns()
        return self._control["phase"] != Phase.STOP

    def _forget_statistics(self) -> None:
        """A new phase (rehearsal or run) counts from nothing."""
        for histogram in self._histograms.values():
            histogram.clear()
        for count in ("inferences", "lapped_frames", "checked_frames", "frames_outside", "policy_errors"):
            self._status[count] = 0


def _when(job: Job, header: FrameHeader) -> str:
    """Which frame it was; a rehearsal shows the world's first frame at every tick."""
    return f"at tick {header.tick}" if phase_of(job.phase_seq) is Phase.RUN else "from its reset()"
