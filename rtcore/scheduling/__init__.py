"""Which worker starts when, and which action acts at which tick. Pure: used by the env process, the virtual clock and
a replay alike.

Imports nothing of rtcore.
"""
