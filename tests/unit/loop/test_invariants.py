"""What must hold at every tick: with a fault put into the dispatcher or the clock, the run itself says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rtcore.loop.tickloop
import rtcore.virtual.simulate
from rtcore.cli.exits import EXIT_BROKEN_INVARIANT
from rtcore.cli.run import main
from rtcore.clock import TickPace, TickPlan
from rtcore.config.run import make_config
from rtcore.report.table import troubles
from rtcore.scheduling.dispatch import Decision, Dispatcher, Invariant, Offer, Outcome, TickKind
from rtcore.scheduling.jobs import Answer, Job
from rtcore.virtual.simulate import Change, Simulation

pytestmark = pytest.mark.unit

#: Workers come and go while they compute, episodes end, inferences take one to five ticks: every outcome occurs.
CHANGES = [Change(at + worker, worker, up) for at, up in ((60, False), (70, True)) for worker in (0, 1, 2)]


def run(**fields: Any) -> dict[str, Any]:
    """The summary of 300 ticks on the virtual clock."""
    settings: dict[str, Any] = {
        "clock": "virtual",
        "latency": "lognormal:30,0.4",
        "workers": 4,
        "ticks": 300,
        "fps": 100,
    }
    world: dict[str, Any] = {"env_id": "tests.support.virtual_worlds:Signs", "env_args": {"episode_ticks": 40}}
    simulation = Simulation(make_config(**(settings | world | fields)), changes=CHANGES)
    simulation.run()
    simulation.close()
    return simulation.summary()


class StaleApplied(Dispatcher):
    """An answer to a frame of the episode before is taken for one of this episode."""

    def offer(self, job: Job, answer: Answer, tick: int) -> None:
        super().offer(job, answer._replace(episode=self.episode), tick)


class OneTooEarly(Dispatcher):
    """Applies what is due a tick later."""

    def decide(self, tick: int) -> Decision:
        return super().decide(tick + 1)


class OldestFirst(Dispatcher):
    """Applies answers as they come, whatever has acted already."""

    def _choose(self, tick: int) -> Offer | None:
        self._newest_obs_tick = -1
        return super()._choose(tick)


class EndsTwice(Dispatcher):
    """Counts what was replaced once more."""

    def _end_unapplied(self, offer: Offer, outcome: Outcome, tick: int, *, keep: bool = True) -> None:
        super()._end_unapplied(offer, outcome, tick, keep=keep)
        super()._end_unapplied(offer, outcome, tick, keep=keep)


class ForgetsTheLost(Dispatcher):
    """A dead worker's job never ends."""

    def lose(self, job: Job, tick: int) -> None:
        self._jobs.pop(job.worker, None)


class FirstUseEveryTime(Dispatcher):
    """Every action of a chunk counts as a job's first."""

    def decide(self, tick: int) -> Decision:
        return replace(super().decide(tick), first_use=True)


class LateIsOnTime(Dispatcher):
    """Says of a late action that it was on time."""

    def _end(self, offer: Offer, outcome: Outcome, tick: int) -> None:
        super()._end(offer, Outcome.ON_TIME if outcome is Outcome.LATE else outcome, tick)


class IdleThoughActed(Dispatcher):
    """Calls a tick idle at which an action acts."""

    def decide(self, tick: int) -> Decision:
        decision = super().decide(tick)
        return replace(decision, kind=TickKind.IDLE) if tick % 7 == 0 and decision.offer else decision


class LeadInForEver(Dispatcher):
    """Calls every tick without an action the episode's lead-in."""

    def decide(self, tick: int) -> Decision:
        decision = super().decide(tick)
        return decision if decision.offer else replace(decision, kind=TickKind.LEAD_IN)


