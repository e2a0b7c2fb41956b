"""What a world really did: everything that a run leaves says that, and what was asked for, at every tick."""

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
from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Source, TickKind
from tests.support.drawn import examples
from tests.support.recorded_runs import recorded, replayed
from tests.support.virtual_worlds import Handled

pytestmark = pytest.mark.unit

WORLD: dict[str, Any] = {"env_id": "tests.support.virtual_worlds:Handled", "info_keys": {"effort": "float32"}}


@pytest.fixture(autouse=True)
def fresh_hands():
    Handled.hands, Handled.done = {}, []
    yield
    Handled.hands, Handled.done = {}, []


@given(
    hands=st.dictionaries(st.integers(0, 119), st.floats(-1, 1, width=32), max_size=40),
    most=st.sampled_from([1.0, 0.5, 0.0]),
    on_missing=st.sampled_from(["noop", "repeat", "random"]),
    workers=st.integers(1, 3),
)
@example(hands={1: 0.0, 50: 0.25}, most=1.0, on_missing="repeat", workers=1)
@examples(8, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_whoever_steps_in_header_rows_recording_and_replay_have_what_the_world_got(hands, most, on_missing, workers):
    Handled.hands, Handled.done = hands, []
    reader = None

    def on_tick(simulation: Any, tick: int) -> None:
        nonlocal reader
        reader = reader or simulation.ticks()

    with TemporaryDirectory() as folder:
        out = Path(folder)
        how = {"on_missing": on_missing, "workers": workers, "env_args": {"most": most}}
        simulation = recorded(out, on_tick=on_tick, **WORLD, **how)
        with Recording(out) as recording:
            ticks = list(recording.ticks())
            effort = recording.column("info/effort")
        stepped = [tick for tick in ticks if tick.header.source != Source.HELD]
        assert len(stepped) == len(Handled.done)
        for number, (tick, (asked, did)) in enumerate(zip(stepped, Handled.done, strict=True)):
            assert (float(tick.requested[0]), float(tick.action[0])) == (asked, did)
            assert (tick.header.source == Source.HUMAN) is (number in hands)
            assert number in hands or (tick.header.source == Source.SHIELD) is (asked != did)
            assert float(tick.frame[0]) == did == tick.header.reward
        seen = reader.take()
        assert seen.lost == 0
        for name, theirs in (("action", [float(tick.action[0]) for tick in ticks]), ("source", None)):
            ours = seen.rows[name].reshape(-1).tolist()
            assert ours == (theirs or [tick.header.source for tick in ticks])
        assert seen.requested.reshape(-1).tolist() == [float(tick.requested[0]) for tick in ticks]
        assert seen.info["effort"].tolist() == effort.tolist()
        with (out / "actions.csv").open() as file:
            for row, tick in zip(csv.DictReader(file), ticks, strict=True):
                acted = tick.header.kind == TickKind.ACTED
                assert row["source"] == Source(tick.header.source).name.lower()
                assert row["requested_action"] == (f"{tick.requested[0]:.6g}" if acted else "")
                assert row["applied_action"] == ("" if row["source"] == "held" else f"{tick.action[0]:.6g}")
        summary = simulation.summary()
        assert summary["actions"]["human"] == sum(tick.header.source == Source.HUMAN for tick in ticks)
        assert summary["actions"]["shield"] == sum(tick.header.source == Source.SHIELD for tick in ticks)
        assert summary["actions"]["lost_requests"] == summary["invariants"]["broken"] == 0
        Handled.hands = {}  # nobody is there when it is replayed
        report = replayed(out)
        assert (report.first, report.ticks) == ([], len(ticks))


def test_learning_uses_what_was_applied_and_batches_have_the_numbers_of_info(tmp_path: Path):
    Handled.hands = dict.fromkeys(range(20, 60), 0.125)
    made: dict[str, Any] = {}

    def on_tick(simulation: Any, tick: int) -> None:
        made.setdefault("reader", simulation.transitions())
        made["reader"].update()

    recorded(tmp_path, on_tick=on_tick, **WORLD, env_args={"most": 0.5})
    batch = made["reader"].sample(64, np.random.default_rng(0))
    assert np.abs(batch.action).max() <= 0.5
    assert 0.125 in batch.action
    assert batch.info["effort"].tolist() == batch.action.reshape(-1).tolist()
    assert batch.extras is None


def test_a_data_set_of_minari_has_both_actions_and_who_chose(tmp_path: Path):
    Handled.hands = {3: 0.125}
    recorded(tmp_path, **WORLD, env_args={"most": 0.5})
    data = minari.MinariDataset(tmp_path / "recording" / "data")
    episode = next(data.iterate_episodes())
    infos = episode.infos
    asked, applied = infos["requested"]["action"][1:, 0], episode.actions[:, 0]
    assert infos["source"][1 + 3] == Source.HUMAN
    assert applied[3] == 0.125 != asked[3]
    assert (infos["info"]["effort"][1:] == applied).all()
    assert (np.clip(asked, -0.5, 0.5)[4:] == applied[4:]).all()


def test_what_nobody_asked_to_keep_is_not_there(tmp_path: Path):
    recorded(tmp_path)
    with Recording(tmp_path) as recording:
        assert not recording.kept
        tick = next(recording.ticks())
    assert (tick.requested == tick.action).all()


def test_a_world_that_did_not_say_so_is_recorded_as_it_acted_and_what_was_asked_for_is_counted_as_lost(tmp_path: Path):
    Handled.hands = {3: 0.125}
    simulation = recorded(tmp_path, env_id=WORLD["env_id"], env_args={"declares": False})
    with Recording(tmp_path) as recording:
        sources, actions = recording.column("source"), recording.column("action")
    assert actions[sources == Source.HUMAN].tolist() == [[0.125]]
    assert simulation.summary()["actions"]["lost_requests"] == 1


@pytest.mark.parametrize(
    "said",
    [
        {"applied_action": [2.0], "source": "human"},
        {"applied_action": [0.0], "source": "ghost"},
        {"source": "human"},
        3,
    ],
)
def test_a_world_that_says_something_else_is_an_error_that_says_what_is_expected(said: Any, monkeypatch: Any):
    step = Handled.step

    def says(self: Any, action: Any) -> Any:
        *rest, info = step(self, action)
        return (*rest, info | {"rtcore": said})

    monkeypatch.setattr(Handled, "step", says)
    with (
        TemporaryDirectory() as folder,
        pytest.raises(EnvironmentFailed, match="an element of Box.*'human' or 'shield'"),
    ):
        recorded(Path(folder), **WORLD)


def test_a_number_that_is_not_there_is_nan_or_an_error(tmp_path: Path):
    recorded(tmp_path, env_id=WORLD["env_id"], info_keys={"cost": "float32"})
    with Recording(tmp_path) as recording:
        assert np.isnan(recording.column("info/cost")).all()
    with pytest.raises(EnvironmentFailed, match="info without 'cost' .* Give it a float dtype"):
        recorded(tmp_path, env_id=WORLD["env_id"], info_keys={"cost": "int64"})
    with pytest.raises(ConfigError, match="info.keys.*'cost'.*expected"):
        make_config(info_keys={"cost": "many"})
