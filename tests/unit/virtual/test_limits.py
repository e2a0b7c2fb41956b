"""Limits between what a policy asks for and what the world is given."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Source
from rtcore.scheduling.limits import ActionLimits
from tests.support.drawn import examples
from tests.support.recorded_runs import played_again, recorded
from tests.support.virtual_worlds import Handled

pytestmark = pytest.mark.unit

HZ = 100.0
BOUNDS = np.full(2, -1.0), np.full(2, 1.0)
ACTIONS = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.booleans()), min_size=1, max_size=30)


@given(actions=ACTIONS, velocity=st.floats(0.1, 300), acceleration=st.floats(1, 1e5))
@examples(80)
def test_no_action_is_further_from_the_last_one_than_the_limits_allow(
    actions: Any, velocity: float, acceleration: float
):
    limits = ActionLimits([("velocity", velocity), ("acceleration", acceleration)], HZ, *BOUNDS)
    last, speed = None, np.zeros(2)
    for *numbers, by_another in actions:
        asked = np.array(numbers)
        made, was_cut = limits.limited(asked)
        if last is None:
            assert (made == asked).all()
        elif not by_another:
            step = made - last
            assert (np.abs(step) <= velocity / HZ + 1e-9).all()
            within = (np.abs(step - speed) <= acceleration / HZ**2 + 1e-9) | (np.abs(made) == 1)
            # Who has to slow down below what velocity allows, and may not brake so fast, keeps to the velocity.
            assert (within | (np.abs(np.abs(step) - velocity / HZ) < 1e-9)).all()
            assert was_cut or np.allclose(made, asked)
        applied = asked if by_another else made
        limits.follow(applied, hand_over=by_another)
        speed = np.zeros(2) if by_another or last is None else applied - last
        last = applied


def test_smoothing_keeps_its_share_of_the_last_action_and_counts_as_no_cut():
    limits = ActionLimits([("smoothing", 0.75)], HZ, *BOUNDS)
    limits.follow(np.array([0.0, 1.0]))
    made, was_cut = limits.limited(np.array([1.0, 0.0]))
    assert made.tolist() == [0.25, 0.75]
    assert not was_cut


def test_after_another_hand_the_policy_begins_where_that_one_was_and_from_rest():
    limits = ActionLimits([("velocity", 50.0), ("acceleration", 1000.0)], HZ, *BOUNDS)
    limits.follow(np.array([-1.0, -1.0]))
    limits.follow(np.array([0.5, 0.5]), hand_over=True)
    assert limits.limited(np.array([1.0, -1.0]))[0].tolist() == [0.6, 0.4]


def test_what_was_cut_is_counted_recorded_with_what_was_asked_for_and_the_same_again_in_a_replay(tmp_path: Path):
    Handled.hands, Handled.done = {30: 0.125}, []
    try:
        simulation = recorded(
            tmp_path, env_id="tests.support.virtual_worlds:Handled", env_args={"most": 0.9}, limit="velocity<=20"
        )
        Handled.hands = {}
        with Recording(tmp_path) as recording:
            ticks = [tick for tick in recording.ticks() if tick.header.source != Source.HELD]
        report = played_again(tmp_path)
    finally:
        Handled.hands, Handled.done = {}, []
    cut = sum(not np.array_equal(tick.requested, tick.action) for tick in ticks)
    assert 20 < simulation.summary()["actions"]["limited"] <= cut
    for before, tick in zip(ticks, ticks[1:], strict=False):
        if tick.header.source != Source.HUMAN and tick.header.episode == before.header.episode:
            assert abs(float(tick.action[0]) - float(before.action[0])) <= 0.2 + 1e-6
    assert (report.first, report.notes) == ([], [])


def test_the_safe_action_is_never_limited_and_a_limit_that_is_none_is_refused():
    simulated = make_config(limit=["velocity<=1", "smoothing<=0.5"], safe_action=1)
    assert simulated.world.limit == ("velocity<=1", "smoothing<=0.5")
    for text in ("velocity", "speed<=1", "velocity<=0", "smoothing<=1", "velocity<=x", f"velocity<={math.nan}"):
        with pytest.raises(ConfigError, match="expected velocity<=V or acceleration<=A"):
            make_config(limit=text)


def test_a_world_whose_actions_are_not_of_a_box_has_no_limits(tmp_path: Path):
    with pytest.raises(ConfigError, match="limit: velocity<=1 is about how far .* expected a Box"):
        recorded(tmp_path, limit="velocity<=1")
