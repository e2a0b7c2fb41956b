"""Every rule of catching, through the memory of a real emulator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drawn import examples
from tests.support.probe_worlds import POKEMON, PokemonProbe

pytestmark = pytest.mark.unit

#: As the table of the reference code has them: Red and Blue.
OWNED, BOX, BATTLE = range(0xD2F7, 0xD30A), 55936, 53335
LOST = 255  # -1 as a byte


class Hunt(PokemonProbe):
    """A world in a battle against a wild Pokemon, with three in the box."""

    def __init__(self, folder, game, **arguments):
        super().__init__(folder, game, "catching", {BOX: 3, BATTLE: 1}, **arguments)

    def begin(self, **values):
        self.env.reset(seed=0)
        return self.after(**values)

    def after(self, box=None, battle=None, owned=None):
        """Write what is given, run a frame, tell reward and end. `owned` is {number of the byte: value}."""
        if box is not None:
            self.write(BOX, box)
        if battle is not None:
            self.write(BATTLE, battle)
        for place, value in (owned or {}).items():
            self.write(OWNED[place], value)
        return self.step()


@pytest.fixture(scope="module", params=POKEMON)
def hunt(request, tmp_path_factory):
    hunt = Hunt(tmp_path_factory.mktemp("hunt"), request.param)
    yield hunt
    hunt.env.close()


@pytest.fixture(scope="module")
def quirky(tmp_path_factory):
    hunt = Hunt(tmp_path_factory.mktemp("quirky"), "pokemon-red", reference_quirks=True)
    yield hunt
    hunt.env.close()


def test_one_more_in_the_box_pays_one(hunt):
    hunt.begin()
    assert hunt.after(box=4) == (1.0, False)
    assert hunt.info["caught"] is True
    assert hunt.info["box"] == 4
    assert hunt.after() == (0.0, False), "once"


@pytest.mark.parametrize("place", range(19))
def test_a_change_of_any_byte_of_the_notes_pays_one(hunt, place):
    hunt.begin()
    assert hunt.after(owned={place: 0x80}) == (1.0, False)
    assert hunt.info["caught"] is True


@pytest.mark.parametrize("address", [OWNED[0] - 1, OWNED[18] + 1])
def test_the_bytes_beside_the_notes_pay_nothing(hunt, address):
    hunt.begin()
    hunt.write(address, 0xFF)
    assert hunt.after() == (0.0, False)


def test_box_and_notes_in_one_tick_are_one_catch(hunt):
    hunt.begin()
    assert hunt.after(box=4, owned={7: 1}) == (1.0, False)
    assert hunt.after() == (0.0, False)


@pytest.mark.parametrize("later", [{"box": 4}, {"owned": {3: 2}}])
def test_what_follows_a_catch_pays_nothing_more(hunt, later):
    hunt.begin()
    assert hunt.after(owned={7: 1}) == (1.0, False)
    assert hunt.after(**later) == (0.0, False)


@pytest.mark.parametrize("box", [2, 5, 0])
def test_the_box_must_rise_by_exactly_one(hunt, box):
    hunt.begin()
    assert hunt.after(box=box) == (0.0, False)
    assert hunt.info["caught"] is False


def test_an_escape_costs_one_and_ends_the_episode(hunt):
    hunt.begin()
    assert hunt.after(battle=0) == (-1.0, True)
    assert hunt.info["in_battle"] == 0


def test_the_end_of_the_battle_after_a_catch_costs_nothing(hunt):
    hunt.begin()
    assert hunt.after(box=4) == (1.0, False)
    assert hunt.after(battle=0) == (0.0, True)


def test_a_catch_in_the_frame_in_which_the_battle_ends_pays_one(hunt):
    hunt.begin()
    assert hunt.after(box=4, battle=0) == (1.0, True)


def test_a_lost_battle_costs_one_and_does_not_end_the_episode_by_itself(hunt):
    hunt.begin()
    assert hunt.after(battle=LOST) == (-1.0, False)
    assert hunt.info["in_battle"] == -1
    assert hunt.after(battle=0) == (0.0, True)


def test_from_a_trainer_to_a_wild_one_counts_as_a_fall(hunt):
    hunt.begin(battle=2)
    assert hunt.after(battle=1) == (-1.0, False)


def test_the_first_frame_never_pays_and_may_end(hunt):
    assert hunt.begin(box=4, owned={0: 1}) == (0.0, False)
    assert hunt.begin(battle=0) == (0.0, True)


def test_a_new_episode_can_catch_again(hunt):
    hunt.begin()
    assert hunt.after(box=4) == (1.0, False)
    _, info = hunt.env.reset()
    assert info == {"state": "first", "caught": False, "in_battle": 1, "box": 3}
    assert hunt.after() == (0.0, False)
    assert hunt.after(box=4) == (1.0, False)


# -- against a model of the reference code -----------------------------------------------------------------------

FRAME = st.fixed_dictionaries(
    {},
    optional={
        "box": st.integers(2, 6),
        "battle": st.sampled_from([0, 1, 1, 2, LOST]),
        "owned": st.dictionaries(st.integers(0, 18), st.sampled_from([0, 1, 0x80]), max_size=2),
    },
)


class Reference:
    """The order of checks and of stores of the reference code, with what it forgets to store."""

    def __init__(self):
        self.box, self.owned, self.battle = 3, [0] * 19, 1
        self.first, self.caught = True, 0
        self.stored = None

    def step(self, frame):
        self.box = frame.get("box", self.box)
        self.battle = frame.get("battle", self.battle)
        for place, value in frame.get("owned", {}).items():
            self.owned[place] = value
        battle = self.battle - 256 if self.battle > 127 else self.battle
        return float(self.reward(battle)), battle == 0

    def reward(self, battle):
        if self.first:
            self.first = False
            self.stored = (self.box, list(self.owned), battle)
            return 0
        box, owned, stored_battle = self.stored
        if self.box - box == 1:
            payment, self.caught = 1 - self.caught, 1
            self.stored = (self.box, list(self.owned), stored_battle)
            return payment
        if self.owned != owned and self.caught == 0:
            self.caught = 1
            self.stored = (self.box, list(self.owned), stored_battle)
            return 1
        self.stored = (self.box, list(self.owned), battle)
        return self.caught - 1 if battle < stored_battle else 0


COURSE = st.lists(FRAME, min_size=1, max_size=14)


@examples(40)
@given(frames=COURSE)
def test_any_course_of_a_hunt_is_paid_as_the_reference_pays_it(hunt, frames):
    reference = Reference()
    hunt.env.reset(seed=0)
    assert [hunt.after(**frame) for frame in frames] == [reference.step(frame) for frame in frames]


@examples(40)
@given(frames=COURSE)
def test_the_quirks_of_the_reference_change_no_reward_of_a_hunt(quirky, frames):
    reference = Reference()
    quirky.env.reset(seed=0)
    assert [quirky.after(**frame) for frame in frames] == [reference.step(frame) for frame in frames]
