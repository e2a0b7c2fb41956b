"""Weights on a GPU: held by a process of their own for all the device's workers, or in copies of each worker's own.

Held (`rtcore_workers.holder`): this worker claims one of the holder's buffers for each inference, as it would one in
host memory. Own (`DeviceWeights`): two copies of the store's buffer in the device's memory; a new version is copied
into the other one on a stream of its own while inferences go on, and is used from the first inference that begins
after the copy has ended. Neither has run on a GPU yet; docs/gpu.md lists what has.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rtcore.errors import PolicyError
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import Version
from rtcore_workers.weights.device_memory import NotShared
from rtcore_workers.weights.shared import SharedWeights, Weights, named_targets, view_in

_NUM_COPIES = 2


class Copies(Protocol):
    """What an executor needs to know: one CUDA graph belongs to each copy, as it has their addresses in it."""

    @property
    def num_copies(self) -> int: ...

    @property
    def active(self) -> int: ...

    def bind(self, copy: int, /) -> None:
        """Make the module's tensors those of a copy."""
        ...


def placed(weights: SharedWeights, device: str) -> tuple[Weights, Copies | None, tuple[str, ...]]:
    """A policy's weights where it computes, "cpu" or "cuda:i", and what a user should know of that.

    `weights` are held (`switch` was called), and what is returned is.
    """
    notes: tuple[str, ...] = ()
    if weights.holding is not None:
        try:
            held = weights.holding.ask(device)
            if held is not None:
                weights.move(held)
                return weights, weights, (f"weights: one copy on {device} for all its workers, by {held.kind}",)
        except NotShared as error:
            weights.holding.refuse(device, str(error))
            notes = (f"weights: {device} has no copy for all its workers: {error}",)
    if device == "cpu":
        return weights, None, notes
    own = DeviceWeights(weights, device)
    return own, own, (*notes, f"weights: two copies on {device} for each worker")


class DeviceWeights:
    """Takes over a module that `SharedWeights` has bound and holds (`switch` was called). Used by one thread."""

    num_copies = _NUM_COPIES

    def __init__(self, shared: SharedWeights, device: str) -> None:
        self.is_plain = shared.is_plain
        self.active = 0
        self.version = shared.version
        self._shared = shared
        self._store = shared.store
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        size = shared.manifest.buffer_bytes
        self._flats = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(_NUM_COPIES)]
        self._sources: dict[int, Tensor] = {}
        targets = named_targets(shared)
        self._targets = [target for _, target in targets]
        names = [name for name, _ in targets]
        self._views = [_views_of(flat, shared.manifest, names) for flat in self._flats]
        self._arriving: Version | None = None
        if self._on_gpu:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        for flat in self._flats:
            flat.copy_(self._source(self.version.buffer))
        self.bind(0)

    def bind(self, copy: int) -> None:
        for target, view in zip(self._targets, self._views[copy], strict=True):
            target.data = view

    def switch(self) -> Version:
        """The newest version that has arrived on the device. Starts the next copy; waits for none."""
        if self._arriving is not None and self._has_arrived():
            self._store_done(self._arriving)
            self.version, self._arriving = self._arriving, None
            self.active = 1 - self.active
            self.bind(self.active)
        if self._arriving is None and self._store.newest_version() != self.version.version:
            self._begin_copy()
        return self.version

    def release(self, budget_ns: int = 0) -> None:
        """Does nothing: a buffer is claimed while it is copied, not while an inference uses the copy."""

    def refuse_changes(self) -> None:
        """As `SharedWeights`; writes to the copy on the device are not looked for."""
        self._shared.refuse_changes()

    def _begin_copy(self) -> None:
        claimed = self._shared.claim()
        target, source = self._flats[1 - self.active], self._source(claimed.buffer)
        if self._on_gpu:
            # The last inference with that copy has ended: an executor waits for its result.
            with torch.cuda.stream(self._stream):
                target.copy_(source, non_blocking=True)
                self._event.record(self._stream)
        else:
            target.copy_(source)
        self._arriving = claimed

    def _has_arrived(self) -> bool:
        return not self._on_gpu or bool(self._event.query())  # type: ignore[no-untyped-call]

    def _store_done(self, claimed: Version) -> None:
        self._shared.version = claimed
        self._shared.release()

    def _source(self, buffer: int) -> Tensor:
        """A buffer of the store, page-locked for the GPU: else a copy would not run beside inferences."""
        source = self._sources.get(buffer)
        if source is None:
            memory = np.frombuffer(self._store.buffer(buffer), np.uint8)
            source = self._sources[buffer] = torch.from_numpy(memory)
            if self._on_gpu:
                code = int(torch.cuda.cudart().cudaHostRegister(source.data_ptr(), source.numel(), 0))  # type: ignore[no-untyped-call]
                if code:
                    raise PolicyError(
                        f"the GPU's driver refused to lock {source.numel() / 1e6:.1f} MB of weights in memory (error "
                        f"{code}); raise the limit of locked memory (ulimit -l) or use --device cpu"
                    )
        return source


def _views_of(flat: Tensor, manifest: ParamManifest, names: list[str]) -> list[Tensor]:
    by_name = {tensor.name: view_in(flat, tensor) for tensor in manifest.tensors if tensor.kind != "private"}
    return [by_name[name] for name in names]
