"""Realtime worlds for rtcore.

Importing this package registers the Gymnasium ids; the emulator is imported when a world is made.
"""

from rtcore_envs.registration import register_envs

register_envs()
