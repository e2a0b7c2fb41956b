"""Learning beside a run: the learner processes and the master weights they share, checkpoints, what a run resumes from.

No PyTorch here: the algorithm and the learner's process are in `rtcore_workers`.
"""
