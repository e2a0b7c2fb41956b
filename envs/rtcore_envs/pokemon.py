"""Battles and catching in Pokemon Red, Blue and Yellow, from the user's own ROM.

The worlds ``rtcore/PokemonBattles-v0`` and ``rtcore/PokemonCatching-v0``. Which of the three games is played
follows from the ROM. The addresses are those of Red and Blue; in Yellow everything lies one byte lower.
"""

from typing import Any, ClassVar

from rtcore_envs.userrom import UserRomEnv

PARTY_SIZE = 6
POKEMON_BYTES = 44

#: Hit points of the first of one's own and of the opponent's, 2 bytes, the high one first; the others follow at a
#: distance of `POKEMON_BYTES`. 0 where there is none.
MY_HP = 0xD16C
OPPONENT_HP = 0xD8A5
#: One bit for each kind that has ever been caught.
OWNED = 0xD2F7
NUM_OWNED_BYTES = 19
#: Pokemon in the current box.
BOX_COUNT = 0xDA80
#: 0 no battle, 1 against a wild one, 2 against a trainer, -1 lost.
IN_BATTLE = 0xD057

#: Added to every address.
ADDRESS_SHIFT = {"pokemon-red": 0, "pokemon-blue": 0, "pokemon-yellow": -1}


class PokemonEnv(UserRomEnv):
    """What the two worlds have in common. ``states=None``: the start states in `states.state_folder`."""

    games: ClassVar[tuple[str, ...]] = tuple(ADDRESS_SHIFT)

    def _address(self, address: int) -> int:
        """Where the thing lies in the game that is played."""
        return address + ADDRESS_SHIFT[self.known_rom.key]

    def _hit_points(self, first: int) -> tuple[int, ...]:
        """Of six Pokemon, from the address of the first."""
        start, memory = self._address(first), self._memory
        places = range(start, start + PARTY_SIZE * POKEMON_BYTES, POKEMON_BYTES)
        return tuple(int(memory[place] << 8 | memory[place + 1]) for place in places)


class PokemonBattlesEnv(PokemonEnv):
    """Fight: make the opponent's Pokemon faint, keep one's own.

    Reward, per frame: -1 for each of one's own six Pokemon whose hit points fall from above 0 to 0, +1 for each of
    the opponent's. The first frame of an episode never pays. Terminates when all six of a side are at 0 (places
    without a Pokemon are). Never truncates by itself.

    Info: ``my_hp``, ``opponent_hp`` (six int each), ``won`` (bool: the last reward that was not 0 was positive),
    ``state`` (name of the start state).

    ``reference_quirks=True`` pays at most one faint a frame, as the reference code does: one's own first.
    The rest is as in `UserRomEnv`.
    """

    world: ClassVar[str] = "battles"

    _mine: tuple[int, ...] = ()
    _theirs: tuple[int, ...] = ()
    _won = False

    def _begin_rewards(self, memory: Any) -> None:
        self._mine = self._theirs = (0,) * PARTY_SIZE
        self._won = False

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        mine, theirs = self._hit_points(MY_HP), self._hit_points(OPPONENT_HP)
        lost = _num_fainted(self._mine, mine)
        won = _num_fainted(self._theirs, theirs)
        if self._quirks:
            lost, won = (1, 0) if lost else (0, min(won, 1))
        self._mine, self._theirs = mine, theirs
        reward = won - lost
        if reward:
            self._won = reward > 0
        return float(reward), not any(mine) or not any(theirs)

    def _info(self) -> dict[str, Any]:
        points = {"my_hp": self._hit_points(MY_HP), "opponent_hp": self._hit_points(OPPONENT_HP)}
        return super()._info() | points | {"won": self._won}


def _num_fainted(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    return sum(old > 0 and new == 0 for old, new in zip(before, after, strict=True))


class PokemonCatchingEnv(PokemonEnv):
    """Catch the wild Pokemon, before it or oneself is gone.

    Reward, per frame, the first of these that applies; the first frame of an episode never pays:

    1. the box holds one more than a frame ago: +1, or 0 if something was caught before in this episode;
    2. something was noted as owned that was not before, and nothing was caught before: +1;
    3. the battle's state falls: -1 (it got away, or the battle was lost), or 0 if something was caught before.

    A catch shows in the box, in the notes, or in both at once, and is paid once. Terminates when there is no
    battle. Never truncates by itself.

    Info: ``caught`` (bool), ``in_battle`` (int: 1 wild, 2 trainer, 0 none, -1 lost), ``box`` (int: Pokemon in the
    box), ``state`` (name of the start state).

    ``reference_quirks=True`` pays the same: what the reference code forgets to store (the battle's state, in the
    frame of a catch) never changes a reward. The rest is as in `UserRomEnv`.
    """

    world: ClassVar[str] = "catching"

    #: Box, owned, battle of the frame before; None before the first.
    _before: tuple[int, list[int], int] | None = None
    _caught = False

    def _begin_rewards(self, memory: Any) -> None:
        self._before = None
        self._caught = False

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        owned_start = self._address(OWNED)
        box = int(memory[self._address(BOX_COUNT)])
        owned = memory[owned_start : owned_start + NUM_OWNED_BYTES]
        battle = self._signed(self._address(IN_BATTLE))
        before, self._before = self._before, (box, owned, battle)
        reward = 0
        if before is not None:
            old_box, old_owned, old_battle = before
            if box == old_box + 1 or (owned != old_owned and not self._caught):
                reward = 1 - self._caught
                self._caught = True
            elif battle < old_battle:
                reward = self._caught - 1
        return float(reward), battle == 0

    def _info(self) -> dict[str, Any]:
        in_battle = self._signed(self._address(IN_BATTLE))
        box = int(self._memory[self._address(BOX_COUNT)])
        return super()._info() | {"caught": self._caught, "in_battle": in_battle, "box": box}