@pytest.mark.parametrize(
    ("mutant", "invariant", "fields"),
    [
        (StaleApplied, Invariant.ACTION, {}),
        (OneTooEarly, Invariant.ACTION, {}),
        (OldestFirst, Invariant.ACTION, {"stagger": "free-running"}),
        (EndsTwice, Invariant.JOB, {"stagger": "free-running"}),
        (ForgetsTheLost, Invariant.JOB, {}),
        (FirstUseEveryTime, Invariant.JOB, {"chunk": 3}),
        (LateIsOnTime, Invariant.JOB, {}),
        (IdleThoughActed, Invariant.KIND, {}),
        (LeadInForEver, Invariant.KIND, {"stagger": "sequential"}),
    ],
)
def test_a_faulty_dispatcher_is_found_out_by_the_run_itself(
    mutant: type[Dispatcher], invariant: Invariant, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(**fields)["invariants"] == {"broken": 0, "names": [], "first": None}
    monkeypatch.setattr(rtcore.virtual.simulate, "Dispatcher", mutant)
    found = run(**fields)["invariants"]
    assert found["broken"] > 0
    assert invariant.name.lower() in found["names"]


@pytest.mark.parametrize(
    ("mutate", "name"),
    [
        (lambda plan: replace(plan, deadline_ns=plan.deadline_ns + plan.tick), "grid"),
        (lambda plan: replace(plan, deadline_ns=plan.deadline_ns - 1), "grid"),
        (lambda plan: replace(plan, tick=plan.tick + (plan.tick == 100)), "order"),
        (lambda plan: replace(plan, skipped_ticks=1), "order"),
    ],
    ids=["a grid that drifts", "a tick before its deadline", "a tick that is left out", "a skip that was none"],
)
def test_a_faulty_grid_is_found_out_by_the_run_itself(
    mutate: Callable[[TickPlan], TickPlan], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(TickPace):
        def next_tick(self, last_tick: int, now_ns: int) -> TickPlan:
            plan = super().next_tick(last_tick, now_ns)
            return mutate(plan) if last_tick >= 0 else plan

    monkeypatch.setattr(rtcore.loop.tickloop, "TickPace", Faulty)
    assert name in run()["invariants"]["names"]


@pytest.mark.parametrize("stagger", ["max-time", "expected-time", "sequential", "free-running"])
@pytest.mark.parametrize(
    "fields",
    [
        {"chunk": 4, "on_late": "drop"},
        {"chunk": 4, "chunk_from": "frame", "on_reset": "run"},
        {"overrun": "stretch", "on_missing": "repeat"},
        {"chunk": 6, "chunk_from": "frame", "env_args": {"episode_ticks": 9}},
    ],
    ids=["chunks", "chunks from the frame", "stretched", "short episodes"],
)
def test_nothing_is_found_where_there_is_no_fault(stagger: str, fields: dict[str, Any]) -> None:
    assert run(stagger=stagger, **fields)["invariants"]["broken"] == 0


def test_a_broken_invariant_is_named_with_its_tick_and_is_the_programs_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rtcore.virtual.simulate, "Dispatcher", ForgetsTheLost)
    words = (
        "--env-id CartPole-v1 --clock virtual --latency constant:30 --policy random --fps 100 --workers 3 --ticks 200"
    )
    monkeypatch.setattr(rtcore.virtual.simulate.Simulation, "__init__", _with_a_death(Simulation.__init__))
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--no-live", "--no-pictures", "--out", str(tmp_path)])
    assert end.value.code == EXIT_BROKEN_INVARIANT == 70
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["invariants"] == {"broken": 1, "names": ["job"], "first": {"name": "job", "tick": 199}}
    assert "BROKEN" in capsys.readouterr().out
    assert any("fault of rtcore" in line and "tick 199" in line for line in troubles(summary, tmp_path))


def _with_a_death(init: Callable[..., None]) -> Callable[..., None]:
    changes = [Change(100, worker, False) for worker in (0, 1, 2)]
    return lambda *arguments, **fields: init(*arguments, **(fields | {"changes": changes}))
