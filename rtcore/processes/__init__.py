"""Who starts, watches, restarts and ends whom: the fork server, the supervisor, and one file for each role.

Imports `learn`, `recording`, `results`, `loop`. Names the entries of processes by import string.
"""
