"""The rules of CELLAR in Python, and a scripted player: a yardstick for learned policies, delayed or not.

Written from roms/README.md, not from the C source, so that tests can hold one against the other.
"""

from collections.abc import Sequence

#: The part of work RAM that `CatchBot.act` wants: ``env.memory[RAM_START:RAM_STOP]``.
RAM_START = 0xC000
RAM_STOP = 0xC030

LEFT, RIGHT, NOTHING = range(3)

BUCKET_SPEED = 2
DROP_SPEED = 2
REACH = 12
LANDING = 90


def drops_of(ram: Sequence[int]) -> list[tuple[int, int]]:
    """(frames until it is down, x) of each falling drop, the lowest first; ``ram`` starts at `RAM_START`."""
    falling = [(ram[at + 1], ram[at]) for at in range(0x20, 0x30, 2) if ram[at + 1]]
    return sorted(((LANDING - fallen) // DROP_SPEED, x) for fallen, x in falling)


class CatchBot:
    """Moves towards the next drop that can still be answered, and remembers nothing.

    So it may see the memory of any fixed number of ticks ago, and several of it, each a few ticks behind the other, may
    take turns: a player that remembers cannot be staggered without sharing what it remembers.

    Args:
        delay_ticks: from the memory that it sees to the frame in which its key is down. A drop that is down by then
            is none of its business. What is pressed meanwhile it does not know, so it stops that far before the drop.
        every_tick: whether a key follows in every tick, or in one of `delay_ticks`. The bucket then goes so slowly that
            it is better to leave the next drop alone, and to make for the one after it.
    """

    def __init__(self, delay_ticks: int, *, every_tick: bool = True) -> None:
        self._too_late_ticks = delay_ticks if every_tick else 2 * delay_ticks
        self._near = min(BUCKET_SPEED * delay_ticks // 2, REACH) if every_tick else 1

    def act(self, ram: Sequence[int]) -> int:
        """The action after seeing ``ram``, work RAM from `RAM_START` to `RAM_STOP`."""
        bucket, rat = ram[0x10], ram[0x11]
        target = next((x for frames, x in drops_of(ram) if frames > self._too_late_ticks), rat)
        if abs(target - bucket) <= self._near:
            return NOTHING
        return LEFT if target < bucket else RIGHT
