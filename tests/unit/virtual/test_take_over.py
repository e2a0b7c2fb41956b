"""A person takes the controls and gives them back, at any tick of any run: what the world got, and who chose it."""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import minari
import numpy as np
import pytest
from hypothesis import Phase, example, given
from hypothesis import strategies as st

from rtcore.config.run import make_config
from rtcore.errors import ConfigError, PolicyError, StartupError
from rtcore.learn.transitions import TransitionBuilder
from rtcore.recording.reader import Recording
from rtcore.runtime.controls import Controls
from rtcore.scheduling.dispatch import Source, TickKind
from tests.support.drawn import examples
from tests.support.recorded_runs import recorded, replayed
from tests.support.virtual_worlds import Handled

pytestmark = pytest.mark.unit

TICKS = 120
WORLD: dict[str, Any] = {"env_id": "tests.support.virtual_worlds:Handled", "operator": "program", "ticks": TICKS}
ONE_EPISODE = WORLD | {"ticks": 50, "env_args": {"episode_ticks": 99}}


@pytest.fixture(autouse=True)
def fresh_hands():
    Handled.hands, Handled.done = {}, []
    yield
    Handled.hands, Handled.done = {}, []


def _action(value: float) -> Any:
    return np.array([value], np.float32)


class Person:
    """Does what a table says after each tick: a number takes over, or acts; None lets go."""

    def __init__(self, table: dict[int, float | None]) -> None:
        self.table = table
        self.controls: Controls | None = None
        #: Has them, and what acts then, by tick.
        self.wanted: dict[int, float] = {}
        self._value: float | None = None

    def __call__(self, run: Any, tick: int) -> None:
        if tick in self.table:
            self._value = value = self.table[tick]
            if value is None:
                run.release()
                self.controls = None
            elif self.controls is None:
                self.controls = run.take_over(_action(value))
            else:
                self.controls.act(_action(value))
        if self._value is not None:
            self.wanted[tick + 1] = self._value


