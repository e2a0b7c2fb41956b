"""A worker that answers with old weights is noticed, one that has nothing to do is not."""

import pytest

from rtcore.processes.workers import VersionWatch, WorkerVersion

pytestmark = pytest.mark.unit

S = 1_000_000_000


def looks(watch, rows):
    """Each row: time [s], the newest version, then (version, answers) of worker 0, 1, ..."""
    return [
        [
            late.worker
            for late in watch.find_late(
                int(at_s * S), newest, [WorkerVersion(w, *row) for w, row in enumerate(workers)]
            )
        ]
        for at_s, newest, *workers in rows
    ]


def test_a_worker_that_answers_but_stays_behind_is_reported_once():
    watch = VersionWatch()
    rows = [(0, 1, (1, 5), (1, 5)), (3, 4, (4, 9), (1, 9)), (6, 8, (8, 20), (1, 20)), (9, 12, (12, 30), (1, 30))]
    assert looks(watch, rows) == [[], [], [1], []]
    assert watch.behind == {1}


def test_an_idle_worker_is_not_behind():
    watch = VersionWatch()
    assert looks(watch, [(0, 1, (1, 5)), (6, 9, (1, 5)), (20, 30, (1, 5))]) == [[], [], []]


def test_nobody_is_behind_while_nothing_is_published_or_little():
    watch = VersionWatch()
    assert looks(watch, [(0, 1, (1, 5)), (60, 1, (1, 500)), (70, 3, (1, 600)), (80, 3, (1, 700))]) == [[], [], [], []]


def test_a_worker_that_moves_on_late_starts_anew():
    watch = VersionWatch()
    assert (
        looks(watch, [(0, 9, (1, 5)), (4, 9, (5, 9)), (8, 12, (5, 20)), (8.5, 12, (12, 30)), (13, 12, (12, 40))])
        == [[]] * 5
    )
