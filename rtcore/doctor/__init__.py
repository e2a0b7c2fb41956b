"""Whether this machine has what a run needs.

Imports `config` and `memory`.
"""
