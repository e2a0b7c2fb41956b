"""A run whose actions say which weights they were computed with: its world, a publisher, and what was applied."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rtcore.memory.weights import attach_store

PLAYING: dict[str, Any] = {
    "env_id": "tests.support.weight_parts:Steady",
    "policy": "tests.support.constant_weights:constant",
    "workers": 4,
    "stagger": "free-running",
    "warmup": 2,
    "ticks": 1_000_000,
}


class Steady(gymnasium.Env[Any, Any]):
    """Takes two numbers of any size; never ends."""

    metadata = {"render_fps": 200}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(0, 255, (4,), np.uint8)
    action_space = gymnasium.spaces.Box(0.0, 2.0**24, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(4, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(4, np.uint8), 0.0, False, False, {}


def state(version: int, num_parameters: int = 1 << 18) -> dict[str, Any]:
    """The weights of that version, as a trainer has them."""
    filled = {f"weights.{index}": np.full(num_parameters // 4, version, np.float32) for index in range(4)}
    return filled | {"same": np.ones(1, np.float32)}


def publish_for_ever(run_id: str) -> None:
    """A trainer in a process of its own: each version is filled with its number."""
    store = attach_store(run_id)
    manifest = store.manifest()

    def write(buffer: memoryview) -> None:
        manifest.trainable_array(buffer)[:] = store.newest_version() + 1

    print("publishing", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:  # a test that was killed cannot end it
        store.publish(write, updates=1)


def start_publisher(run_id: str) -> subprocess.Popen[bytes]:
    """`publish_for_ever` in a process that is at it."""
    publisher = subprocess.Popen([sys.executable, __file__, run_id], stdout=subprocess.PIPE)
    assert publisher.stdout is not None
    with publisher.stdout as said:
        assert said.readline() == b"publishing\n"
    return publisher


def applied(folder: Path) -> list[tuple[int, float, float, str]]:
    """Of every action that was applied: version, the smallest and the largest weight it was computed with, checksum."""
    with (folder / "actions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "acted"]
    found = []
    for row in rows:
        low, high = map(float, row["applied_action"].split())
        found.append((int(row["policy_version"]), low, high, row["policy_checksum"]))
    return found


def check_each_came_from_one_version(folder: Path) -> set[int]:
    """Of every action that was applied; the versions."""
    actions = applied(folder)
    assert actions
    assert [one for one in actions if not one[1] == one[2] == one[0]] == []
    checksums = {version: checksum for version, _, _, checksum in actions}
    assert all(checksums[version] == checksum for version, _, _, checksum in actions)
    assert len(set(checksums.values())) == len(checksums), "another content, another checksum"
    return set(checksums)


if __name__ == "__main__":
    publish_for_ever(sys.argv[1])
