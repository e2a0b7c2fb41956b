"""What travels with jobs, answers and frames: in the segment `payload`, beside their records."""

from dataclasses import replace

import numpy as np
import pytest

from rtcore.errors import ConfigError, LayoutMismatchError, PolicyError
from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.payload import require_room
from rtcore.memory.ring import FrameRing
from rtcore.memory.segments import files_of, new_run_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.scheduling.jobs import Answer, Job
from rtcore.spaces import ActionSpec, Block, ObservationSpec, PolicyNeeds
from rtcore.spaces.payload import MAX_BLOCK_BYTES

pytestmark = pytest.mark.unit

OBSERVATION = ObservationSpec((2,), "float32", (-1,), (1,))
ACTION = ActionSpec.from_json({"kind": "box", "shape": [2], "dtype": "float32", "low": [-1], "high": [1]})
LAYOUT = Layout(max_workers=2, ring_slots=4, log_slots=4, frame_bytes=8, action_bytes=ACTION.nbytes, chunk=1)
NEEDS = PolicyNeeds(
    committed_ticks=3,
    extras=Block.of("policy_extras", {"logp": ((), "float32")}),
    state=Block.of("state", {"h": (4, "float32")}),
    features=Block.of("features", {"z": ((2, 3), "int16")}),
)
FRAME = np.zeros(2, np.float32)
ACTION_BYTES = bytes(ACTION.nbytes)


@pytest.fixture
def runs():
    """Three processes' views of one run: who makes it, who attaches, who looks on."""
    run_id = new_run_id()
    made = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    attached = [SharedRun.attach(run_id, LAYOUT, OBSERVATION), SharedRun.watch(run_id)]
    yield run_id, made, *attached
    for shared in (made, *attached):
        shared.close()
    unlink_all(run_id)


def filled(block, number):
    """A whole block, every byte of which is `number`."""
    return bytes([number]) * block.nbytes


def test_whoever_attaches_knows_the_policys_needs_from_the_segment(runs):
    run_id, made, early, _ = runs
    made.make_payload(NEEDS, ACTION)
    early.attach_payload()
    late, onlooker = SharedRun.attach(run_id, LAYOUT, OBSERVATION), SharedRun.watch(run_id)
    for shared in (early, late, onlooker):
        assert (shared.payload.needs, shared.payload.action) == (NEEDS, ACTION)
        assert shared.payload.context == NEEDS.context(ACTION)
    late.close()
    onlooker.close()


@pytest.mark.parametrize(
    "spec", [((2.5,), "float32"), ("12", "float32"), ((), "longdouble"), ((-1,), "int8"), "float32"]
)
def test_an_array_that_cannot_be_declared_so_is_refused(spec):
    with pytest.raises(ConfigError, match="policy_extras: 'logp' is .*expected"):
        Block.of("policy_extras", {"logp": spec})


def test_workers_that_need_the_same_may_differ_in_their_first_state_which_is_said():
    first, same = (replace(NEEDS, first_state=bytes(NEEDS.state.nbytes)) for _ in range(2))
    assert first.compare(same, "worker 2") == ""
    said = first.compare(replace(first, first_state=b"1" * NEEDS.state.nbytes), "worker 2")
    assert "worker 2 has another initial_state() than that of the first worker" in said
    with pytest.raises(PolicyError, match="worker 2 needs .*as of the first worker"):
        first.compare(replace(first, committed_ticks=4), "worker 2")


@pytest.mark.parametrize("damage", [(b'{"needs"', b'x"needs"'), (b'"needs"', b'"neads"')])
def test_a_segment_whose_manifest_is_damaged_is_refused_by_name(runs, damage):
    run_id, made, *_ = runs
    made.make_payload(NEEDS, ACTION)
    (path,) = [each for each in files_of(run_id) if each.name.endswith("payload")]
    path.write_bytes(path.read_bytes().replace(*damage))
    with pytest.raises(LayoutMismatchError, match="payload has no manifest that can be read"):
        SharedRun.watch(run_id)


def test_a_run_whose_policy_needs_nothing_has_no_such_segment(runs):
    run_id, made, attached, onlooker = runs
    assert made.payload is attached.payload is onlooker.payload is None
    assert not any("payload" in path.name for path in files_of(run_id))
    with pytest.raises(LayoutMismatchError, match="no shared memory"):
        attached.attach_payload()
    # And what is written and read is as it was.
    attached.jobs.post(Job(1, 0, 2, True, job_seq=1))
    made.slots.write(1, Answer(entry_seq=1, actions=ACTION_BYTES))
    attached.ring.publish(FRAME, FrameHeader(frame_seq=0), ACTION_BYTES)
    assert made.jobs.read(1).context == attached.slots.read(1, 1).payload == b""
    assert made.ring.gather_kept(np.array([0])).nbytes == 0


