"""Sweep files, and in `results` the cells that came of them: the figures of docs/results.md."""

from __future__ import annotations

from typing import Any


def abstain(observation: Any) -> None:
    """A policy that never acts: the floor of a world, in which `on-missing` alone acts."""
