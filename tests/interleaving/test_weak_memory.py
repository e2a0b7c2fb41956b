"""The protocols on a machine that reorders memory accesses, as ARM does: every order that is allowed, by spin.

The other tests here run the real code, one step after the other. These run models of it (tests/models/), in which each
ordering that the code asks for can be taken away.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.interleaving,
    pytest.mark.skipif(
        shutil.which("spin") is None or shutil.which("cc") is None, reason="needs spin (Debian's package) and cc"
    ),
]

MODELS = Path(__file__).parents[1] / "models"
#: Each model, and which of its orderings x86-64 does not give by itself: a store before a later load.
NEEDS_A_FENCE_ON_X86: dict[str, set[str]] = {
    "litmus": {"SB_LEFT", "SB_RIGHT"},
    "ring": set(),
    "slots": set(),
    "jobs": set(),
    "store": {"W7", "R7"},
    "wake": {"W12", "R12"},
}


class Model:
    """One compiled model."""

    def __init__(self, name: str, folder: Path) -> None:
        source = (MODELS / f"{name}.pml").read_text()
        self.name = name
        self.orderings = set(re.findall(r"^ORDERING\((\w+)\)", source, re.MULTILINE))
        self.outcomes = set(re.findall(r"OUTCOME\((\w+)\)", source))
        self._program = folder / "pan"
        subprocess.run(["spin", "-a", MODELS / f"{name}.pml"], cwd=folder, check=True, timeout=150)
        # Without spin's own reduction: it does not look into the C parts.
        options = ("-w", "-O1", "-DSAFETY", "-DNOREDUCE")
        subprocess.run(["cc", *options, "-o", "pan", "pan.c"], cwd=folder, check=True, timeout=100)

    def fault(self, **settings: str) -> str | None:
        """The first thing that goes wrong in any order; None if nothing does, and all orders were tried."""
        run = subprocess.run(
            [self._program, "-w20"],  # a table of 8 MB is enough, and is cleared more quickly than the usual one
            cwd=self._program.parent,
            env=os.environ | settings,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=300,
        )
        found = re.search(r"pan:1: (.+?) \(at depth", run.stdout)
        assert "max search depth too small" not in run.stdout
        assert (found is None) == (" errors: 0\n" in run.stdout), run.stdout
        return found and found[1]


@pytest.fixture(scope="module", params=NEEDS_A_FENCE_ON_X86)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(request.param, tmp_path_factory.mktemp(request.param))


def test_with_every_ordering_nothing_goes_wrong_and_every_outcome_is_reached(model):
    assert model.fault() is None
    assert model.fault(MACHINE="x86") is None
    assert {name: model.fault(SHOW=name) for name in model.outcomes} == {
        name: f"outcome {name}" for name in model.outcomes
    }


def test_without_any_one_ordering_something_goes_wrong(model):
    faults = {ordering: model.fault(WITHOUT=ordering) for ordering in model.orderings}
    # A lost wake-up is a process that waits for ever.
    expected = "invalid end state" if model.name == "wake" else "assertion violated"
    assert all(fault and fault.startswith(expected) for fault in faults.values()), faults


def test_x86_gives_all_orderings_but_that_of_a_store_before_a_load(model):
    missed = {ordering for ordering in model.orderings if model.fault(MACHINE="x86", WITHOUT=ordering)}
    assert missed == NEEDS_A_FENCE_ON_X86[model.name]
    assert model.fault(MACHINE="x86", WITHOUT=",".join(model.orderings - missed)) is None
