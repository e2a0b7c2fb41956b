"""What a process loads before it needs it: nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

HEAVY = {"torch", "numpy", "gymnasium", "matplotlib", "rich", "h5py", "av", "posix_ipc", "rtcore_workers"}
HELP = """
import sys
sys.argv = ["rtcore-run", "--help"]
try:
    from rtcore.cli.entry import main
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    ("program", "also"),
    (("import rtcore\n", {"pydantic", "asyncio"}), (HELP, {"rtcore.runtime"})),
    ids=("import rtcore", "rtcore-run --help"),
)
def test_nothing_is_imported_that_is_not_needed(program: str, also: set[str]) -> None:
    code = f"{program}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (HEAVY | also) & set(done.stderr.split())
    assert program != HELP or "--env-id" in done.stdout
