from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt

from rtcore.scheduling.jobs import Job

VERSION: int

@final
class Store:
    """Numbered records of one writer, in slots that are used again (`rt_store` of protocol.h).

    They do the plain case only. False or -1: nothing was touched; the Python text does it, or raises the error.
    """

    def __new__(
        cls,
        row: type[tuple[Any, ...]],
        lead: int | None,
        num_words: int,
        seq_at: int,
        doubles: int,
        late: int,
        buffer: memoryview,
        at: int,
        stride: int,
        num_slots: int,
        done_at: int,
        begun_at: int,
        /,
    ) -> Store: ...
    def add_part(
        self, buffer: memoryview, at: int, stride: int, num_bytes: int, dtype: np.dtype[Any] | None, /
    ) -> None: ...
    def newest(self) -> int: ...
    def write(self, row: tuple[Any, ...], /) -> bool: ...
    def stage(self, draft: Any, /) -> None: ...
    def publish(self, array: npt.NDArray[Any], record: Any, /, *parts: bytes) -> bool: ...
    def read(self, seq: int, /) -> tuple[int, Any]: ...
    def read_into(self, seq: int, out: npt.NDArray[Any], /) -> int: ...
    def read_by(self, seq: int, out: npt.NDArray[Any], until_ns: int, /) -> tuple[int, Any, int, int]: ...

@final
class Words:
    """8-byte integers, each access ordered as x86-64 orders it."""

    def __new__(cls, buffer: memoryview, /) -> Words: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...
    def sample(self, value: int, /) -> None: ...
    def wake(self, index: int, bits: int, /) -> int: ...
    def wait(self, index: int, seen: int, bits: int, deadline_ns: int, /) -> int: ...

def fence() -> None: ...
def book(
    stores: list[Store],
    jobs: Sequence[Job],
    generations: Mapping[int, int],
    waker: Waker | None,
    frame_seq: int,
    booked_ns: int,
    phase_seq: int,
    /,
) -> list[Job]: ...
def give_context(
    sizes: tuple[int, ...],
    job: Job,
    pieces: list[Any],
    seed: int,
    episode: int,
    is_first: int,
    state_tick: int,
    features_tick: int,
    state: bytes,
    /,
) -> Job | None: ...

@final
class Waker:
    """What `memory.waiting.Waker` does for workers."""

    def __new__(
        cls,
        control: memoryview,
        posted_at: int,
        posted_stride: int,
        asleep_at: int,
        asleep_stride: int,
        num_workers: int,
        ring: memoryview,
        frame_at: int,
        /,
    ) -> Waker: ...
    def for_frame(self, workers: Sequence[int], /) -> None: ...
    def for_jobs(self, workers: Sequence[int], /) -> None: ...
    def ahead(self, workers: Sequence[int], /) -> None: ...
