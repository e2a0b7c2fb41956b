"""The decisions of a run by their definition: a slow oracle that sees whole episodes at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rtcore.config.run import make_config
from rtcore.loop.world import StepResult
from rtcore.scheduling.dispatch import Source, TickKind
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

    def step(self, action: Any) -> StepResult:
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
    simulation.record.add_tick = lambda header, action: rows.append((header, action))
    simulation.run()
    return rows


def oracle(rows: Sequence[Any], gamma: float, discount_rewards: bool, *, chunks: bool = False) -> list[dict[str, Any]]:
    """The same from the definition: whole episodes, nothing kept between ticks."""
    found: list[dict[str, Any]] = []
    num_decisions = 0
    for _, group in groupby(rows, key=lambda row: row[0].episode):
        episode = list(group)
        frames = {header.tick: header.frame_seq for header, _ in episode}
        starts: list[int] = []
        previous: Any = None
        for place, (header, _) in enumerate(episode):
            key = header.tick if chunks else (header.worker, header.obs_tick, header.due_tick)
            if header.kind == TickKind.ACTED:
                if key != previous:
                    starts.append(place)
                previous = key
        first_decision, num_decisions = num_decisions, num_decisions + len(starts)
        last = episode[-1][0]
        over = bool(last.terminated or last.truncated)
        for number, (start, end) in enumerate(pairwise([*starts, len(episode)])):
            header, action = episode[start]
            is_last = end == len(episode)
            if is_last and not over:
                continue
            rewards = [row[0].reward for row in episode[start:end]]
            weights = [gamma**n if discount_rewards else 1.0 for n in range(len(rewards))]
            delay = header.tick - header.obs_tick
            if not is_last:
                next_seq = frames[episode[end][0].obs_tick]
            elif last.terminated:
                next_seq = last.frame_seq
            else:
                wanted = [tick for tick in frames if tick <= last.tick + 1 - delay]
                next_seq = frames[max(wanted)] if wanted else frames[min(frames)]
            found.append(
                {
                    "obs_seq": frames[header.obs_tick],
                    "action": action,
                    "reward": sum(w * r for w, r in zip(weights, rewards, strict=True)),
                    "discount": gamma ** len(rewards),
                    "next_obs_seq": next_seq,
                    "terminated": is_last and bool(last.terminated),
                    "truncated": is_last and not last.terminated,
                    "tick": header.tick,
                    "num_ticks": len(rewards),
                    "delay_ticks": delay,
                    "worker": header.worker,
                    "policy_version": header.policy_version,
                    "episode": header.episode,
                    "first_seq": episode[0][0].frame_seq,
                    "seq": header.frame_seq,
                    "chunk_index": header.chunk_index,
                    "decision": first_decision + number,
                    **dict.fromkeys(("features_seq", "features_age", "next_features_seq", "next_features_age"), -1),
                }
            )
    return found


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
