"""What acts where no fresh action comes for long: on the virtual clock, where every tick can be told beforehand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.scheduling.on_missing import Starvation
from rtcore.virtual.simulate import Change, Simulation
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

TICKS = 120
#: The safe action of the world with actions from -1 to 1.
SAFE = 0.75


def played(changes: Any, **more: Any) -> tuple[list[Any], list[float], dict[str, Any]]:
    """Headers and applied actions of a run at 100 Hz, and its summary."""
    config = RuntimeConfig(
        env_id="tests.support.virtual_worlds:Signs",
        env_args={"episode_ticks": 45, "continuous": True},
        policy="random",
        clock="virtual",
        latency="constant:15",
        workers=2,
        duration=TICKS / 100,
        safe_action=str(SAFE),
        **more,
    )
    simulation = Simulation(config, changes=changes)
    headers, actions = [], []

    def note(tick: int) -> None:
        ring = simulation.ring
        _, header = ring.read_header(ring.sequence.newest())
        headers.append(header)
        actions.append(float(np.frombuffer(ring.read_action(header.frame_seq), np.float32)[0]))

    simulation.run(note)
    simulation.close()
    return headers, actions, simulation.summary()


def test_without_a_fresh_action_for_so_long_the_safe_action_acts_until_there_is_one():
    gone = [Change(20, 0, False), Change(20, 1, False), Change(35, 0, True)]
    headers, actions, summary = played(gone, starve_ms=60)
    sources = [Source(header.source) for header in headers]
    acted = [tick for tick, source in enumerate(sources) if source is Source.POLICY]
    last = max(tick for tick in acted if tick <= 21)
    back = min(tick for tick in acted if tick > 21)
    assert sources[last + 1 : last + 6] == [Source.NOOP] * 5
    assert sources[last + 6 : back] == [Source.SAFE] * (back - last - 6)
    assert set(actions[last + 6 : back]) == {SAFE}
    assert {TickKind(header.kind) for header in headers[last + 6 : back]} <= {TickKind.MISSED, TickKind.IDLE}
    assert summary["ticks"]["starved"] == back - last - 6 > 5
    assert summary["ticks"]["starvations"] == 1


@given(
    moments=st.lists(st.tuples(st.integers(1, TICKS), st.integers(0, 1), st.booleans()), max_size=8),
    starve_ms=st.sampled_from([10, 25, 40, 1000]),
    on_missing=st.sampled_from(["noop", "repeat", "random"]),
    on_reset=st.sampled_from(["hold", "run"]),
)
@examples(25)
def test_at_every_tick_the_safe_action_acts_exactly_if_nothing_fresh_came(
    moments: Any, starve_ms: int, on_missing: str, on_reset: str
):
    changes = [Change(*moment) for moment in sorted(moments)]
    how = {"on_missing": on_missing, "on_reset": on_reset}
    headers, actions, summary = played(changes, starve_ms=starve_ms, **how)
    fresh_ns = starvations = 0
    before = Source.HELD
    for header, action in zip(headers, actions, strict=True):
        source = Source(header.source)
        if source in (Source.POLICY, Source.HELD):
            fresh_ns = header.deadline_ns
        is_starved = header.deadline_ns - fresh_ns >= starve_ms * 1_000_000
        assert (source is Source.SAFE) is is_starved
        assert not is_starved or action == SAFE
        starvations += is_starved and before is not Source.SAFE
        before = source
    assert summary["ticks"]["starved"] == sum(header.source == Source.SAFE for header in headers)
    assert summary["ticks"]["starvations"] == starvations
    assert summary["invariants"]["broken"] == 0


def test_what_is_never_starved_is_as_without():
    gone = [Change(20, 0, False), Change(30, 0, True)]
    with_limit, without = played(gone, starve_ms=1e6), played(gone)
    assert with_limit[:2] == without[:2]


def test_the_limit_is_in_the_time_of_the_grid_so_that_skipped_ticks_count():
    starvation = Starvation(limit_ns=100, safe_action=0)
    starvation.feed(1000)
    assert not starvation.acts(1099)
    assert starvation.acts(1100)
    starvation.feed(1200)
    assert not starvation.acts(1210)


def test_starving_needs_a_safe_action():
    with pytest.raises(ConfigError, match="starve_ms=100: .* give --safe-action too"):
        make_config(starve_ms=100)