@given(
    table=st.dictionaries(
        st.integers(0, TICKS - 2), st.one_of(st.none(), st.floats(-1, 1, width=32)), min_size=1, max_size=25
    ),
    blend_ticks=st.sampled_from([0, 0, 1, 5]),
    how=st.fixed_dictionaries(
        {
            "on_missing": st.sampled_from(["noop", "repeat", "random"]),
            "on_reset": st.sampled_from(["hold", "run"]),
            "workers": st.integers(1, 3),
            "chunks": st.sampled_from([(1, "due"), (1, "due"), (3, "due"), (4, "frame")]),
            "limit": st.sampled_from([(), ("velocity<=20",)]),
        }
    ),
)
@example(
    table={5: 0.5, 30: None, 60: -1.0, 90: None},
    blend_ticks=3,
    how={"on_missing": "repeat", "on_reset": "hold", "workers": 1, "chunks": (1, "due"), "limit": ()},
)
@examples(6, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_whoever_takes_over_and_when_everything_has_what_the_world_got(
    table: Any, blend_ticks: int, how: dict[str, Any]
) -> None:
    Handled.done = []
    person = Person(table)
    how = dict(how)
    chunk, chunk_from = how.pop("chunks")
    with TemporaryDirectory() as folder:
        out = Path(folder)
        run = recorded(out, on_tick=person, **WORLD, **how, chunk=chunk, chunk_from=chunk_from, blend_ticks=blend_ticks)
        with Recording(out, is_known=True) as recording:
            ticks = list(recording.ticks())
        stepped = [tick for tick in ticks if tick.header.source != Source.HELD]
        assert [did for _, did in Handled.done] == [float(tick.action[0]) for tick in stepped]
        assert [float(tick.frame[0]) for tick in stepped] == [did for _, did in Handled.done]
        for before, tick in zip(ticks, ticks[1:], strict=False):
            header, wanted = tick.header, person.wanted.get(tick.header.tick)
            if wanted is not None:
                assert header.intervention
                # The world waits for no policy while a person has the controls.
                assert (header.source == Source.HELD) is (header.kind == TickKind.RESET)
                was_held = all(tick in person.wanted for tick in range(header.tick - blend_ticks, header.tick))
                if was_held and header.source == Source.HUMAN and header.episode_ticks > blend_ticks:
                    assert float(tick.action[0]) == wanted
            if header.source == Source.HUMAN:
                assert header.intervention
                if blend_ticks == 0:
                    assert wanted is not None
                    assert float(tick.action[0]) == wanted
            elif header.source == Source.POLICY:
                assert not header.intervention
                assert how["limit"] or (tick.action == tick.requested).all()
            if header.intervention:
                assert wanted is not None or blend_ticks
                assert header.intervention >= before.header.intervention
        with (out / "actions.csv").open() as file:
            for row, tick in zip(csv.DictReader(file), ticks, strict=True):
                assert int(row["intervention"]) == tick.header.intervention
                assert row["source"] == Source(tick.header.source).name.lower()
        summary = run.summary()
        assert summary["actions"]["human"] == sum(tick.header.source == Source.HUMAN for tick in ticks)
        assert summary["actions"]["take_overs"] == len({tick.header.intervention for tick in ticks} - {0})
        assert summary["actions"]["lost_requests"] == summary["invariants"]["broken"] == 0
        builder, last = TransitionBuilder(chunks=chunk > 1), None
        applied = {tick.header.frame_seq: tick.action.tobytes() for tick in ticks}
        for tick in ticks:
            for last in builder.feed(tick.header, tick.action.tobytes()):
                assert last.action == applied[last.seq]
        assert last is not None or not builder.counts.transitions
        report = replayed(out)
        assert (report.first, report.ticks) == ([], len(ticks))


def test_hands_pass_smoothly_from_one_to_the_other(tmp_path: Path) -> None:
    recorded(tmp_path, on_tick=Person({10: 1.0, 20: -1.0, 25: None}), **ONE_EPISODE, blend_ticks=3)
    with Recording(tmp_path, is_known=True) as recording:
        action = recording.column("action")[:, 0].astype(np.float64)
        requested = recording.column("requested/action")[:, 0].astype(np.float64)
        intervention = recording.column("intervention")
    before = action[10]
    assert np.allclose(action[11:14], [before + share * (1 - before) for share in (0.25, 0.5, 0.75)], atol=1e-6)
    assert action[14:21].tolist() == [1.0] * 7
    # A hand that changes its mind is the same hand.
    assert action[21:26].tolist() == [-1.0] * 5
    assert np.allclose(action[26:29], -1 + np.array([0.25, 0.5, 0.75]) * (requested[26:29] + 1), atol=1e-6)
    assert action[29] == requested[29]
    assert intervention.tolist()[9:31] == [0, 0, *[1] * 18, 0, 0]


def test_the_policys_newest_action_acts_at_the_tick_after_the_release(tmp_path: Path) -> None:
    recorded(tmp_path, on_tick=Person({12: 0.5, 25: None}), **ONE_EPISODE)
    with Recording(tmp_path, is_known=True) as recording:
        source, delay = recording.column("source"), recording.column("delay_ticks")
    assert set(source[13:26].tolist()) == {Source.HUMAN}
    assert source[26] == Source.POLICY
    assert delay[26] == delay[11]


def test_who_holds_the_controls_and_says_nothing_is_starved(tmp_path: Path) -> None:
    person = Person({10: 0.5, 20: 0.25, 40: None})
    run = recorded(tmp_path, on_tick=person, **ONE_EPISODE, safe_action="-0.75", starve_ms=50)
    with Recording(tmp_path, is_known=True) as recording:
        source, action = recording.column("source"), recording.column("action")[:, 0]
        intervention = recording.column("intervention")
    # 10 ms a tick; what is said after tick 10 is fresh at tick 11.
    human, safe = [Source.HUMAN] * 5, Source.SAFE
    assert source[11:41].tolist() == [*human, *[safe] * 5, *human, *[safe] * 15]
    assert action[11:22].tolist() == [0.5] * 5 + [-0.75] * 5 + [0.25]
    assert intervention[11:42].tolist() == [1] * 30 + [0]
    assert source[41] == Source.POLICY
    assert replayed(tmp_path).first == []
    assert run.summary()["ticks"]["starvations"] == 2
    assert run.summary()["invariants"]["broken"] == 0


def test_limits_are_a_policys_and_begin_from_rest_after_a_person(tmp_path: Path) -> None:
    recorded(tmp_path, on_tick=Person({10: 1.0, 20: None}), **ONE_EPISODE, limit=("velocity<=5", "acceleration<=100"))
    with Recording(tmp_path, is_known=True) as recording:
        action = recording.column("action")[:, 0].astype(np.float64)
    assert action[11:21].tolist() == [1.0] * 10
    assert abs(action[21] - 1.0) <= 100 / 100**2 + 1e-6


def test_minari_flags_interventions(tmp_path: Path) -> None:
    recorded(tmp_path, on_tick=Person({10: 0.5, 20: None}), **ONE_EPISODE)
    episode = next(minari.MinariDataset(tmp_path / "recording" / "data").iterate_episodes())
    infos = episode.infos
    assert ((infos["intervention"] == 1) == (infos["source"] == Source.HUMAN)).all()
    assert infos["intervention"].sum() == 10


def test_without_room_for_it_what_the_policy_asked_for_is_counted_as_lost(tmp_path: Path) -> None:
    run = recorded(
        tmp_path,
        on_tick=Person({10: 0.5, 20: None}),
        **(ONE_EPISODE | {"operator": None, "env_args": {"declares": False}}),
    )
    with Recording(tmp_path, is_known=True) as recording:
        assert recording.column("action")[11:21, 0].tolist() == [0.5] * 10
    assert run.summary()["actions"]["lost_requests"] == 10


def test_what_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    seen: list[str] = []

    def on_tick(run: Any, tick: int) -> None:
        if tick == 5:
            with run.take_over() as controls:
                with pytest.raises(StartupError, match="somebody has the controls"):
                    run.take_over()
                with pytest.raises(PolicyError, match="expected an element of"):
                    controls.act(_action(3.0))
            with pytest.raises(StartupError, match="were given back"):
                controls.act(_action(0.0))
            run.release()
            seen.append("all")

    recorded(tmp_path, on_tick=on_tick, **ONE_EPISODE)
    assert seen == ["all"]
    with pytest.raises(ConfigError, match="operator=keyboard is for --clock wall"):
        make_config(clock="virtual", operator="keyboard")
    with pytest.raises(ConfigError, match="expected keyboard, gamepad, program or module:function"):
        make_config(operator="mouse")
