"""Decisions of a delayed run as transitions: what a learner, ours or anyone's, trains on.

Under delay the steps of learning are decisions, not ticks (arXiv 2412.14355; the induced delayed semi-MDP): the frame
the decision saw, its action, the rewards of the ticks it governed, the frame the *next* decision saw. A decision
governs the ticks from the one at which it was first applied to the one before the next decision's, ticks without a
policy action included. `TransitionBuilder` is pure; `TransitionReader` reads a run's frame ring, which is the replay
memory: frames stay where the env process put them. `History` says what else of the past a decision saw.
docs/transitions.md has the picture.
"""

from rtcore.history import History
from rtcore.replay.builder import Transition, TransitionBuilder, TransitionCounts
from rtcore.replay.memory import Batch, NothingToSample, TransitionReader

__all__ = [
    "Batch",
    "History",
    "NothingToSample",
    "Transition",
    "TransitionBuilder",
    "TransitionCounts",
    "TransitionReader",
]
