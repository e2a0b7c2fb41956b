"""The physical limit: the same ring and the same protocol between two C programs (`limit.c`), compiled on the spot.

What is left between rtcore and these numbers is Python; what is left between these and zero is the machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from rtcore.errors import RtcoreError, describe_exit
from rtcore.memory.layout import FRAME_HEADER, Layout
from rtcore.memory.segments import SHM_DIR, segment_name
from rtcore.profile.children import Placement, put
from rtcore.profile.transports import Frame, OwnReaders, Rhythm, Ring, Shape

_SOURCE = Path(__file__).with_name("limit.c")
_COMPILERS = ("cc", "gcc", "clang")


def find_compiler() -> str | None:
    """$CC if it is one program, else the first of cc, gcc, clang on the path."""
    names = (os.environ.get("CC", ""), *_COMPILERS)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def why_missing() -> str | None:
    """Why the limit cannot be measured here; None if it can."""
    if find_compiler() is None:
        return f"no C compiler found (looked for {', '.join(_COMPILERS)}): the physical limit is not measured"
    return None


def compile_limit(folder: Path) -> Path:
    """Compile into `folder`; `RtcoreError` with the compiler's words if that fails."""
    compiler = find_compiler()
    if compiler is None:
        raise RtcoreError(f"{why_missing()}; install one (apt install gcc) or set CC")
    program = folder / "limit"
    words = [compiler, "-std=c11", "-O2", "-o", str(program), str(_SOURCE)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RtcoreError(f"{' '.join(words)} failed ({describe_exit(done.returncode)}):\n{done.stderr.strip()}")
    return program


class LimitProcess:
    """One end of the limit, as a process that takes a line and answers with lines. Its creator closes it."""

    def __init__(self, program: Path, role: str, mode: str, run_id: str, layout: Layout) -> None:
        numbers = (
            layout.ring_control_at,
            layout.headers_at,
            layout.header_stride_bytes,
            layout.frames_at,
            layout.frame_stride_bytes,
            layout.frame_bytes,
            layout.ring_slots,
            FRAME_HEADER.index["publish_ns"],
        )
        ring = SHM_DIR / segment_name(run_id, "ring").lstrip("/")
        words = [str(program), role, mode, str(ring), *map(str, numbers)]
        self._role = role
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, *numbers: int) -> None:
        pipe = _open(self._process.stdin)
        pipe.write(" ".join(map(str, numbers)) + "\n")
        pipe.flush()

    def line(self) -> str:
        """The next answer; `RtcoreError` if the process ended instead."""
        text = _open(self._process.stdout).readline()
        if not text:
            raise RtcoreError(f"the C {self._role} of the limit ended: {describe_exit(self._process.wait())}")
        return text.strip()

    def times_ns(self) -> list[int]:
        return [int(word) for word in self.line().split()]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _open(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RtcoreError("the limit's process was started without pipes")
    return pipe


class LimitTransport(OwnReaders):
    """`mode`: "spin", a reader that looks without a pause, or "futex", one that the kernel wakes."""

    def __init__(self, mode: str, shape: Shape, readers: int) -> None:
        super().__init__()
        self.name = f"c-{mode}"
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtcore-profile-")))
            program = compile_limit(folder)
            ring = Ring(shape, readers)
            stack.callback(ring.close)
            ends = []
            for role in ("write", *["read"] * readers):
                ends.append(LimitProcess(program, role, mode, ring.run_id, ring.layout))
                stack.callback(ends[-1].close)
            self._writer, *self._readers = ends
            self._stack = stack.pop_all()

    def place(self, placement: Placement) -> None:
        put(self._writer.pid, placement.publisher)
        for reader in self._readers:
            put(reader.pid, placement.readers)

    def begin(self, count: int) -> None:
        for reader in self._readers:
            reader.tell(count)
        for reader in self._readers:
            reader.line()

    def run_block(self, count: int, frame: Frame, rhythm: Rhythm) -> list[int]:
        """The writer makes its own frames of the same size, in the same rhythm."""
        self._writer.tell(count, *rhythm)
        return self._writer.times_ns()

    def collect(self) -> list[list[int]]:
        return [reader.times_ns() for reader in self._readers]

    def close(self) -> None:
        self._stack.close()
