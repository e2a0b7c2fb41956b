"""Every rule of the battles, through the memory of a real emulator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drawn import examples
from tests.support.probe_worlds import POKEMON, PokemonProbe

pytestmark = pytest.mark.unit

#: As the table of the reference code has them, written out: Red and Blue, first to sixth.
MINE = (53612, 53656, 53700, 53744, 53788, 53832)
THEIRS = (55461, 55505, 55549, 55593, 55637, 55681)


class Fight(PokemonProbe):
    """A world in the middle of a battle: six against six, all at 10 points, after the first frame."""

    def __init__(self, folder, game, **arguments):
        super().__init__(folder, game, "battles", {address + 1: 10 for address in MINE + THEIRS}, **arguments)

    def begin(self, mine=(10,) * 6, theirs=(10,) * 6):
        self.env.reset(seed=0)
        return self.after(mine, theirs)

    def after(self, mine, theirs):
        for addresses, points in ((MINE, mine), (THEIRS, theirs)):
            for address, value in zip(addresses, points, strict=True):
                self.write(address, value >> 8)
                self.write(address + 1, value & 255)
        return self.step()


@pytest.fixture(scope="module", params=POKEMON)
def fight(request, tmp_path_factory):
    fight = Fight(tmp_path_factory.mktemp("fight"), request.param)
    yield fight
    fight.env.close()


@pytest.fixture(scope="module")
def quirky(tmp_path_factory):
    fight = Fight(tmp_path_factory.mktemp("quirky"), "pokemon-red", reference_quirks=True)
    yield fight
    fight.env.close()


ALL = (10,) * 6


def without(*places):
    return tuple(0 if place in places else 10 for place in range(6))


@pytest.mark.parametrize("place", range(6))
def test_each_of_the_opponents_that_faints_pays_one(fight, place):
    fight.begin()
    assert fight.after(ALL, without(place)) == (1.0, False)
    assert fight.step() == (0.0, False), "once"


@pytest.mark.parametrize("place", range(6))
def test_each_of_ones_own_that_faints_costs_one(fight, place):
    fight.begin()
    assert fight.after(without(place), ALL) == (-1.0, False)
    assert fight.step() == (0.0, False), "once"


def test_damage_that_leaves_a_point_pays_nothing(fight):
    fight.begin()
    assert fight.after((1,) * 6, (1,) * 6) == (0.0, False)


def test_hit_points_are_two_bytes_the_high_one_first(fight):
    fight.begin((300,) * 6, (256,) * 6)
    assert fight.info["my_hp"] == (300,) * 6
    assert fight.after((300,) * 6, (0, 256, 256, 256, 256, 256)) == (1.0, False)
    assert fight.after((256, 1, 1, 1, 1, 1), (0, 255, 256, 256, 256, 256)) == (0.0, False)


def test_the_first_frame_never_pays(fight):
    assert fight.begin(without(0), without(1)) == (0.0, False)


def test_two_faints_of_a_side_in_one_tick_are_paid_both(fight):
    fight.begin()
    assert fight.after(ALL, without(1, 4)) == (2.0, False)
    assert fight.after(without(0, 5), without(1, 4)) == (-2.0, False)


def test_a_faint_on_each_side_in_one_tick_cancels_out(fight):
    fight.begin()
    assert fight.after(without(2), without(3)) == (0.0, False)


def test_one_that_is_healed_can_faint_again(fight):
    fight.begin()
    assert fight.after(ALL, without(0)) == (1.0, False)
    assert fight.after(ALL, ALL) == (0.0, False)
    assert fight.after(ALL, without(0)) == (1.0, False)


def test_the_battle_ends_when_the_last_of_the_opponents_faints(fight):
    fight.begin(ALL, without(0, 1, 2, 3, 4))
    assert fight.after(ALL, (0,) * 6) == (1.0, True)
    assert fight.info["won"] is True
    assert fight.info["opponent_hp"] == (0,) * 6


def test_the_battle_ends_when_the_last_of_ones_own_faints(fight):
    fight.begin(without(1, 2, 3, 4, 5), ALL)
    assert fight.after((0,) * 6, ALL) == (-1.0, True)
    assert fight.info["won"] is False


def test_an_empty_side_ends_the_battle_in_the_first_frame_too(fight):
    assert fight.begin(ALL, (0,) * 6) == (0.0, True)


def test_a_new_episode_forgets_the_battle_before(fight):
    fight.begin()
    fight.after(ALL, without(0))
    _, info = fight.env.reset()
    assert info["won"] is False
    assert info["my_hp"] == ALL, "from the start state"
    assert fight.step() == (0.0, False)


def test_with_the_quirks_of_the_reference_one_faint_is_paid_and_ones_own_first(quirky):
    quirky.begin()
    assert quirky.after(ALL, without(0, 1)) == (1.0, False)
    assert quirky.step() == (0.0, False), "the second is lost"
    assert quirky.after(without(3, 4), without(0, 1, 2)) == (-1.0, False)
    assert quirky.step() == (0.0, False)


# -- against a model of the rules --------------------------------------------------------------------------------

POINTS = st.sampled_from([0, 0, 1, 255, 256, 700])
SIDE = st.lists(POINTS, min_size=6, max_size=6).map(tuple)
FRAMES = st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=12)


def model(frames, quirks):
    """Rewards and end of an episode by the table, place by place in its order."""
    previous, played = [0] * 12, []
    for mine, theirs in frames:
        now = [*mine, *theirs]
        payments = []
        for place in range(12):
            if previous[place] > 0 and now[place] == 0:
                payments.append(-1 if place < 6 else 1)
        played.append((float(sum(payments[:1] if quirks else payments)), max(now[:6]) == 0 or max(now[6:]) == 0))
        previous = now
    return played


@examples(40)
@given(frames=FRAMES)
def test_any_course_of_a_battle_is_paid_as_the_model_says(fight, frames):
    fight.env.reset(seed=0)
    assert [fight.after(*frame) for frame in frames] == model(frames, quirks=False)


@examples(40)
@given(frames=FRAMES)
def test_any_course_of_a_battle_with_quirks_is_paid_as_the_reference_pays_it(quirky, frames):
    quirky.env.reset(seed=0)
    assert [quirky.after(*frame) for frame in frames] == model(frames, quirks=True)
