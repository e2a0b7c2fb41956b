"""The machine and the process: CPUs, devices, what a process started, seeds, a watchdog that knows when it stood still.

Imports `clock` and `errors`.
"""
