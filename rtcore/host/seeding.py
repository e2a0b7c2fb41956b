"""The random generators of a process: Python's, numpy's and torch's global ones, seeded from the run's seed.

Children are forked from one server and would all begin with its generators. Each is seeded from (seed, ticks of earlier
runs, role, index, generation) instead: reproducible, another sequence in every process, and in a process that takes a
dead one's place as well (it does not repeat what that one drew).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import random
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np


def entropy_of(seed: int, ticks_before: int, role: str, index: int, generation: int) -> list[int]:
    """What the random numbers of a process depend on: no two processes have the same."""
    return [seed, ticks_before, zlib.crc32(role.encode()), index, generation]


def world_entropy(seed: int) -> list[int]:
    """The same for the env process. `seed`: the world's, which already depends on the ticks of earlier runs."""
    return entropy_of(seed, 0, "env", 0, 0)


def seed_generators(entropy: Sequence[int]) -> None:
    """Seed this process's global generators: torch's at once if it is imported, else when it is."""
    words = np.random.SeedSequence(list(entropy)).generate_state(10)
    random.seed(words[:4].tobytes())
    np.random.seed(words[4:8])
    torch_seed = int(words[8]) << 32 | int(words[9])
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(torch_seed)
    else:
        sys.meta_path.insert(0, _SeedsTorch(torch_seed))


@contextmanager
def the_same_for_all(seed: int) -> Iterator[None]:
    """In the block the generators depend on `seed` alone; afterwards they go on where they were. torch is imported."""
    torch: Any = sys.modules["torch"]
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    words = np.random.SeedSequence([seed]).generate_state(8)
    random.seed(words[:4].tobytes())
    np.random.seed(words[4:])
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.random.set_rng_state(cpu)


class _SeedsTorch(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torch as it would be found without it, and seeds it once it is loaded. Once."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._loader: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        module.manual_seed(self._seed)
