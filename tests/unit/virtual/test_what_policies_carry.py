"""Context, carried state, extras and no action at all: plain callables through the whole loop, on the virtual clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rtcore.config.run import RuntimeConfig
from rtcore.errors import PolicyError
from rtcore.scheduling.dispatch import TickKind
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit
HERE = __name__
EPISODE_TICKS = 23


class Chained:
    """Its action is how many decisions its state has seen; it refuses a state that is not what its context says."""

    policy_extras = {"seen": ((), "int64")}  # noqa: RUF012 - as a user writes it

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        pass

    def initial_state(self) -> Any:
        return {"count": np.int64(100), "tick": np.int64(-1), "episode": np.int64(-1)}

    def __call__(self, observation: Any, context: Any, state: Any) -> Any:
        if state["tick"] != context.state_tick[0]:
            raise ValueError(f"state of tick {state['tick']}, and state_tick is {context.state_tick[0]}")
        if state["tick"] >= 0 and state["episode"] != context.episode[0]:
            raise ValueError("a state of another episode")
        tick = context.tick[0]
        after = {"count": state["count"] + 1, "tick": tick, "episode": context.episode[0]}
        return np.array([tick % 3]), after, {"seen": after["count"]}


def simulate(policy: str, *, workers: int, latency_ms: float, ticks: int = 120, **settings: Any) -> Simulation:
    given = settings | {"policy": f"{HERE}:{policy}", "workers": workers, "latency": f"constant:{latency_ms:g}"}
    config = RuntimeConfig(
        env_id="tests.support.virtual_worlds:Signs",
        env_args={"episode_ticks": EPISODE_TICKS},
        clock="virtual",
        ticks=ticks,
        **given,
    )
    return Simulation(config).run()


def applied(run: Simulation) -> list[tuple[Any, dict[str, Any]]]:
    """Headers of the ticks at which a policy's action was applied, with what came with it."""
    found = []
    assert run.ring is not None
    for seq in range(run.ring.next_seq):
        header = run.ring.read_header(seq)[1]
        if header.kind == TickKind.ACTED:
            block = run.ring.gather_kept(np.array([seq]))[0]
            found.append((header, {name: block[name].item() for name in run.ring.kept.names}))
    return found


@pytest.mark.parametrize(("workers", "latency_ms"), [(1, 5), (3, 25), (6, 55)])
def test_a_state_goes_from_answer_to_job_and_begins_anew_with_each_episode(workers: int, latency_ms: float):
    run = simulate("Chained", workers=workers, latency_ms=latency_ms)
    found = applied(run)
    episodes: dict[int, list[tuple[Any, dict[str, Any]]]] = {}
    for header, kept in found:
        episodes.setdefault(header.episode, []).append((header, kept))
    assert len(episodes) > 3
    for decided in episodes.values():
        counts = [kept["extras.seen"] for _, kept in decided]
        assert counts[0] == 101, "from the first state"
        assert counts == sorted(counts)
        for header, kept in decided:
            assert kept["state.tick"] == header.state_tick
            assert kept["extras.seen"] == kept["state.count"] + 1, "the state that this very decision began from"
        lags = [header.obs_tick - header.state_tick for header, _ in decided if header.state_tick >= 0]
        assert max(lags) <= run.schedule.delay_ticks, "the newest that had finished"
        if workers == 1:
            assert counts == list(range(101, 101 + len(counts))), "with one worker: the plain recurrence"


class Foresees:
    """Remembers what its context said of each tick."""

    told: list[tuple[int, list[int], list[int], int]] = []  # noqa: RUF012

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.told.clear()

    def __call__(self, observation: Any, context: Any) -> Any:
        known = (context.committed[0].tolist(), context.committed_mask[0].tolist())
        self.told.append((int(context.tick[0]), *known, int(context.delay_ticks[0])))
        return np.array([1 + context.tick[0] % 2] * 4).reshape(1, 4)


def test_the_committed_actions_are_those_that_are_then_applied():
    run = simulate("Foresees", workers=2, latency_ms=35, chunk=4, ticks=200, context_ticks=8)
    assert run.ring is not None
    by_tick = {}
    for seq in range(run.ring.next_seq):
        header = run.ring.read_header(seq)[1]
        by_tick[header.tick] = (header, int.from_bytes(run.ring.read_action(seq) or b"", "little"))
    facts = 0
    for tick, actions, mask, delay in Foresees.told[1:]:
        assert len(actions) == len(mask) == 8
        assert not any(mask[delay - 1 :]), "nothing from the decided tick on"
        for place, (action, what) in enumerate(zip(actions, mask, strict=True)):
            at = tick + 1 + place
            if what != 1 or at not in by_tick or by_tick[at][0].kind == TickKind.RESET:
                continue
            if by_tick[at][0].episode == by_tick[tick][0].episode:
                assert by_tick[at][1] == action, f"tick {at}, told at {tick}"
                facts += 1
    assert facts > 20


