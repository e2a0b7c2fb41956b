"""Errors in words."""

import pickle

import pytest

from rtcore.errors import WorkerDied, describe_exit

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [(-9, "killed by SIGKILL"), (-11, "killed by SIGSEGV"), (-63, "killed by signal 63"), (3, "exit code 3")],
)
def test_a_death_is_told_by_its_signal_or_its_exit_code(exitcode: int, words: str) -> None:
    assert describe_exit(exitcode) == words


def test_worker_died_keeps_its_facts_through_pickle() -> None:
    error = pickle.loads(pickle.dumps(WorkerDied("worker", 3, 4711, -9)))
    assert (error.role, error.index, error.pid, error.exitcode) == ("worker", 3, 4711, -9)


@pytest.mark.parametrize(("exitcode", "where"), [(-9, "out of memory?"), (-11, "its own error output, above")])
def test_who_died_by_force_left_no_words_and_who_broke_down_may_have(exitcode: int, where: str) -> None:
    assert where in str(WorkerDied("worker", 3, 4711, exitcode))