def test_the_segment_goes_with_the_run(runs):
    run_id, made, *_ = runs
    made.make_payload(NEEDS, ACTION)
    assert any(path.name.endswith("-payload") for path in files_of(run_id))
    unlink_all(run_id)
    assert files_of(run_id) == []


def test_a_job_carries_its_context_and_an_answer_its_payload(runs):
    _, env, worker, _ = runs
    env.make_payload(NEEDS, ACTION)
    worker.attach_payload()
    for number in (1, 2, 3):
        context, payload = filled(NEEDS.context(ACTION), number), filled(NEEDS.payload, 10 + number)
        env.jobs.post(Job(1, number, number + 2, True, job_seq=number, context=context))
        assert worker.jobs.read(1).context == context
        worker.slots.write(1, Answer(entry_seq=number, actions=ACTION_BYTES, payload=payload))
        assert env.slots.read(1, number).payload == payload
        assert env.slots.read(1, number - 1) is None
    assert env.jobs.read(0).context == bytes(NEEDS.context(ACTION).nbytes), "another worker's block"


@pytest.mark.parametrize("length", (0, NEEDS.payload.nbytes - 8, NEEDS.payload.nbytes + 8))
def test_a_block_of_another_size_is_refused_and_nothing_is_published(runs, length):
    _, env, worker, _ = runs
    env.make_payload(NEEDS, ACTION)
    worker.attach_payload()
    with pytest.raises(ValueError, match="structure|size|length"):
        worker.slots.write(0, Answer(entry_seq=1, actions=ACTION_BYTES, payload=bytes(length)))
    with pytest.raises(ValueError, match="structure|size|length"):
        env.jobs.post(Job(0, 0, 1, True, job_seq=1, context=bytes(length)))
    assert (env.slots.newest(0), env.jobs.newest(0)) == (0, 0)


def private_ring():
    return FrameRing.private(OBSERVATION, ACTION.nbytes, 4, NEEDS.kept)


def shared_ring(runs):
    _, env, _, _ = runs
    env.make_payload(NEEDS, ACTION)
    return env.ring


@pytest.mark.parametrize("kind", ("shared", "private"))
def test_what_stays_with_a_tick_is_read_with_it_until_the_ring_comes_round(runs, kind):
    ring = shared_ring(runs) if kind == "shared" else private_ring()
    for seq in range(6):
        ring.publish(FRAME, FrameHeader(frame_seq=seq), ACTION_BYTES, filled(NEEDS.kept, seq + 1))
    assert ring.lapped(np.arange(1, 6)).tolist() == [True, False, False, False, False]
    seqs = np.array([[2, 3], [5, 4]])
    assert ring.gather_kept(seqs).tobytes() == b"".join(filled(NEEDS.kept, seq + 1) for seq in seqs.flat)
    assert ring.gather_kept(seqs)["state.h"].shape == (2, 2, 4)
    rows = np.empty(4, ring.row_dtype(np.dtype((ACTION.np_dtype, ACTION.shape))))
    kept, frames = np.empty(4, NEEDS.kept.dtype), ring.empty_frames(4)
    assert ring.copy_rows(2, rows, frames, kept) == 0
    assert (kept.tobytes(), rows["frame_seq"].tolist()) == (
        b"".join(filled(NEEDS.kept, seq + 1) for seq in range(2, 6)),
        [2, 3, 4, 5],
    )


@pytest.mark.parametrize(
    ("needs", "what"),
    (
        (PolicyNeeds(features=Block.of("features", {"z": (MAX_BLOCK_BYTES // 4 + 1, "float32")})), "features.z"),
        (PolicyNeeds(extras=Block.of("policy_extras", {"map": (MAX_BLOCK_BYTES + 8, "uint8")})), "extras.map"),
        (PolicyNeeds(committed_ticks=MAX_BLOCK_BYTES // 8), "committed"),
    ),
    ids=("features", "extras", "committed"),
)
def test_more_than_a_tick_can_copy_is_refused_before_anything_is_made(runs, needs, what):
    run_id, made, *_ = runs
    with pytest.raises(PolicyError, match=rf"most of it {what} .* expected .* MB at most"):
        made.make_payload(needs, ACTION)
    assert not any("payload" in path.name for path in files_of(run_id))
    require_room(NEEDS, ACTION)
