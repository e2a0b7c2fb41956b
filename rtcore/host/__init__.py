"""The machine and the process: CPUs, load, devices, the processes that a process started, random seeds, a watchdog,
packages of the extras.

Imports `clock` and `errors`.
"""
