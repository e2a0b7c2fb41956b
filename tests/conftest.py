"""Where tests find what they start, and in which order they run where several do beside each other (`make test`)."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rtcore.processes.servers import shared_imports
from rtcore.report.log import lines_to

#: Start first: those that come last would be waited for. In this order: of those that start processes the longest wait
#: most, and not two beside each other, as the machine would wait with them.
_LONGEST = (
    *("test_examples.py", "test_world_ends.py", "test_ends.py", "test_runtime.py", "test_policy_processes.py"),
    *("test_kills.py", "test_top_attached.py", "test_realtime_env.py", "test_learning.py", "test_recording_runs.py"),
    *("test_bad_input.py", "test_what_a_late_action_knows.py", "test_values.py", "test_damaged_files.py"),
)


# What a helper asserts is shown with its values, as in a test.
pytest.register_assert_rewrite("tests.support")


def pytest_configure() -> None:
    # Worlds and policies named by a string, such as "tests.support.virtual_worlds:Signs", are looked for by processes
    # that the tests start.
    tree = Path(__file__).parents[1]
    folders = (*map(str, (tree, tree / "workers", tree / "envs")), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    # Images of containers often forbid Python to keep what it compiled. Then every program that the tests start, and
    # every row, would compile all of rtcore and of the tests again: a tenth of the time of `make test`.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # As the programs do (rtcore.cli): NumPy's threads are not to look for work where others have some.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    from tests.support.drawn import register_profiles

    register_profiles()
    # A shell ignores the one for what it starts in the background, nohup the other, and so would every program that the
    # tests start.
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, handler)


def pytest_collection() -> None:
    # Imports make what stays. Looking through all of it over and over is a tenth of their time.
    gc.disable()


def pytest_collection_finish() -> None:
    # What is there now stays, and no later collection has to walk it.
    gc.enable()
    gc.collect()
    gc.freeze()
    # Tests make much that lasts as long as their module. To look through it as often as usual is a tenth of their time.
    gc.set_threshold(7_000, 10, 10)


@pytest.fixture
def run_here(capfd: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_to_end` without a Python of its own for the program: what it starts is as real, and it says the same."""
    from rtcore.cli.run import main
    from tests.support.drills import segments, wait_for

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        output, errors = capfd.readouterr()
        wait_for(lambda: not segments(os.getpid()), "shared memory to be removed")
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, output, errors)

    return run


@pytest.fixture(scope="session", autouse=True)
def _shared_imports() -> Iterator[None]:
    """Tests that start runs in their own process import what these need once; programs that tests start do not."""
    with shared_imports():
        yield


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What rtcore logs, as its programs show it, the newest last."""
    lines: list[str] = []
    with lines_to(lines.append, environment={}):
        yield lines


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """File by file, as `--dist loadfile`, in the order of the collection."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several rows: files that start processes, and wait for them, spread among those that only compute."""
    if not config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    starting = [path for path in files if path.parent.name in ("fault", "process")]
    longest = sorted((path for path in starting if path.name in _LONGEST), key=lambda path: _LONGEST.index(path.name))
    others = [path for path in starting if path not in longest]
    computing = sorted((path for path in files if path not in starting), key=lambda path: path.name not in _LONGEST)
    # Those that start processes are through a little sooner: what is left then are many short files, for every row.
    rows = ((longest, 0.6), (others, 0.85), (computing, 1))
    places = {path: share * index / len(row) for row, share in rows for index, path in enumerate(row)}
    items[:] = [item for path in sorted(files, key=places.__getitem__) for item in files[path]]
