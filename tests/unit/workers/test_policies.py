"""Policies by name: what loads, what is refused, and that random numbers depend on the frame alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rtcore.errors import PolicyError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import (
    BUILTIN_POLICIES,
    LatencyModel,
    PolicyInfo,
    SyntheticPolicy,
    draw_latency_ns,
    load_policy,
)

pytestmark = pytest.mark.unit

FRAME = ObservationSpec.from_space(spaces.Box(0, 255, (84, 84), np.uint8))
BUTTONS = ActionSpec.from_space(spaces.Discrete(7))
MS = 1_000_000


class FakeClock:
    """Stands still, but jumps to every deadline it is asked to sleep to."""

    def __init__(self) -> None:
        self.time_ns = 1_000
        self.deadlines_ns: list[int] = []

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        self.deadlines_ns.append(deadline_ns)
        self.time_ns = max(self.time_ns, deadline_ns)


def load(name: str, args: dict[str, Any], action: ActionSpec = BUTTONS, **kwargs: Any) -> Any:
    settings: dict[str, Any] = {"seed": 5, "worker_index": 0, "device": "cpu", **kwargs}
    return load_policy(name, args, FRAME, action, **settings)


def act(policy: Any, frame_seq: int, action: ActionSpec = BUTTONS, chunk: int = 1) -> np.ndarray:
    out = np.full((chunk, *action.shape), 99, action.np_dtype)
    policy.act(frame_seq=frame_seq, out=out)
    return out


def test_policies_without_a_network_never_import_torch():
    code = (
        "import sys, numpy as np\n"
        "from gymnasium import spaces\n"
        "from rtcore.spaces import ActionSpec, ObservationSpec\n"
        "from rtcore_workers.policies import load_policy\n"
        "o = ObservationSpec.from_space(spaces.Box(0, 255, (8, 8), np.uint8))\n"
        "a = ActionSpec.from_space(spaces.Discrete(3))\n"
        "for name, args in (('random', {}), ('synthetic', {'latency_ms': 1})):\n"
        "    load_policy(name, args, o, a, seed=0, worker_index=0, device='cpu')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_random_action_depends_on_seed_and_frame_only():
    first, second = load("random", {}), load("random", {}, worker_index=3)
    act(first, 999)  # what was drawn before must not matter
    actions = [int(act(first, frame)[0]) for frame in range(60)]
    assert actions == [int(act(second, frame)[0]) for frame in range(60)]
    assert set(actions) == set(range(7))
    assert actions != [int(act(load("random", {}, seed=6), frame)[0]) for frame in range(60)]


def test_a_chunk_of_random_actions_starts_with_the_plain_action():
    policy = load("random", {}, chunk=20)
    chunk = act(policy, 3, chunk=20)
    assert chunk[0] == act(policy, 3)[0]
    assert len(set(chunk.tolist())) > 1
    assert BUTTONS.low_array <= chunk.min() and chunk.max() <= BUTTONS.high_array


def test_random_actions_fill_arrays_of_any_action_space():
    action = ActionSpec.from_space(spaces.Box(-1, 1, (2, 3), np.float32))
    filled = act(load("random", {}, action), 0, action)
    assert (np.abs(filled) <= 1).all()


def test_the_synthetic_policy_sleeps_to_the_drawn_deadline_and_acts_like_random():
    clock = FakeClock()
    policy = load("synthetic", {"latency_ms": 100, "jitter_ms": 10}, clock=clock)
    start_ns = clock.time_ns
    action = act(policy, 12)
    assert clock.deadlines_ns == [start_ns + policy.draw_latency_ns(12)]
    assert policy.timing.compute_ns == policy.draw_latency_ns(12)
    assert action[0] == act(load("random", {}), 12)[0]


def test_the_synthetic_latency_is_a_pure_function_that_simulators_can_draw():
    model = LatencyModel(100, jitter_ms=10, outlier_prob=0.1, outlier_ms=1000)
    policy = SyntheticPolicy(FRAME, BUTTONS, model, seed=5, clock=FakeClock())
    drawn = [policy.draw_latency_ns(frame) for frame in range(400)]
    assert drawn == [draw_latency_ns(model, 5, frame) for frame in range(400)]
    assert drawn != [draw_latency_ns(model, 6, frame) for frame in range(400)]
    usual = [latency_ns for latency_ns in drawn if latency_ns < 500 * MS]
    assert 370 > len(usual) > 340
    assert 98 * MS < np.mean(usual) < 102 * MS
    assert 8 * MS < np.std(usual) < 12 * MS


def test_the_synthetic_latency_is_never_negative_and_constant_without_jitter():
    wild = LatencyModel(1, jitter_ms=100)
    drawn = [draw_latency_ns(wild, 0, frame) for frame in range(100)]
    assert min(drawn) == 0 < max(drawn)
    assert draw_latency_ns(LatencyModel(2.5), 0, 7) == 2_500_000


@pytest.mark.parametrize(
    "args, message",
    [
        ({}, "latency_ms=100"),
        ({"latency": 5}, "did you mean 'latency_ms'"),
        ({"latency_ms": -1}, "0 or more"),
        ({"latency_ms": True}, "expected a number"),
        ({"latency_ms": "5"}, "expected a number"),
        ({"latency_ms": float("nan")}, "expected a number"),
        ({"latency_ms": 5, "outlier_prob": 2, "outlier_ms": 1}, "probability"),
        ({"latency_ms": 5, "outlier_prob": 0.5}, "both or neither"),
        ({"latency_ms": 5, "outlier_ms": 5}, "both or neither"),
    ],
)
def test_wrong_synthetic_arguments_are_refused_with_the_way_out(args: dict[str, object], message: str):
    with pytest.raises(PolicyError, match=message):
        load("synthetic", args)


def test_padding_makes_an_inference_end_at_start_plus_pad():
    clock = FakeClock()
    policy = load("synthetic", {"latency_ms": 30, "pad_ms": 100}, clock=clock)
    start_ns = clock.time_ns
    act(policy, 0)
    assert clock.time_ns == start_ns + 100 * MS
    assert policy.timing.compute_ns == 30 * MS
    assert policy.info.pad_ms == 100


def test_padding_shorter_than_the_inference_adds_nothing():
    clock = FakeClock()
    start_ns = clock.time_ns
    act(load("synthetic", {"latency_ms": 30, "pad_ms": 10}, clock=clock), 0)
    assert clock.time_ns == start_ns + 30 * MS


def test_padding_is_taken_from_the_arguments_without_changing_them():
    args = {"pad_ms": 50.0}
    assert load("random", args).info.pad_ms == 50.0
    assert args == {"pad_ms": 50.0}


@pytest.mark.parametrize("pad_ms", [0, -1, "long", True, float("inf"), None])
@pytest.mark.parametrize("name", BUILTIN_POLICIES)
def test_a_pad_that_is_no_positive_number_is_refused_by_every_policy(name: str, pad_ms: object):
    with pytest.raises(PolicyError, match="pad_ms"):
        load(name, {"pad_ms": pad_ms})


def test_an_unknown_policy_is_refused_with_the_list_and_the_nearest_name():
    with pytest.raises(
        PolicyError,
        match=r"did you mean 'impala'.*impala, nature, mlp, dqn, two-speed, tiles, trained, random, synthetic",
    ):
        load("impalla", {})


def test_random_takes_no_arguments():
    with pytest.raises(PolicyError, match="'k'; expected only pad_ms"):
        load("random", {"k": 1})


@pytest.mark.parametrize("chunk", [0, -1, 1.5, True])
def test_a_chunk_below_one_is_refused(chunk: Any):
    with pytest.raises(PolicyError, match="chunk"):
        load("random", {}, chunk=chunk)


def test_every_description_of_a_synthetic_policy_says_synthetic():
    assert "synthetic" in load("synthetic", {"latency_ms": 5}).info.describe()
    assert "synthetic" in load("synthetic", {"latency_ms": 5, "pad_ms": 9}).info.describe()
    assert "synthetic" in PolicyInfo("stub", 0, synthetic=True, pad_ms=None, device="cpu").describe()
    assert "synthetic" not in load("random", {}).info.describe()


@pytest.mark.parametrize(
    "num_parameters, text",
    [
        (0, "no parameters"),
        (950, "950 "),
        (55_000, "55k"),
        (904_231, "0.90M"),
        (10_371_500, "10.4M"),
        (104_680_000, "104.7M"),
        (1_008_000_000, "1.01B"),
    ],
)
def test_parameter_counts_read_as_in_the_paper(num_parameters: int, text: str):
    info = PolicyInfo("net", num_parameters, synthetic=False, pad_ms=100.0, device="cpu")
    assert text in info.describe()
    assert info.describe().endswith("cpu, padded to 100 ms")
