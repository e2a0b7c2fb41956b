"""Experiments as a table of independent cells: one file says them all, each leaves one small JSON file.

A sweep file names worlds, agents, delays, seeds (`sweepfile`). Their product are cells. Each is played in a process of
its own (`playing`), on this machine (`local`) or as a Ray task (`raytasks`), and leaves a record (`records`). `sweep`
goes on where an earlier call stopped. Nothing here decides what becomes of the numbers: reports read the records.
"""
