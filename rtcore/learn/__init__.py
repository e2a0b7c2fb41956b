"""Learning beside a run: transitions, the replay memory in the frame ring, checkpoints, what a run resumes from.

No PyTorch here: the algorithm and the learner's process are in `rtcore_workers`. Imports `results`.
"""
