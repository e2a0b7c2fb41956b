"""Chunks that go on where the last one is: a flow policy that draws one of two paths at random, through the loop."""

import importlib
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.slow
def test_with_the_committed_prefix_the_pen_does_not_jump_between_chunks_and_without_it_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("realtime_chunking")
    weights = tmp_path / "flow.pt"
    torch.save(example.train().state_dict(), weights)
    ratio = {}
    for mode in example.NUM_STEPS:
        jump, step = example.play(mode, weights, ticks=500)
        ratio[mode] = jump / step
    assert ratio["naive"] >= 3, ratio
    assert ratio["prefix"] <= 1.3, ratio
    assert ratio["guided"] <= ratio["naive"] / 2, ratio
