"""Who starts when, and which action acts at which tick. Pure: driven by the wall, the virtual clock and a replay.

Imports nothing of rtcore.
"""
