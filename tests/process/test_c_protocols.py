"""The C protocols between threads: as they are, under ThreadSanitizer, and compiled for ARM64 and run by QEMU.

ThreadSanitizer knows the orders of loads and stores, but not those of fences. So where records are overwritten while
they are read it is shown relaxed copies (else it would report those that are not used), and looks for every other race;
and where nobody overwrites what is read, plain copies: then the orders of the numbers alone must keep them apart. What
the fences do is tried by spin (tests/interleaving/test_weak_memory.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rtcore import _tick

SOURCE = Path(__file__).parents[1] / "c" / "protocols.c"
OVERWRITING = ("ring", "slots")
WAITING = ("ring_without_laps", "jobs", "sleep", "message_passing")
FENCES = ("store_buffering",)
SANITIZER = ("-g", "-O1", "-fsanitize=thread")
PLAIN = (*SANITIZER, "-DRT_PLAIN_COPY")
DATA_RACE = 66
ARM64_COMPILER, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"),
]

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles the program, with warnings as errors."""
    folder = tmp_path_factory.mktemp("protocols")

    def build(name: str, *options: str, compiler: str = "gcc") -> Path:
        program = folder / name
        if not program.exists():
            strict = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-tsan", "-pthread")
            include = f"-I{Path(_tick.__file__).parent}"
            command = (compiler, *strict, *options, include, str(SOURCE), "-o", str(program))
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
            if "libtsan" in done.stderr or "tsan.a" in done.stderr:
                pytest.skip("needs gcc's libtsan")
            assert done.returncode == 0, done.stderr
        return program

    return build


def run(*command: Path | str) -> tuple[int, str]:
    """Exit code and all output."""
    done = subprocess.run(
        command,
        env=os.environ | {"TSAN_OPTIONS": f"halt_on_error=1 exitcode={DATA_RACE}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def require_good(command: Sequence[Path | str], tests: Sequence[str], rounds: int) -> None:
    for test in tests:
        code, output = run(*command, test, str(rounds))
        assert code == 0, f"{test}: {output}"


def test_every_copy_that_counts_as_whole_is_and_no_wake_up_is_lost(build):
    require_good([build("native", "-O2")], (*OVERWRITING, *WAITING, *FENCES), 20_000)


def test_thread_sanitizer_finds_nothing(build):
    require_good([build("sanitized", *SANITIZER)], (*OVERWRITING, *WAITING, *FENCES), 2_000)
    require_good([build("plain", *PLAIN)], WAITING, 2_000)


@pytest.mark.parametrize("lacking", ("RT_DONE_ORDER", "RT_NEWEST_ORDER"))
def test_thread_sanitizer_finds_that_an_ordering_is_missing(build, lacking):
    program = build(lacking, *PLAIN, f"-D{lacking}=memory_order_relaxed")
    for test in ("ring_without_laps", "jobs"):
        code, output = run(program, test, "2000")
        assert (code, "data race" in output) == (DATA_RACE, True), f"{test}: {output}"


@pytest.mark.skipif(
    shutil.which(ARM64_COMPILER) is None or shutil.which(QEMU) is None,
    reason="needs Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static",
)
def test_the_same_for_arm64(build):
    program = build("arm64", "-O2", "-static", compiler=ARM64_COMPILER)
    require_good([QEMU, program], (*OVERWRITING, *WAITING, *FENCES), 2_000)
