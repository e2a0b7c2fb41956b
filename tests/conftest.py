"""Which tests run beside each other, where several do (`pytest -n 3`, as in `make test`).

Those with real processes run in two rows, as two of them fill a small machine; the others, file by file, beside them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

#: Those of tests/process/ that are in the other row, so that both take about as long.
_BESIDE_THE_FAULTS = tuple(
    f"tests/process/test_{part}" for part in ("slow", "stress", "top", "trace", "video", "weights")
)


def pytest_configure() -> None:
    # Worlds and policies named by a string, such as "tests.support.virtual_worlds:Signs", are looked for by processes
    # that the tests start.
    folders = (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    # A shell ignores the one for what it starts in the background, nohup the other, and so would every program that the
    # tests start.
    for signum, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In place of `--dist loadgroup`, which does not see its groups under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith(("tests/fault/", *_BESIDE_THE_FAULTS)):
                return "tests/fault/"
            return "tests/process/" if file.startswith("tests/process/") else file

    return Scheduling(config, log)
