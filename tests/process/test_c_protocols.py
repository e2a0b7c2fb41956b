"""The C protocols between threads: as they are, under ThreadSanitizer, and compiled for ARM64 and run by QEMU.

ThreadSanitizer knows the orders of loads and stores, but not those of fences. So where records are overwritten while
they are read it is shown relaxed copies (else it would report those that are not used), and looks for every other race;
and where nobody overwrites what is read, plain copies: then the orders of the numbers alone must keep them apart. What
the fences do is tried by spin (tests/interleaving/test_weak_memory.py).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from rtcore import _tick

SOURCE = Path(__file__).parents[1] / "c" / "protocols.c"
#: With the number of rounds. Where each thread waits for the other, a round takes two time slices on a busy machine.
OVERWRITING = {"ring": 5_000, "slots": 5_000}
WAITING = {"ring_without_laps": 500, "jobs": 100, "sleep": 100, "message_passing": 100}
ALL = OVERWRITING | WAITING | {"store_buffering": 100}
PLAIN = ("-g", "-O1", "-fsanitize=thread")
SANITIZED = (*PLAIN, "-DRT_ATOMIC_COPY")
DATA_RACE = 66
PROTOCOL = Path(_tick.__file__).parent / "protocol.h"
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

    def build(name: str, *options: str, compiler: str = "gcc", protocol: str = "") -> Path:
        place = folder / name
        place.mkdir()
        (place / "protocol.h").write_text(protocol or PROTOCOL.read_text())
        strict = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-tsan", "-pthread")
        command = (compiler, *strict, *options, f"-I{place}", str(SOURCE), "-o", str(place / "protocols"))
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if "libtsan" in done.stderr:
            pytest.skip("needs gcc's libtsan")
        assert done.returncode == 0, done.stderr
        return place / "protocols"

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


def require_good(command: Sequence[Path | str], tests: Mapping[str, int]) -> None:
    for test, rounds in tests.items():
        code, output = run(*command, test, str(rounds))
        assert code == 0, f"{test}: {output}"


def test_every_copy_that_counts_as_whole_is_and_no_wake_up_is_lost(build):
    require_good([build("native", "-O2")], ALL)


def test_thread_sanitizer_finds_nothing(build):
    require_good([build("sanitized", *SANITIZED)], ALL)
    require_good([build("plain", *PLAIN)], WAITING)


@pytest.mark.parametrize("letter", ("W2", "R1"))
def test_thread_sanitizer_finds_that_an_ordering_is_missing(build, letter):
    """Those of the numbers. One function serves all records: (W2) is (W3) and (W4), too, (R1) is (R3) and (R4)."""
    lines = PROTOCOL.read_text().splitlines(keepends=True)
    (place,) = (number for number, line in enumerate(lines) if f"({letter})" in line and "atomic_" in line)
    lines[place], count = re.subn("memory_order_(release|acquire)", "memory_order_relaxed", lines[place])
    assert count == 1
    program = build(letter, *PLAIN, protocol="".join(lines))
    for test in ("ring_without_laps", "jobs"):
        code, output = run(program, test, str(WAITING[test]))
        assert (code, "data race" in output) == (DATA_RACE, True), f"{test}: {output}"


needs_arm64_tools = pytest.mark.skipif(
    shutil.which(ARM64_COMPILER) is None or shutil.which(QEMU) is None,
    reason="needs Debian's gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user-static",
)


@needs_arm64_tools
def test_the_same_for_arm64(build):
    program = build("arm64", "-O2", "-static", compiler=ARM64_COMPILER)
    require_good([QEMU, program], ALL)


@needs_arm64_tools
def test_the_extension_is_compiled_for_arm64(tmp_path):
    """To an object: there is no Python of ARM64 here to load it. Both are 64 bits wide, so this one's headers do."""
    headers = sysconfig.get_path("include")
    options = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f"-isystem{headers}", "-fPIC", "-c")
    command = (ARM64_COMPILER, *options, str(PROTOCOL.parent / "module.c"), "-o", str(tmp_path / "module.o"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
