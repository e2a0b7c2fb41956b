"""Looking at a run from outside, through its shared memory: what `rtcore-top` shows.

Imports `report`, `learn`.
"""
