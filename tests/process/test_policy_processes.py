"""What the processes of a run have in common, and what not: imports, memory, random numbers."""

from __future__ import annotations

import csv
import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtcore
from rtcore.errors import EnvironmentFailed, RtcoreWarning
from rtcore.host.seeding import entropy_of, seed_generators
from rtcore_workers.policies.mlp import mlp
from tests.support.drills import wait_for_answers

pytestmark = [pytest.mark.process]


def drawn_by_worker(seed: int, out: Path) -> dict[str, list[str]]:
    """The first actions of each worker in a run of three."""
    args = {
        "env_id": "tests.support.policy_probes:Fast",
        "env_args": {"folder": str(out)},
        "policy": "tests.support.policy_probes:noise",
        "policy_args": {"folder": str(out)},
    }
    out.mkdir()
    with rtcore.Runtime(**args, workers=3, ticks=10**6, seed=seed, out=out) as runtime:
        for worker in range(3):
            wait_for_answers(runtime, worker, 20)
    found: dict[str, list[str]] = {}
    with (out / "actions.csv").open() as file:
        for row in csv.DictReader(file):
            if row["kind"] == "acted":
                found.setdefault(row["worker"], []).append(row["applied_action"])
    return found


@pytest.fixture(scope="module")
def drawing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """The folder of a run whose policy draws at random, and what each worker drew."""
    out = tmp_path_factory.mktemp("drawing") / "out"
    return out, drawn_by_worker(5, out)


def test_torch_is_imported_once_for_all_workers_with_its_meta_device_and_not_for_the_world(
    drawing: tuple[Path, dict[str, list[str]]],
) -> None:
    folder, _ = drawing
    assert json.loads((folder / "env.json").read_text()) == {"torch": False}
    notes = [json.loads(path.read_text()) for path in folder.glob("worker-*.json")]
    assert sorted(note["on_meta"] for note in notes) == [False, True, True]
    assert all(note["meta_imported"] is note["on_meta"] for note in notes), "before those that need it were forked"


def test_each_worker_draws_other_random_numbers_and_a_run_of_the_same_seed_the_same(
    drawing: tuple[Path, dict[str, list[str]]], tmp_path: Path
) -> None:
    """That another seed draws others, test_seeding says."""
    first, again = drawing[1], drawn_by_worker(5, tmp_path / "again")
    assert len(first) == 3
    for column in range(3):
        values = [action.split()[column] for actions in first.values() for action in actions]
        assert len(set(values)) == len(values), "no two inferences drew the same"
    for worker, actions in first.items():
        # Not one by one: on a busy machine an action may come too late to be applied.
        assert len(set(actions) & set(again[worker])) > 1


def test_a_callable_may_raise_or_give_no_action_and_draws_what_its_process_was_seeded_with(
    tmp_path: Path, said: list[str]
) -> None:
    args = {"env_id": "tests.support.policy_probes:Fast", "env_args": {"folder": str(tmp_path)}, "warmup": 1}
    policy = {"policy": "tests.support.policy_probes:unreliable", "on_policy_error": "miss"}
    with rtcore.Runtime(**args, **policy, workers=2, ticks=10**6, seed=5, out=tmp_path) as runtime:
        for worker in range(2):
            wait_for_answers(runtime, worker, 30)
    summary = runtime.summary()
    errors = [worker["policy_errors"] for worker in summary["workers"]]
    assert all(count > 0 for count in errors)
    assert summary["actions"]["outcomes"]["abstained"] > sum(errors), "those that gave None as well"
    assert sum("the server does not answer" in line for line in said) == 2, "the first of each worker"
    for worker in range(2):
        drawn = {tuple(numbers) for numbers in drawn_after(entropy_of(5, 0, "worker", worker, 1), 2000)}
        with (tmp_path / "actions.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["kind"] == "acted" and row["worker"] == str(worker)]
        actions = [tuple(map(float, row["applied_action"].split())) for row in rows]
        assert not any(action[2] for action in actions), "the state that its context says"
        applied = [action[:2] for action in actions]
        assert applied
        assert all(any(np.allclose(action, numbers, atol=1e-4) for numbers in drawn) for action in applied)


def drawn_after(entropy: list[int], count: int) -> list[tuple[float, float]]:
    """The first draws of Python's and numpy's generators of a process that was seeded so."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        seed_generators(entropy)
        return [(random.random(), np.random.random()) for _ in range(count)]
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def test_a_world_that_leaves_its_space_is_told_of_once_and_blamed_for_its_nan(said: list[str]) -> None:
    run = rtcore.Runtime(env_id="tests.support.worlds:LeavesItsSpace", policy="mlp", workers=2, ticks=10**6)
    with run as runtime:
        with (
            pytest.warns(RtcoreWarning, match="leave the space"),
            pytest.raises(EnvironmentFailed, match=r"NaN or infinity at tick \d+: 3 of 3 elements \(\[0\] = nan"),
        ):
            runtime.wait()
        seen = runtime.summary()["observations"]
    assert runtime.header["world"]["notes"] == [], "not before tick 0"
    assert 0 < seen["outside"] < seen["checked"]
    (line,) = [line for line in said if "leave the space" in line]
    assert seen["first"] in line
    assert "3 of 3 elements ([0] = 7 where -1 to 1 is declared) at tick " in seen["first"]


def test_threads_publish_to_a_policy_that_nobody_named_and_sample_to_the_very_end_and_every_version_is_counted(
    said: list[str],
) -> None:
    errors: list[BaseException] = []
    got: list[int] = []
    with rtcore.Runtime(env_id="CartPole-v1", ticks=60, workers=2, explore=True) as runtime:
        assert runtime.config.agent.policy == "mlp"
        assert runtime.header["policy"]["policy"].startswith("mlp hidden=64 layers=2, ")
        network = mlp(runtime.observation_space, runtime.action_space)
        weights = network.state_dict()

        def until_the_end(call: Callable[[], Any]) -> None:
            try:
                while not runtime.wait(0):
                    call()
            except BaseException as error:
                errors.append(error)

        def publish() -> None:
            if (version := runtime.publish(weights)) is not None:
                got.append(version)

        def look() -> None:
            runtime.sample(8)
            runtime.summary()
            dict(runtime.worker_pids)

        calls = (publish, publish, look, look)
        threads = [threading.Thread(target=until_the_end, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(150)
        closers = [threading.Thread(target=runtime.close) for _ in range(3)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join(150)
        assert runtime.publish(weights) is None
    assert errors == []
    assert sorted(got) == list(range(2, len(got) + 2))
    summary = runtime.summary()
    assert summary["weights"]["version"] == len(got) + 1
    phases = summary["startup"]
    assert list(phases) == ["world", "imports", "workers", "rehearsal"]
    assert summary["startup_s"] == pytest.approx(sum(phases.values()), abs=1e-4)
    # Before it there may be a line about what a run of another test has left.
    assert "making the world CartPole-v1" in said


def test_what_the_header_warns_of_is_warned_of_in_a_program_of_ones_own() -> None:
    fields = {
        "env_id": "CartPole-v1",
        "fps": 100,
        "policy": "tests.support.policy_probes:counting",
        "workers": 1,
        "ticks": 10,
    }
    with pytest.warns(RtcoreWarning) as warned, rtcore.Runtime(**fields) as runtime:
        runtime.wait()
    rate, state = (str(warning.message) for warning in warned)
    assert rate.startswith("the world runs at 2 times its own speed")
    assert state.startswith("the policy keeps a state from call to call (attribute calls)")
