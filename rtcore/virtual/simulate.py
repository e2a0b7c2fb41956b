"""The virtual clock: the runtime's own schedule, dispatch and tick loop, without processes or sleeping.

Time passes only where something is said to take time: an inference takes what its latency model says, the
world and the runtime take none. Same seed and same latencies: the same actions, bit for bit.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space

from rtcore.clock import NS_PER_MS, ManualClock, TickGrid, ns_of
from rtcore.config.resolved import resolve, tick_rate_hz
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, ContractBroken
from rtcore.files.strict_json import write_json
from rtcore.learn.checkpoint import SavedState, load_state, load_weights
from rtcore.learn.learnable import check_learnable
from rtcore.learn.policy import fitting_policy
from rtcore.learn.state import warn_of_changes, warn_of_unchecked
from rtcore.loop.counting import Books, StatsRecorder
from rtcore.loop.overlap import blend_of, mix_of
from rtcore.loop.process import build_world, describe
from rtcore.loop.teacher import TeacherAnswers
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.world import GymnasiumWorld, World, leaves_space_text, world_seed
from rtcore.memory.counters import Histogram
from rtcore.memory.history import History
from rtcore.memory.ring import FrameRing
from rtcore.processes.workers import refuse_without_answers
from rtcore.recording.schema import require_h5py
from rtcore.results.agreement import check_books
from rtcore.results.contract import contract_of
from rtcore.results.explain import find_culprits
from rtcore.results.folder import SUMMARY
from rtcore.results.out_folder import OutFolder, begin_folder
from rtcore.results.run_record import RunRecord, writing_to
from rtcore.results.snapshot import fields_of_record
from rtcore.results.summary import RunStats, WorkerStats, build_summary, number_of
from rtcore.runtime.controls import Controls
from rtcore.runtime.trained import RunFrames, TrainedRun
from rtcore.scheduling.dispatch import Dispatcher
from rtcore.scheduling.jobs import Job, JobRow
from rtcore.scheduling.planner import Plan, Tau, make_plan
from rtcore.scheduling.schedule import Schedule
from rtcore.scheduling.takeover import Said, TakeOver
from rtcore.spaces import ObservationCheck, PolicyNeeds
from rtcore.spaces.task import NO_TASK
from rtcore.virtual.latency import JobLatency, parse_latency
from rtcore.virtual.learning import VirtualLearning
from rtcore.virtual.player import SimPlayer, SimPolicy
from rtcore.virtual.recording import VirtualRecording
from rtcore.virtual.workers import Change, Inference, SimulatedWorkers
from rtcore_workers.policies.choice import resolve_policy
from rtcore_workers.virtual import Agent, build_agent

_log = logging.getLogger(__name__)

__all__ = ["Change", "SimPolicy", "SimulatedWorkers", "Simulation"]

#: Inferences that a plan is made of, where a model says how long they take: at most, and for a short run.
_PLAN_SAMPLES, _FEWEST_SAMPLES = 4_096, 256
#: Ticks between two looks at what a contract requires and no row tells.
_LOOK_TICKS = 250


class Simulation(TrainedRun):
    """A run on the virtual clock. `run` does it; then `stats`, `summary` and `record` say what happened.

    Deterministic for a seed: no clock is read, no process started. With `learn` in the config it learns, checkpoints
    included. A trainer of one's own learns from it as from a `Runtime` (`take`, `sample`, `publish`), in `on_tick`.

    Args:
        config: The settings, from which world and policy are built as in a real run.
        world: In place of that world.
        policy: In place of that policy.
        latency: Inference time [ns] of job n; None: as the setting `latency` says, or the policy's own.
        head: In place of the fast part of a policy with two speeds.
        head_latency: Its inference times; 0 by default.
        rate_hz: Ticks per second; None: as the config or the world says.
        changes: Workers that go and come, the head (`self.head`) among them.
        folder: The output folder, where the program has taken it already.
        writes_rows: False: the folder gets what was learned, and no table of ticks and jobs.
        on_contract_broken: As of a `Runtime`; None: `run` raises the `ContractBroken` at its end.
    """

    record: RunRecord

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        world: World | None = None,
        policy: SimPolicy | None = None,
        latency: JobLatency | None = None,
        head: SimPolicy | None = None,
        head_latency: JobLatency | None = None,
        rate_hz: Any = None,
        changes: Sequence[Change] = (),
        folder: OutFolder | None = None,
        writes_rows: bool = True,
        on_contract_broken: Callable[[ContractBroken], None] | None = None,
    ) -> None:
        super().__init__(config := resolve_policy(config))
        if config.output.record:
            require_h5py()
        self._clock = ManualClock()
        self._own_world: GymnasiumWorld | None = None
        agent, saved = None, load_state(config.weights.resume) if config.weights.resume is not None else None
        if world is None:
            ticks_before = int(saved.state["ticks"]) if saved is not None else 0
            seed = world_seed(config.world.seed, ticks_before)
            self._own_world = build_world(config.world, seed, virtual_now_ns=self._clock.now_ns)
            self._own_world.keeps_requests = config.take_over.operator is not None
            world = self._own_world
            rate_hz = rate_hz or self._own_world.env.metadata.get("render_fps")
        self.world = world
        rate_hz = tick_rate_hz(config.world, rate_hz)
        self._chosen_latency = latency or (
            parse_latency(config.timing.latency, config.world.seed) if config.timing.latency else None
        )
        policy_clock = ManualClock()
        warn_of_unchecked(config.weights)
        if saved is not None:
            warn_of_changes(config, saved)
        if policy is None and self._own_world is not None:
            config = fitting_policy(config, self._own_world.observation)
        frame_bytes = self._own_world.observation.nbytes if self._own_world is not None else 0
        #: What the settings come to in this world.
        self.resolved = resolve(config.replace(clock="virtual"), rate_hz, frame_bytes)
        self.config = config = self.resolved.config
        if policy is None and self._own_world is not None:
            agent = self._build_agent(self._own_world, policy_clock, saved)
            policy, head = agent.policy, agent.head
        self._store = agent.store if agent is not None else None
        self._policy_name = agent.name if agent is not None else "none"
        self._policy_info = agent.policy.info if agent is not None else None
        self._policy_notes = list(dict.fromkeys(agent.notes)) if agent is not None else []
        #: What the policy takes and gives beside frame and action.
        self._needs = needs = getattr(policy, "needs", PolicyNeeds())
        if self._own_world is not None and (keeps := self._own_world.keeps):
            self._needs = needs = replace(needs, world=keeps)
        self.ring = self._make_ring(needs) if policy is not None else None
        self.learning: VirtualLearning | None = None
        self.teacher: TeacherAnswers | None = None
        if agent is not None and self.ring is not None and config.learning.learn is not None:
            self.teacher = teacher = self._make_teacher(self._own_world)
            self.learning = VirtualLearning(self.resolved, agent, self.ring, saved, teacher)
        self._observations = Counter[str]()
        self.player = SimPlayer(
            policy,
            self._make_action_buffer(),
            self._chosen_latency,
            policy_clock,
            ring=self.ring,
            history=History.of(config.history),
            weights=agent.weights if agent is not None else None,
            watch=self._make_watch(),
            context=(needs.context(self._own_world.action) or None) if self._own_world is not None else None,
            goes_on_after_errors=config.agent.on_policy_error == "miss",
        )
        self.head_player: SimPlayer | None = None
        if needs and needs.has_head:
            self.head_player = SimPlayer(
                head,
                self._make_action_buffer()[:1],
                head_latency or (lambda number: 0),
                policy_clock,
                ring=self.ring,
                history=History.of(config.history),
                weights=agent.head_weights if agent is not None else None,
                watch=self._make_watch(),
                context=self.player.context,
                goes_on_after_errors=config.agent.on_policy_error == "miss",
            )
        self.plan = self._make_plan()
        #: Index of the head among the workers; -1: the policy has one speed.
        self.head = self.plan.workers if self.head_player is not None else -1
        if self.teacher is not None:
            self.teacher.begin(self.plan.delay_ticks, self.plan.stride_ticks)
        spec = self._own_world.action if self._own_world is not None else None
        stamped = self._own_world.observation.stamped if self._own_world is not None else ()
        with writing_to(config.output.out), ExitStack() as if_it_fails:
            self._own_folder = self._begin_folder(folder, saved)
            if self._own_folder is not None:
                if_it_fails.callback(self._own_folder.release)
            self.record = RunRecord(
                config.output.out if writes_rows else None,
                lambda raw: _decode(spec, raw),
                contract_of(self.resolved, on_contract_broken, stamped),
                stamped,
            )
            if_it_fails.callback(self.record.close)
            if self.learning is not None:
                self.learning.begin(self.record)
            self.recording = self._make_recording()
            if_it_fails.pop_all()
        self._books = Books.private(self._append_job)
        if self._own_world is not None:
            self._own_world.count = self._books.counters.add
        self._is_over = self._stopped = self._broke_off = False
        self.workers = SimulatedWorkers(
            self._clock,
            self._infer,
            self.record,
            num_workers=self.plan.workers,
            changes=changes,
            ring=self.ring,
            cycle=self.learning.learners if self.learning is not None and config.learning.mode != "async" else None,
            head=self.head,
        )
        self.schedule = self._make_schedule()
        self._said = Said()
        self.loop = TickLoop(
            world=world,
            grid=TickGrid(0, self.resolved.rate_hz),
            clock=self._clock,
            schedule=self.schedule,
            dispatcher=Dispatcher(
                config.schedule.on_late,
                chunk_ticks=config.agent.chunk,
                chunk_from=config.agent.chunk_from,
                holds=config.world.on_reset == "hold",
                blend=blend_of(config.agent.on_overlap, spec) if spec is not None else None,
                head=self.head,
            ),
            workers=self.workers,
            recorder=StatsRecorder(self._books, self.schedule, self.resolved.period_ns),
            on_reset=config.world.on_reset,
            overrun=config.world.overrun,
            needs=needs,
            action=self._own_world.action if self._own_world is not None else None,
            seed=config.world.seed,
            head=self.head,
            kept_by_world=self._own_world.kept_with if self._own_world is not None and needs.world else None,
            takeover=TakeOver(self, config.take_over.blend_ticks, mix_of(spec)) if spec is not None else None,
            starvation=(self._own_world.starvation(config.world.starve_ms) if self._own_world is not None else None),
            task=self._own_world.task if self._own_world is not None else b"",
        )
        self._task_version = 1

    def _infer(self, number: int, frame_seq: int, job: Job) -> Inference:
        return self._player_of(job.worker).infer(number, frame_seq, job)

    def _player_of(self, worker: int) -> SimPlayer:
        return self.head_player if self.head_player is not None and worker == self.head else self.player

    def run(self, on_tick: Callable[[int], bool | None] | None = None) -> Simulation:
        """Do all ticks of the config.

        Args:
            on_tick: Called with each tick's number after it; True ends the run.

        Returns:
            This object.
        """
        learning, teacher, loop, recording = self.learning, self.teacher, self.loop, self.recording
        contract = self.record.contract
        deadline_ns = loop.pace.deadline_ns
        _log.debug(
            "%d ticks are simulated in this process, delay %d ticks",
            self.resolved.num_ticks,
            self.plan.delay_ticks,
        )
        try:
            for _ in range(self.resolved.num_ticks):
                if self._stopped:
                    break
                loop.run_tick()
                if teacher is not None:
                    teacher.after_tick(loop.tick)
                if learning is not None:
                    tick = loop.tick
                    learning.after_tick(tick, deadline_ns(tick), deadline_ns(tick + 1))
                if recording is not None:
                    recording.after_tick()
                if contract is not None:
                    if contract.needs_looks and loop.tick % _LOOK_TICKS == 0:
                        contract.look(partial(number_of, self.stats()))
                    contract.follow()
                if on_tick is not None and on_tick(loop.tick):
                    break
        except BaseException:
            self._broke_off = True
            raise
        finally:
            # Also of a run that was stopped: what was learned up to then is kept.
            if learning is not None:
                learning.finish()
            self._finish()
        players = [self.player, *([self.head_player] if self.head_player is not None else [])]
        if raised := sum(player.policy_errors.total() for player in players):
            refuse_without_answers(sum(self.workers.inferences), raised, loop.tick + 1, self.schedule.delay_ticks)
        if contract is not None:
            contract.finish(self.summary())
        return self

    def stop(self) -> None:
        """End the run after the present tick."""
        self._stopped = True

    def poll(self) -> Said:
        """For the tick loop: what whoever has taken the controls has said last."""
        return self._said

    def _make_controls(self, first: Any) -> Controls:
        def write(action: bytes | None) -> None:
            self._said = Said(self._said.seq + 1, action)

        world = self._named_world()
        return Controls(world.action, write, world.noop if first is None else first)

    def _finish(self) -> None:
        """Jobs that are under way end with the run, also if the world or the disk has ended it."""
        try:
            self.loop.finish()
        finally:
            if self.recording is not None:
                self.recording.close()
            self.record.close()
            if self.record.contract is not None:
                self.record.contract.end()
            self._is_over = True

    def stats(self) -> RunStats:
        """As of a real run; times are virtual."""
        none = Histogram().snapshot()
        workers = [
            WorkerStats(
                index=index,
                pid=-1,
                device="virtual",
                inferences=self.workers.inferences[index],
                inference_ns=shape.snapshot(),
                publish_to_read_ns=none,
                restarts=0,
                lapped_frames=0,
                policy_errors=self._player_of(index).policy_errors[index],
                pss_mb=math.nan,
            )
            for index, shape in enumerate(self.workers.inference)
        ]
        head = workers.pop(self.head) if self.head >= 0 else None
        if head is not None and self.head_player is not None:
            head = replace(head, policy_errors=self.head_player.policy_errors[self.head])
        counters, recording = self._books.counters.to_dict(), self.recording.summary() if self.recording else {}
        books = {}
        if self._is_over:
            books = check_books(counters, self.record.rows, {}, recording, broke_off=self._broke_off)
        stats = RunStats(
            plan=self.plan,
            rate_hz=self.resolved.rate_hz,
            clock="virtual",
            counters=counters,
            distributions={name: shape.snapshot() for name, shape in self._books.histograms.items()},
            workers=workers,
            head=head,
            **fields_of_record(self.record),
            policy=self._policy_name,
            delay_ticks=self.schedule.delay_ticks,
            stride_ticks=self.schedule.stride_ticks,
            num_up=self.schedule.num_up,
            env={"env_id": self.config.world.env_id},
            learner=self.learning.stats() if self.learning is not None else None,
            recording=recording,
            contract=self.record.contract.states() if self.record.contract is not None else (),
            task=self._task(),
            books=books,
            observations={
                "checked": self._observations["checked_frames"],
                "outside": self._observations["frames_outside"],
                "first": self._own_world.leaves_space if self._own_world is not None else "",
            },
        )
        return replace(stats, culprits=find_culprits(stats, self.record.worst.found())) if self._is_over else stats

    def _task(self) -> dict[str, Any]:
        world = self._own_world
        if world is None or not world.task:
            return {}
        return {"version": self._task_version, "values": world.task_spec.unpack(world.task)}

    @property
    def header(self) -> dict[str, Any]:
        """As `Runtime.header`, of the world and the policy that the config names."""
        header: dict[str, Any] = {}
        if self._own_world is None:
            return header
        header["world"] = describe(self._own_world, self.config).to_header()
        if (info := self._policy_info) is not None:
            header["policy"] = {
                "policy": self._policy_name,
                "num_parameters": info.num_parameters,
                "device": info.device,
                "notes": [*self._policy_notes, *self._needs.notes(self.plan.delay_ticks, self._own_world.action)],
            }
        return header

    @property
    def observation_space(self) -> Box | Dict:
        """As `Runtime.observation_space`."""
        return self._named_world().observation.to_space()

    @property
    def action_space(self) -> Space[Any]:
        """As `Runtime.action_space`."""
        return self._named_world().action.to_space()

    def _named_world(self) -> GymnasiumWorld:
        if self._own_world is None:
            raise ConfigError("this simulation has a world of its own making: only that of the config has spaces")
        return self._own_world

    def _frames(self) -> RunFrames:
        action = self._named_world().action
        if self.ring is None:
            raise ConfigError("no policy sees the frames of this simulation, so there is nothing to learn from")
        return RunFrames(self.ring, action, 0, 0, self._needs)

    def publish(self, weights: Mapping[str, Any], *, updates: int = 0, wait_s: float = 0.0) -> int | None:
        """As `Runtime.publish`: for every inference that begins from now on."""
        return None if self._is_over else self._publish(self._store, weights, updates, ns_of(wait_s))

    def newest_frame(self) -> npt.NDArray[Any] | None:
        """As of a `Runtime`; None also where no policy sees the frames."""
        return self.ring.newest_frame() if self.ring is not None else None

    def set_task(self, task: Mapping[str, Any]) -> int:
        """As of a `Runtime`: from the next tick on, in `on_tick` the one after that tick."""
        world = self._named_world()
        if not world.task_spec.block:
            raise ConfigError(NO_TASK)
        raw = world.task_spec.pack(task)
        self._task_version += 1
        world.begin_task(self._task_version, raw)
        self.loop.begin_task(self._task_version, raw)
        return self._task_version

    @contextmanager
    def paused(self) -> Iterator[None]:
        """As of a `Runtime`. No virtual time goes by between two ticks, whatever is done there."""
        yield

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return build_summary(self.stats()) | {"leftover_shared_memory": []}

    def close(self) -> None:
        """Close the files, the folder (with summary.json, if the folder is its own) and the world."""
        self.record.close()
        if self._own_world is not None:
            self._own_world.close()
        if self._own_folder is not None:
            with self._own_folder as folder, writing_to(folder.path):
                if self.record.num_ticks:
                    write_json(folder.path / SUMMARY, self.summary())
            self._own_folder = None

    # -- the parts -----------------------------------------------------------------------------------------

    def _begin_folder(self, taken: OutFolder | None, saved: SavedState | None) -> OutFolder | None:
        """Not before the run is sure to begin. Returns the folder if it is this object's to release."""
        folder, config = taken, self.config
        if config.output.out is not None and folder is None:
            folder = OutFolder(config.output.out)
            folder.acquire()
        if folder is not None:
            origin, goes_on = (saved.origin, saved.is_of(folder.path)) if saved is not None else (None, False)
            if note := begin_folder(folder, config, origin, goes_on=goes_on):
                _log.info(note)
        return folder if taken is None else None

    def _build_agent(self, world: GymnasiumWorld, clock: ManualClock, saved: SavedState | None) -> Agent:
        """The policy, with its weights and learners where it has some."""
        config = self.config
        if config.learning.learn is not None:
            check_learnable(config, world.observation, world.action, self.resolved.ring_slots, saved)
        initial, what = (saved.weights, "resume") if saved is not None else (None, "policy-checkpoint")
        if config.weights.policy_checkpoint is not None:
            initial = load_weights(config.weights.policy_checkpoint, what)
        return build_agent(
            config,
            world.observation,
            world.action,
            clock,
            has_latency=self._chosen_latency is not None,
            initial=initial,
            what=what,
            noop=world.noop,
            ticks_before=int(saved.state["ticks"]) if saved is not None else 0,
        )

    def _make_teacher(self, world: GymnasiumWorld | None) -> TeacherAnswers | None:
        if self.config.learning.learn != "imitate" or world is None:
            return None
        return TeacherAnswers(world, self.resolved.num_ticks)

    def _make_ring(self, needs: PolicyNeeds) -> FrameRing | None:
        """Frames go into a ring of its own: what a policy sees and a learner samples is read from there."""
        if self._own_world is None:
            return None
        world = self._own_world
        return FrameRing.private(world.observation, world.action.nbytes, self.resolved.ring_slots, needs.kept)

    def _make_watch(self) -> ObservationCheck | None:
        """Looks at every frame that a policy is given: that takes no virtual time."""
        world = self._own_world
        if world is None:
            return None

        def tell(what: str) -> None:
            if not world.leaves_space:
                world.left_later = what
                _log.warning(leaves_space_text(what))

        def count(name: str) -> None:
            self._observations[name] += 1

        return ObservationCheck(world.observation, self._clock, count, tell)

    def _make_recording(self) -> VirtualRecording | None:
        if not self.config.output.record:
            return None
        if self._own_world is None or self.ring is None:
            raise ConfigError("record: needs the world that the config names, and a policy that sees its frames")
        policy = {"policy": self._policy_name} | ({"head": self.head} if self.head >= 0 else {})
        return VirtualRecording(self.config, self._own_world, self.ring, policy, self.resolved.rate_hz)

    def _make_action_buffer(self) -> npt.NDArray[Any]:
        if self._own_world is None:
            one = self.world.encode(self.world.stand_in()[0])
            return np.frombuffer(bytearray(one * self.config.agent.chunk), np.uint8)
        spec = self._own_world.action
        return np.zeros((self.config.agent.chunk, *spec.shape), spec.np_dtype)

    def _make_plan(self) -> Plan:
        config = self.config
        # The sequential agents learn in each turn: the plan is made for the time of a whole turn.
        learning_ns = round(config.learning.learn_latency_ms * NS_PER_MS) if config.learning.mode != "async" else 0
        count = 32
        if self._chosen_latency is not None:
            count = max(_FEWEST_SAMPLES, min(_PLAN_SAMPLES, self.resolved.num_ticks))
        taus = [self.player.tau_ns(number) + learning_ns for number in range(count)]
        if self._chosen_latency is None and max(taus) == 0 and config.agent.policy != "random":
            raise ConfigError(
                f"the virtual clock does not know how long {config.agent.policy!r} takes: give --latency constant:58.9 "
                "(or normal:, lognormal:, trace:), or the policy's pad_ms"
            )
        return make_plan(
            self.config.schedule.stagger,
            Tau.of(taus, [0]),
            self.resolved.rate_hz,
            workers=None if self.config.schedule.workers == "auto" else self.config.schedule.workers,
            max_workers=self.config.schedule.max_workers,
            guard_ns=self.resolved.guard_ns,
            device_parallelism=math.inf,
            chunk=self.config.agent.chunk,
            chunk_from=self.config.agent.chunk_from,
            replan_every=self.config.schedule.replan_every or 0,
            on_late=self.config.schedule.on_late,
            came_ns=taus if self._chosen_latency is not None else (),
        )

    def _make_schedule(self) -> Schedule:
        params = self.resolved.schedule_params(self.plan.delay_ticks, self.plan.tau.usual_ns)
        return Schedule(params, self.plan.workers)

    def _append_job(self, row: JobRow) -> None:
        self.record.add_job(row)
        if self.recording is not None:
            self.recording.add_job(row)


def _decode(spec: Any, raw: bytes) -> Any:
    if spec is None:
        return raw.hex()
    return spec.decode(np.frombuffer(raw, spec.np_dtype).reshape(spec.shape))
