"""The decisions of a run by their definition: a slow oracle that sees whole episodes at once.

`rtcore.learn.transitions` makes the same of one tick after another; they share no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

from rtcore.scheduling.dispatch import TickKind


def oracle(rows: Sequence[Any], gamma: float, discount_rewards: bool, *, chunks: bool = False) -> list[dict[str, Any]]:
    """Transitions from their definition: whole episodes, nothing kept between ticks.

    Args:
        rows: (header, applied action) of every tick of a run, in order.
        gamma: As of `TransitionBuilder`, and so are the others.
        discount_rewards: Whether rewards are discounted within a decision.
        chunks: Whether each action of a chunk is a decision.

    Returns:
        The fields of a `Transition` by name, one dict for each decision that is complete.
    """
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
        ticks = sorted(frames)
        for number, (start, end) in enumerate(pairwise([*starts, len(episode)])):
            header, action = episode[start]
            is_last = end == len(episode)
            if is_last and not over:
                continue
            rewards = [row[0].reward for row in episode[start:end]]
            weights = [gamma**n if discount_rewards else 1.0 for n in range(len(rewards))]
            delay = header.tick - header.obs_tick
            features, next_features = _features(header, frames), (-1, -1)
            if not is_last:
                next_header = episode[end][0]
                next_seq, next_features = frames[next_header.obs_tick], _features(next_header, frames)
            elif last.terminated:
                next_seq = last.frame_seq
            else:
                next_seq = _newest(frames, ticks, last.tick + 1 - delay)
                if features[1] >= 0:
                    next_features = _newest(frames, ticks, last.tick + 1 - delay - features[1]), features[1]
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
                    "features_seq": features[0],
                    "features_age": features[1],
                    "next_features_seq": next_features[0],
                    "next_features_age": next_features[1],
                }
            )
    return found


def _features(header: Any, frames: dict[int, int]) -> tuple[int, int]:
    """The frame that a head's features came from, and how much older than its own frame that is."""
    if header.features_tick < 0:
        return -1, -1
    return frames[header.features_tick], header.obs_tick - header.features_tick


def _newest(frames: dict[int, int], ticks: list[int], wanted: int) -> int:
    """The newest frame that is not newer than the one of tick `wanted`; the first one, if none is."""
    return frames[max((tick for tick in ticks if tick <= wanted), default=ticks[0])]
