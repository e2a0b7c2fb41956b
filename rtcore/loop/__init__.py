"""The env process: the world, one tick after the other, what it counts; `process` is its entry.

Imports `messages`.
"""
