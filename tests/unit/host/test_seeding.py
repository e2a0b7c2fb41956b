"""Global random generators: another sequence in every process, the same in every run of a seed."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from rtcore.host.seeding import entropy_of, seed_generators, the_same_for_all

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _as_before():
    with the_same_for_all(0):
        yield


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))


def test_what_is_drawn_depends_on_seed_role_index_generation_and_the_ticks_of_earlier_runs() -> None:
    places = [(0, 0, "worker", 0, 1), (1, 0, "worker", 0, 1), (0, 9, "worker", 0, 1), (0, 0, "learner", 0, 1)]
    places += [(0, 0, "worker", 1, 1), (0, 0, "worker", 0, 2), (0, 0, "worker", 1, 0)]
    found = []
    for place in places:
        seed_generators(entropy_of(*place))
        first = drawn()
        seed_generators(entropy_of(*place))
        assert drawn() == first
        found.append(first)
    for generator in zip(*found, strict=True):
        assert len(set(generator)) == len(places), "no two processes draw the same"


def test_torch_imported_later_is_seeded_then() -> None:
    program = (
        "import sys, json\n"
        "from rtcore.host.seeding import entropy_of, seed_generators\n"
        "seed_generators(entropy_of(3, 0, 'env', 0, 0))\n"
        "import torch, torch.nn\n"
        "assert torch.__spec__.loader is torch.__loader__ and type(torch.__loader__).__name__ == 'SourceFileLoader'\n"
        "print(json.dumps(torch.rand(3).tolist()))\n"
    )
    later = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    seed_generators(entropy_of(3, 0, "env", 0, 0))
    assert torch.rand(3).tolist() == later


def test_a_factory_draws_the_same_in_every_worker_and_leaves_the_generators_as_they_were() -> None:
    found, after = [], []
    for worker in range(2):
        seed_generators(entropy_of(0, 0, "worker", worker, 1))
        with the_same_for_all(7):
            found.append(drawn())
        after.append(drawn())
        seed_generators(entropy_of(0, 0, "worker", worker, 1))
        assert drawn() == after[-1]
    assert found[0] == found[1]
    assert after[0] != after[1]
