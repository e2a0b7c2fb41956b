"""Simulated runs of random episodes, for the tests that compare their decisions with the oracle's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rtcore.config.run import make_config
from rtcore.loop.world import StepResult
from rtcore.scheduling.dispatch import Source
from rtcore.virtual.simulate import Change, Simulation


class RandomEpisodes:
    """Episodes end at random, terminated or truncated; a random reward a tick; the frame says which it is."""

    def __init__(self, seed: int, mean_length: float) -> None:
        self._rng = np.random.default_rng(seed)
        self._end = 1 / mean_length
        self._frame: Any = np.zeros((), np.int64)

    def _result(self, reward: float, terminated: bool, truncated: bool) -> StepResult:
        self._frame = self._frame + 1
        return StepResult(self._frame, reward, terminated, truncated)

    def reset(self) -> StepResult:
        return self._result(0.0, False, False)

    def hold(self) -> StepResult:
        return StepResult(self._frame, 0.0, False, False)

    def step(self, action: Any, *, is_free: bool = False) -> StepResult:
        ends = bool(self._rng.random() < self._end)
        terminated = ends and bool(self._rng.random() < 0.5)
        return self._result(float(self._rng.normal()), terminated, ends and not terminated)

    def stand_in(self) -> tuple[int, Source]:
        return 0, Source.NOOP

    def encode(self, action: Any) -> bytes:
        return int(action).to_bytes(8, "little")

    def decode(self, payload: bytes, index: int) -> int:
        return int.from_bytes(payload[8 * index : 8 * index + 8], "little")


def record_of(
    *,
    seed: int,
    mean_length: float,
    latency: str,
    stagger: str,
    workers: int,
    chunk: int,
    on_reset: str,
    changes: Sequence[Change],
    ticks: int,
) -> list[Any]:
    """(header, applied action) of every tick of a simulated run."""
    config = make_config(
        clock="virtual",
        policy="random",
        latency=latency,
        stagger=stagger,
        workers=workers,
        chunk=chunk,
        on_reset=on_reset,
        ticks=ticks,
        seed=seed,
        fps=100,
    )
    rows: list[Any] = []
    simulation: Any = Simulation(config, world=RandomEpisodes(seed, mean_length), rate_hz=100, changes=changes)
    simulation._actions = np.zeros(chunk, np.int64)
    simulation.record.add_tick = lambda header, action, *kept: rows.append((header, action))
    simulation.run()
    return rows


runs = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1000),
        "mean_length": st.sampled_from([3, 12, 40, 500]),
        "latency": st.sampled_from(["constant:5", "constant:35", "normal:35,15", "lognormal:30,0.7", "constant:200"]),
        "stagger": st.sampled_from(["max-time", "expected-time", "sequential", "free-running"]),
        "workers": st.integers(1, 6),
        "chunk": st.sampled_from([1, 1, 3]),
        "on_reset": st.sampled_from(["hold", "run"]),
        "changes": st.lists(
            st.builds(Change, tick=st.integers(5, 150), worker=st.integers(0, 0), up=st.booleans()), max_size=3
        ),
        "ticks": st.just(200),
    }
)
