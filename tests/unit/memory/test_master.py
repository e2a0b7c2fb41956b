"""The master weights stay whole, wherever an update is cut off."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from rtcore.memory.layout import (
    LEARNER_CONTROL,
    LEARNER_PACE,
    LEARNER_SIZES,
    LEARNER_STATUS,
    MASTER_COMMIT,
    MasterLayout,
    Record,
)
from rtcore.memory.master import Commit, MasterState, Slot

pytestmark = pytest.mark.unit

COUNT = 32


def begun(updates: int = 0) -> MasterState:
    master = MasterState.private(COUNT * 4)
    master.begin(np.arange(COUNT, dtype=np.float32), updates=updates)
    return master


def advance(present: Slot, coming: Slot, number: int) -> None:
    coming.weights[:] = present.weights + number
    coming.exp_avg[:] = present.exp_avg + 1
    coming.exp_avg_sq[:] = present.exp_avg_sq + 2


def test_updates_follow_each_other_and_the_target_comes_every_so_many() -> None:
    master = begun()
    for number in range(1, 8):
        with master.locked():
            assert master.apply(advance, 3).updates == number
    copy = master.copy()
    assert copy.updates == 7
    assert copy.weights[0] == sum(range(8))
    assert (copy.exp_avg == 7).all()
    assert (copy.exp_avg_sq == 14).all()
    assert copy.target[0] == sum(range(7)), "the target is the weights after update 6"


class Cut(Exception):
    """The learner dies here."""


@pytest.mark.parametrize("survived", range(5))
@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_learner_that_dies_after_any_write_has_changed_nothing(survived: int, updates: int) -> None:
    """Writes of an update, in order: weights, two moments, target (every second update), commit."""
    master = begun()
    for _ in range(updates):
        with master.locked():
            master.apply(advance, 2)
    before = master.copy()
    targets = master.targets
    writes = 0

    def one_write() -> None:
        nonlocal writes
        if writes == survived:
            raise Cut
        writes += 1

    def cut_off(present: Slot, coming: Slot, number: int) -> None:
        for source, target in zip(present, coming, strict=True):
            one_write()
            target[:] = source - 1000
        one_write()

    class CutTarget(np.ndarray):  # type: ignore[type-arg]
        def __setitem__(self, key: object, value: object) -> None:
            half = np.asarray(value)[: COUNT // 2]
            np.asarray(self)[: COUNT // 2] = half
            raise Cut

    if survived == 4:
        master.targets = tuple(target.view(CutTarget) for target in targets)  # type: ignore[assignment]
    was_cut = False
    try:
        with master.locked():
            master.apply(cut_off, 2)
    except Cut:
        was_cut = True
    master.targets = targets
    # Past all four writes an update is over, unless the target was to follow.
    assert was_cut == (survived < 4 or updates % 2 == 1)
    if was_cut:
        after = master.copy()
        assert after.updates == before.updates
        for ours, theirs in zip(after[1:], before[1:], strict=True):
            assert np.array_equal(ours, theirs)
    with master.locked():
        assert master.apply(advance, 2).updates == before.updates + (1 if was_cut else 2)


def test_the_commit_word_holds_all_three_at_once() -> None:
    for commit in (Commit(0, 0, 0), Commit(1, 1, 0), Commit(123456789, 0, 1), Commit(7, 1, 1)):
        assert Commit.of(commit.word) == commit


def test_a_resumed_master_goes_on_from_what_was_saved() -> None:
    master = begun()
    for _ in range(5):
        with master.locked():
            master.apply(advance, 2)
    saved = master.copy()
    resumed = begun()
    resumed.begin(saved.weights, updates=5, exp_avg=saved.exp_avg, exp_avg_sq=saved.exp_avg_sq, target=saved.target)
    for each in (master, resumed):
        with each.locked():
            each.apply(advance, 2)
    for ours, theirs in zip(resumed.copy(), master.copy(), strict=True):
        assert np.array_equal(ours, theirs)


def test_threads_of_one_process_take_turns() -> None:
    master = begun()
    threads = [threading.Thread(target=lambda: [_locked_update(master) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert master.commit.updates == 200
    assert (master.copy().exp_avg == 200).all()


def _locked_update(master: MasterState) -> None:
    with master.locked():
        master.apply(advance, 1000)


def test_arrays_and_words_of_the_segment_do_not_overlap() -> None:
    layout = MasterLayout(3, 1000 * 4)
    spans = sorted(
        [
            (layout.sizes_at, 64),
            (layout.commit_at, 64),
            (layout.pace_at, 64),
            *(
                (layout.control_at(learner), layout.status_at(learner) - layout.control_at(learner))
                for learner in range(3)
            ),
            *((layout.status_at(learner), 64) for learner in range(3)),
            *((layout.array_at(array), layout.trainable_bytes) for array in range(8)),
        ]
    )
    for (start, size), (following, _) in zip(spans, spans[1:], strict=False):
        assert start + size <= following
        assert start % 64 == 0
    assert layout.num_bytes >= spans[-1][0] + spans[-1][1]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        (LEARNER_SIZES, "num_learners trainable_bytes first_updates"),
        (MASTER_COMMIT, "commit"),
        (LEARNER_PACE, "next_start_ns update_ns"),
        (LEARNER_CONTROL, "generation restarts paused"),
        (
            LEARNER_STATUS,
            "pid generation heartbeat_ns state updates publications publish_skipped transitions lapped_samples yields "
            "yielded_ns loss td_error q_mean grad_norm version_diff version_diff_sum version_diff_min version_diff_max "
            "policy_lag stopped_at stopped_by learning_ns",
        ),
    ],
)
def test_the_order_of_each_records_words_is_pinned(record: Record, fields: str) -> None:
    assert record.fields == tuple(fields.split())
    assert record.num_bytes % 64 == 0


def test_the_offsets_of_the_segment_are_pinned() -> None:
    layout = MasterLayout(num_learners=2, trainable_bytes=5000)
    assert (layout.sizes_at, layout.commit_at, layout.pace_at) == (128, 192, 256)
    assert [layout.control_at(0), layout.status_at(0), layout.control_at(1)] == [320, 384, 576]
    assert [layout.array_at(array) for array in (0, 1, 7)] == [4096, 4096 + 8192, 4096 + 7 * 8192]
    assert layout.num_bytes == 4096 + 8 * 8192
