"""Runs seen from outside: which there are, and what one of them is doing. Read-only."""
