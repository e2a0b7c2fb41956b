"""What a context says of coming ticks, and of those since its features' frame, is what is applied: through the loop."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.config.run import RuntimeConfig
from rtcore.memory.layout import FrameHeader
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Known, TickKind
from rtcore.spaces import ActionSpec, Block, PolicyNeeds
from rtcore.spaces.payload import CONTEXT_WORDS
from rtcore.virtual.simulate import Change, Simulation
from tests.support.drawn import examples
from tests.support.recorded_runs import replayed
from tests.support.virtual_worlds import Signs

pytestmark = pytest.mark.unit

MS = 1_000_000
TICKS = 90
ACTION = ActionSpec.from_space(Signs(continuous=True).action_space)


@dataclass
class Seen:
    """What one decision was told. `known` has (mask, action) for each tick from `base` + 1 on."""

    worker: int
    tick: int
    episode: int
    base: int
    due_tick: int
    state: float
    state_tick: int
    known: list[tuple[int, float]]


@dataclass
class Timing:
    policy_version: int = 0
    clipped: int = 0
    explored: int = 0
    abstained: int = 0


class Probe:
    """Its actions are all different; its state and its features are the tick that they come from."""

    def __init__(self, *, needs: PolicyNeeds, is_head: bool = False) -> None:
        self.observation = np.zeros(2, np.float32)
        self.past_actions = None
        self.needs, self.timing, self.seen = needs, Timing(), []
        self._is_head = is_head
        block = needs.context(ACTION)
        self.context, self.payload = memoryview(bytearray(block.nbytes)), memoryview(bytearray(needs.payload.nbytes))
        self._takes, self._gives = block.views(self.context), needs.payload.views(self.payload)

    def act(self, *, frame_seq: int, out: Any, tick: int | None = None) -> None:
        takes, gives = self._takes, self._gives
        words = dict(zip(CONTEXT_WORDS, takes["words"].tolist(), strict=True))
        base = words["features_tick"] if self._is_head else words["tick"]
        known = list(zip(takes["committed_mask"].tolist(), takes["committed"][:, 0].tolist(), strict=True))
        due_tick = words["tick"] + words["delay_ticks"]
        state = float(takes["state.value"])
        self.seen.append(
            Seen(words["worker"], words["tick"], words["episode"], base, due_tick, state, words["state_tick"], known)
        )
        if words["state_tick"] >= 0:
            assert state == words["state_tick"]
        if self._is_head:
            assert takes["features.value"] == words["features_tick"]
        number = len(self.seen)
        out[:, 0] = [(-1.0 if self._is_head else 1.0) * (number + index / 16) / 4096 for index in range(len(out))]
        gives["extras.value"][...] = out[0, 0]
        if not self._is_head:
            gives["state.value"][...] = gives["features.value"][...] = words["tick"]
        self.timing.abstained = int(number % 11 == 0)


@dataclass
class Played:
    """A run: what was applied at each tick, and what decisions were told."""

    simulation: Simulation
    headers: dict[int, FrameHeader] = field(default_factory=dict)
    actions: dict[int, float] = field(default_factory=dict)
    kept: dict[int, tuple[float, float]] = field(default_factory=dict)


def needs_of(*, committed_ticks: int, has_head: bool = False) -> PolicyNeeds:
    one = Block.of("one", {"value": ((), "float64")})
    return PolicyNeeds(committed_ticks, extras=one, state=one, features=one, has_head=has_head)


def played(needs: PolicyNeeds, latency: Any, changes: Any = (), head_latency: Any = None, **settings: Any) -> Played:
    config = RuntimeConfig(
        env_id="tests.support.virtual_worlds:Signs",
        env_args={"episode_ticks": 37, "continuous": True},
        clock="virtual",
        duration=TICKS / 100,
        stagger="max-time",
        **settings,
    )
    policy, head = Probe(needs=needs), Probe(needs=needs, is_head=True)
    if needs.has_head:
        changes = [replace_worker(change, settings["workers"]) for change in changes]
    simulation = Simulation(
        config, policy=policy, latency=latency, head=head, head_latency=head_latency, changes=changes
    )
    run = Played(simulation)
    ring = simulation.ring

    def note(tick: int) -> None:
        seq = ring.sequence.newest()
        _, header = ring.read_header(seq)
        run.headers[tick] = header
        run.actions[tick] = float(np.frombuffer(ring.read_action(seq), np.float32)[0])
        kept = ring.gather_kept(np.array([seq]))[0]
        run.kept[tick] = float(kept["extras.value"]), float(kept["state.value"])

    simulation.run(note)
    simulation.close()
    run.policy, run.head = policy, head
    return run


def replace_worker(change: Change, head: int) -> Change:
    """Half of them go to the head."""
    return change._replace(worker=head) if change.tick % 2 else change


def times_of(least_ms: int, most_ms: int) -> Any:
    some = st.lists(st.integers(least_ms, most_ms), min_size=1, max_size=7)
    return some.map(lambda ms: lambda job: ms[job % len(ms)] * MS)


@st.composite
def comings_and_goings(draw: Any) -> list[Change]:
    ticks = sorted(draw(st.sets(st.integers(5, TICKS - 10), max_size=3)))
    return [change for tick in ticks for change in (Change(tick, 0, False), Change(tick + 5, 0, True))]


def check_told(run: Played, seen: Seen) -> None:
    """Every entry of the episode that goes on, up to the tick before the due one."""
    for index, (mask, action) in enumerate(seen.known):
        tick = seen.base + 1 + index
        header = run.headers.get(tick)
        if mask == Known.UNKNOWN:
            assert action == 0
            continue
        assert tick < seen.due_tick
        if header is None:  # skipped, or after the end
            continue
        if header.episode != seen.episode or header.kind == TickKind.RESET:
            return  # the episode is over
        told = (seen, tick, mask, header)
        if mask == Known.HELD:
            assert header.kind == TickKind.LEAD_IN, told
        elif mask == Known.FACT:
            assert run.actions[tick] == np.float32(action), told
        else:
            assert mask == Known.PLAN
            came_later = header.write_ns > run.headers[seen.base].start_ns
            assert came_later or run.actions[tick] == np.float32(action), told


@examples(12)
@given(
    latency=times_of(1, 80),
    changes=comings_and_goings(),
    workers=st.integers(1, 4),
    chunk=st.integers(1, 6),
    chunk_from=st.sampled_from(("due", "due", "frame")),
    on_missing=st.sampled_from(("noop", "repeat", "random")),
    on_reset=st.sampled_from(("hold", "run")),
    on_late=st.sampled_from(("apply", "drop")),
)
def test_what_a_decision_is_told_of_the_coming_ticks_is_what_is_applied(latency, changes, **settings):
    if settings["chunk_from"] == "frame":
        settings["chunk"] = 12  # longer than any delay
    run = played(needs_of(committed_ticks=10), latency, changes, **settings)
    assert run.policy.seen
    for seen in run.policy.seen:
        check_told(run, seen)
    first_of = {}
    for tick, header in run.headers.items():
        if header.kind != TickKind.ACTED:
            assert run.kept[tick] == (0, 0)
            continue
        extras, state = run.kept[tick]
        assert extras == pytest.approx(run.actions[tick], abs=6 / 4096) if header.chunk_index else True
        assert (state if header.state_tick >= 0 else -1) == header.state_tick
        # No state of another episode, and none that is newer than its frame.
        first_of.setdefault(header.episode, min(t for t, h in run.headers.items() if h.episode == header.episode))
        assert header.state_tick == -1 or first_of[header.episode] <= header.state_tick < header.obs_tick


@examples(12)
@given(
    latency=times_of(1, 80),
    head_latency=st.lists(st.integers(0, 14), min_size=1, max_size=5).map(
        lambda ms: lambda job: ms[job % len(ms)] * MS
    ),
    changes=comings_and_goings(),
    workers=st.integers(1, 4),
    on_missing=st.sampled_from(("noop", "repeat")),
    on_reset=st.sampled_from(("hold", "run")),
)
def test_what_a_head_is_told_of_the_ticks_since_its_features_is_what_was_applied_and_the_run_replays(
    tmp_path_factory, latency, head_latency, changes, **settings
):
    out = tmp_path_factory.mktemp("run")
    needs = needs_of(committed_ticks=24, has_head=True)
    run = played(needs, latency, changes, head_latency, out=out, record=True, **settings)
    for seen in run.head.seen:
        check_told(run, seen)
        entries = seen.known[: min(len(seen.known), seen.tick - seen.base)]
        assert Known.UNKNOWN not in {mask for mask, _ in entries}
    place = settings["workers"]
    trunk = {(seen.worker, seen.tick): seen for seen in run.policy.seen}
    booked = {(row.obs_tick, row.worker) for row in run.simulation.record.jobs if row.worker != place}
    for header in run.headers.values():
        if header.worker == place:
            assert header.tick - header.obs_tick >= 1
            assert 0 <= header.features_tick < header.obs_tick
            assert (header.features_tick, header.features_worker) in booked
            # Its state is the one that those features were made with.
            thought = trunk[header.features_worker, header.features_tick]
            assert (run.kept[header.tick][1], header.state_tick) == (thought.state, thought.state_tick)
        else:
            assert (header.features_tick, header.features_worker) == (-1, -1)
    report = replayed(out)
    assert report.is_identical, (report.differing, report.first)
    with Recording(out) as recording:
        kept = recording.column("extras/value"), recording.column("state/value")
        assert list(zip(*(column.tolist() for column in kept), strict=True)) == list(run.kept.values())


def test_every_kind_of_knowledge_is_within_reach_of_these_tests():
    def slow_now_and_then(job: int) -> int:
        return (75 if job % 9 == 5 else 35) * MS

    seen = set()
    for workers, chunk in ((2, 5), (4, 1)):
        run = played(needs_of(committed_ticks=10), slow_now_and_then, workers=workers, chunk=chunk)
        seen |= {mask for one in run.policy.seen for mask, _ in one.known}
        assert any(one.state_tick >= 0 for one in run.policy.seen)
        assert any(header.outcome >= 0 for header in run.headers.values())
        assert run.simulation.summary()["actions"]["outcomes"]["abstained"] > 0
    assert seen == set(Known)


def test_the_same_seed_carries_the_same_bytes():
    def latency(job: int) -> int:
        return (35 + 20 * (job % 3)) * MS

    first, again = (played(needs_of(committed_ticks=10, has_head=True), latency, workers=3, chunk=2) for _ in range(2))
    assert first.policy.seen == again.policy.seen
    assert first.head.seen == again.head.seen
    assert (first.headers, first.actions, first.kept) == (again.headers, again.actions, again.kept)
    assert len(first.head.seen) > TICKS / 2
