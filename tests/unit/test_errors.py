"""Errors in words."""

import errno
import os
import pickle

import pytest

from rtcore.errors import WorkerDied, describe_exit, no_descriptor

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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), errno.EMFILE),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), errno.ENFILE),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), errno.EMFILE),
        (OSError("This process already has the maximum number of files open"), errno.EMFILE),
        (OSError("The system limit on the total number of open files has been reached"), errno.ENFILE),
        (FileNotFoundError(errno.ENOENT, "Too many open files"), 0),
        (ImportError("libx.so: cannot open shared object file: No such file or directory"), 0),
        (ValueError("Too many open files"), 0),
    ],
)
def test_that_no_file_descriptor_is_left_is_known_by_number_or_by_words(error: Exception, code: int) -> None:
    assert no_descriptor(error) == code
