"""The machine and the process: CPUs, load, devices, what a process started, seeds, a watchdog of standstills.

Imports `clock` and `errors`.
"""
