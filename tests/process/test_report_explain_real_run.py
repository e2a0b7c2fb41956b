"""The words for the ticks of a real run: slow inferences, and a worker that is killed in the middle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rtcore
from rtcore.config.run import make_config
from rtcore.files.strict_json import write_json
from rtcore.report.page.data import RunDistributions, quantile
from rtcore.results.explain import explain_tick
from rtcore.results.folder import RunFolder, read_run
from rtcore.results.out_folder import write_config
from rtcore.scheduling.dispatch import Outcome, TickKind
from tests.support.drills import kill_within_an_inference, let_ticks_run

pytestmark = pytest.mark.process

_KILLED = 1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    folder = tmp_path_factory.mktemp("real") / "run"
    slow = {"latency_ms": 60, "jitter_ms": 1, "outlier_prob": 0.05, "outlier_ms": 120}
    # Put off and not skipped where the machine is busy: the killed worker's tick is there to be told of.
    config = make_config(policy="synthetic", policy_args=slow, workers=5, duration=600, out=folder, overrun="stretch")
    write_config(folder, config, ["rtcore-run"])
    with rtcore.Runtime(config) as runtime:
        let_ticks_run(runtime, 120)
        kill_within_an_inference(runtime, _KILLED, lasting_ms=60)
        let_ticks_run(runtime, 240)
        runtime.stop()
        runtime.wait()
    write_json(folder / "summary.json", runtime.summary())
    yield read_run(folder)


def test_every_tick_of_a_real_run_has_a_story(run: RunFolder) -> None:
    for row in run.ticks:
        facts = explain_tick(run, row.tick)
        assert facts[0].text.startswith(f"Tick {row.tick}: {row.kind.name.lower()}")
        assert facts[-1].label == "applied"
        labels = [fact.label for fact in facts]
        assert {TickKind.MISSED: "was due", TickKind.IDLE: "why"}.get(row.kind, "tick") in labels


def test_a_missed_tick_of_a_real_run_has_its_reason(run: RunFolder) -> None:
    missed = [row for row in run.ticks if row.kind is TickKind.MISSED]
    assert missed, "an inference in twenty took two delays more: some tick must have missed its action"
    reasons = {row.tick: [fact.text for fact in explain_tick(run, row.tick) if fact.label == "why"] for row in missed}
    assert any("the inference was slow" in reason for texts in reasons.values() for reason in texts)


def test_the_killed_worker_of_a_real_run_is_named(run: RunFolder) -> None:
    dead = [job for job in run.jobs if job.outcome is Outcome.DROPPED_DEAD_WORKER]
    assert [job.worker for job in dead] == [_KILLED]
    row = run.row_of.get(dead[0].due_tick)
    assert row is not None
    text = " ".join(fact.text for fact in explain_tick(run, row.tick))
    assert f"worker {_KILLED} died, hung or was stopped" in text


def test_the_rows_of_a_real_run_give_the_numbers_that_it_counted(run: RunFolder) -> None:
    samples, actions = RunDistributions(run), run.summary["actions"]
    assert run.summary["record"] == {"lost_ticks": 0, "lost_jobs": 0}
    assert samples.kinds == run.summary["ticks"]["kinds"]
    assert samples.outcomes == actions["outcomes"]
    assert samples.interval_ticks.mean() == pytest.approx(actions["interval_ticks"]["mean"], abs=1e-6)
    # Derived without the time of collecting answers; the summary's percentiles come from buckets of under 1%.
    assert quantile(samples.observation_age_ms, 0.5) == pytest.approx(actions["observation_age_ms"]["p50"], rel=0.1)
