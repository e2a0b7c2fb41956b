"""The parameter store on memory that is compared at every step, its broken variants, and who may be killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rtcore.memory.layout import ParamLayout
from rtcore.memory.weights import ParamStore, Version
from rtcore.torture.explorer import Exploration
from rtcore.torture.stepped import Killed, SteppedBuffer, SteppedWords, wait_until

WORDS = 2
WHOLE, TORN = "whole", "torn"


class SmallLayout(ParamLayout):
    """Without the room up to the next page: memory is compared at every step."""

    def buffer_at(self, buffer: int) -> int:
        return self.manifest_at + buffer * self.buffer_bytes


LAYOUT = SmallLayout(max_workers=1, manifest_bytes=0, buffer_bytes=8 * WORDS, trainable_bytes=8 * WORDS)


class StillClock:
    """No time passes; who sleeps goes on once a claim has changed."""

    def __init__(self, memory: bytearray) -> None:
        self._claims = slice(LAYOUT.claim_at(0), LAYOUT.claim_at(LAYOUT.max_workers))
        self._memory = memory

    def now_ns(self) -> int:
        return 0

    def sleep_until_ns(self, deadline_ns: int) -> None:
        del deadline_ns
        before = bytes(self._memory[self._claims])
        wait_until(lambda: bytes(self._memory[self._claims]) != before)


def weights(version: int) -> bytes:
    return version.to_bytes(8, "little") * WORDS


def fill(version: int) -> Callable[[Any], None]:
    return lambda buffer: buffer.__setitem__(slice(0, 8 * WORDS), weights(version))


def open_store(memory: bytearray, store_class: type[ParamStore] = ParamStore, **options: Any) -> ParamStore:
    buffer: Any = SteppedBuffer(memoryview(memory))
    return store_class(buffer, LAYOUT, clock=StillClock(memory), **options)


def new_memory() -> bytearray:
    """With version 1 in buffer 0."""
    memory = bytearray(LAYOUT.num_bytes)
    first = open_store(memory).publish(fill(1), wait_ns=1)
    assert first == Version(1, 0, 0, 0)
    return memory


def infer(store: ParamStore, times: int, read: Callable[[int], bytes] | None = None) -> list[tuple[int, str, bool]]:
    """A worker: what each of its inferences computed with. `read`: a buffer's weights; None: those of the store."""
    found = []
    for _ in range(times):
        claimed = store.claim(0, generation=1)
        used = bytes(store.buffer(claimed.buffer)) if read is None else read(claimed.buffer)
        intact = store.is_intact(claimed)
        store.release(0)
        found.append((claimed.version, WHOLE if used == weights(claimed.version) else TORN, intact))
    return found


def inferences_of(exploration: Exploration) -> set[Any]:
    return {one for _, results in exploration.outcomes for one in results["worker"]}


def is_torn(results: dict[str, Any]) -> bool:
    return any(what == TORN for _, what, _ in results["worker"])


class MortalBuffer(SteppedBuffer):
    """Who uses it dies when it is about to store for the `lives[0]`th time. Its loads change nothing."""

    def __init__(self, raw: memoryview, lives: list[int]) -> None:
        super().__init__(raw)
        self._lives = lives

    def cast(self, code: str) -> Any:
        return MortalWords(super().cast(code), self._lives)

    def __getitem__(self, part: slice) -> MortalBuffer:
        return MortalBuffer(self.raw[part], self._lives)

    def __setitem__(self, part: slice, data: bytes) -> None:
        for at in range(0, len(data), 8):
            spend(self._lives)
            SteppedBuffer.__setitem__(self, slice(part.start + at, part.start + at + 8), data[at : at + 8])


class MortalWords:
    """The same for 64-bit words."""

    def __init__(self, words: SteppedWords, lives: list[int]) -> None:
        self._words, self._lives = words, lives

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        spend(self._lives)
        self._words[index] = value


def spend(lives: list[int]) -> None:
    lives[0] -= 1
    if lives[0] < 0:
        raise Killed