def test_a_context_that_is_shorter_than_the_delay_is_warned_of_with_the_length_it_needs():
    for ticks, is_short in ((3, False), (2, True)):
        run = simulate("Foresees", workers=2, latency_ms=35, chunk=4, ticks=20, context_ticks=ticks)
        assert run.schedule.delay_ticks == 4
        notes = [note for note in run.header["policy"]["notes"] if note.startswith("WARNING")]
        assert len(notes) == is_short
        assert not is_short or "the last 1 are missing. Give --context-ticks 3 or more" in notes[0]


def test_the_header_says_how_much_jobs_and_answers_carry():
    runs = {
        name: simulate(name, workers=2, latency_ms=35, ticks=20, chunk=chunk)
        for name, chunk in (("Foresees", 4), ("Chained", 1))
    }
    carried = {name: run.header["policy"]["notes"] for name, run in runs.items()}
    assert "payload: context 352 B a job" in carried["Foresees"]
    assert "payload: 32 B an answer (extras 8 B, state 24 B), context 376 B a job" in carried["Chained"]


class Unreliable:
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.calls = 0

    def __call__(self, observation: Any) -> Any:
        self.calls += 1
        if self.calls > 20 and self.calls % 5 == 0:
            raise ConnectionError("the server does not answer")
        return None if self.calls > 20 and self.calls % 5 == 1 else np.array([1])


def test_an_inference_that_raises_gives_no_action_where_that_is_asked_for(caplog: pytest.LogCaptureFixture):
    run = simulate("Unreliable", workers=3, latency_ms=25, on_policy_error="miss")
    summary = run.summary()
    errors = sum(worker["policy_errors"] for worker in summary["workers"])
    assert errors > 5
    assert abs(summary["actions"]["outcomes"]["abstained"] - 2 * errors) <= 1
    assert sum("the server does not answer" in line for line in caplog.messages) == 1
    with pytest.raises(PolicyError, match="the server does not answer"):
        simulate("Unreliable", workers=3, latency_ms=25)


class NeverAnswers(Unreliable):
    def __call__(self, observation: Any) -> Any:
        self.calls += 1
        if self.calls > 1:  # that of the warm-up
            raise ConnectionError("the server does not answer")
        return np.array([1])


def test_a_run_of_which_every_inference_raised_ends_with_an_error():
    with pytest.raises(PolicyError, match="inferences raised, in 120 ticks"):
        simulate("NeverAnswers", workers=1, latency_ms=25, on_policy_error="miss")


class Writes:
    """Overwrites what it was shown, as `x -= mean` does, and gives `given`."""

    def __init__(self, observation_space: Any, action_space: Any, given: float) -> None:
        self.given = given

    def __call__(self, observation: Any) -> Any:
        observation[...] = np.nan
        return np.full((1, 3), self.given)


def test_the_world_is_not_blamed_for_what_a_policy_wrote_into_its_observation():
    settings = {"workers": 2, "latency_ms": 25}
    assert simulate("Writes", policy_args={"given": 0.0}, **settings).stats().observations["outside"] == 0
    with pytest.raises(PolicyError, match="NaN or infinity"):
        simulate("Writes", policy_args={"given": float("nan")}, **settings)


class UnreliableHead(nn.Module):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.calls = 0

    def think(self, observation: Any) -> Any:
        return observation.float(), torch.zeros(1, 3)

    def act(self, observation: Any, features: Any, age_ticks: Any) -> Any:
        self.calls += 1
        if self.calls > 20 and self.calls % 5 == 0:
            raise ConnectionError("the server does not answer")
        return torch.zeros(1, 3)


def test_a_head_that_raises_gives_no_action_either():
    run = simulate("UnreliableHead", workers=3, latency_ms=25, on_policy_error="miss")
    summary = run.summary()
    trunk, head = [worker["policy_errors"] for worker in summary["workers"]], summary["head"]["policy_errors"]
    assert head > 5
    assert not any(trunk)
    assert abs(summary["actions"]["outcomes"]["abstained"] - head) <= 1
    with pytest.raises(PolicyError, match="the server does not answer"):
        simulate("UnreliableHead", workers=3, latency_ms=25)
