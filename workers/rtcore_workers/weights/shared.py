"""A network whose parameters live in the parameter store: one copy for all workers, switched between two inferences.

`SharedWeights` makes every parameter and buffer of a module a view of the newest buffer of the store. For a new version
it rebinds them to another buffer: a few microseconds, no copy. On a GPU: see `on_device.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rtcore.errors import PolicyError
from rtcore.memory.tensors import Array, ParamManifest, ParamTensor
from rtcore.memory.weights import NONE, ParamStore, Version, checksum_of
from rtcore_workers.modulestate import WriteWatch
from rtcore_workers.weights.building import WithoutDraws
from rtcore_workers.weights.device_memory import NotShared

#: Most bytes verified in one call, which takes 16 ms.
_MOST_VERIFIED_BYTES = 1 << 24
#: Warning of torch when a factory loads pretrained weights into a module on the meta device. Harmless: the module gets
#: memory with the weights of worker 0, which did load them.
_NO_COPY = r"for .*: copying from a non-meta parameter in the checkpoint to a meta parameter"
#: Builds the module and its title; each call makes a new module.
Build = Callable[[], tuple[nn.Module, str]]


class Held(NamedTuple):
    """Weights that a holder process keeps on a device: their store, its buffers as uint8 tensors (buffer_bytes,)."""

    store: ParamStore
    flats: list[Tensor]
    kind: str


class Holding(Protocol):
    """How a worker reaches the holder of a device."""

    def ask(self, device: str) -> Held | None:
        """The weights held on "cpu" or "cuda:i"; None: there is no holder. NotShared if they cannot be mapped."""
        ...

    def refuse(self, device: str, why: str) -> None:
        """Report that this worker uses its own copy."""
        ...


class Weights(Protocol):
    """Source of the weights of a policy's network."""

    #: The module was built with memory, not on the meta device first.
    is_plain: bool

    def switch(self) -> Version:
        """Before an inference: use the newest version, which nobody overwrites until `release`."""
        ...

    def release(self, budget_ns: int = 0) -> None:
        """After an inference. PolicyError if the weights were written during it: by the module, or a fault of rtcore.

        `budget_ns`: time that may be spent on finding writes that torch does not count.
        """
        ...

    def refuse_changes(self) -> None:
        """After the first inference, before `release`. PolicyError if the module itself has changed its weights."""
        ...


class SharedWeights:
    """Binds a module's weights to a store. Used by one thread.

    Args:
        module: Its parameters and buffers become views of the store's newest buffer; meta tensors get memory first.
        manifest: Name, shape, dtype and place of each tensor in a buffer.
        store: The run's weights.
        worker: Whose claims these are.
        generation: Of that worker, see WORKER_CONTROL.
        on_torn: Called before `release` raises because the weights were overwritten meanwhile.
        holding: How the holder of a device is reached, for `on_device.placed`; None: there is none.

    Attributes:
        version: What the module is bound to since the last `switch`.
        is_plain: Whether the module was built with memory, not on the meta device first.

    Raises:
        PolicyError: The module does not have the manifest's tensors.
    """

    def __init__(
        self,
        module: nn.Module,
        manifest: ParamManifest,
        store: ParamStore,
        *,
        worker: int = 0,
        generation: int = 1,
        on_torn: Callable[[], None] = lambda: None,
        holding: Holding | None = None,
    ) -> None:
        self.holding = holding
        self.is_plain = not _has_meta(module)
        self.module = module
        self.manifest = manifest
        self.store = store
        self.version = NONE
        self._worker = worker
        self._generation = generation
        self._on_torn = on_torn
        self._views: dict[int, list[Tensor]] = {}
        #: The buffers, where they are not in the store's own memory.
        self._flats: list[Tensor] | None = None
        self._bound = -1
        #: Progress of the current check of all weights: bytes done, CRC-32 so far, version.
        self._verified = (0, 0, -1)
        claimed = store.claim(worker, generation)
        try:
            self._shared = [tensor for tensor in manifest.tensors if tensor.kind != "private"]
            self._targets = self._take_over(store.buffer(claimed.buffer))
            self.bind(claimed.buffer)
            self._writes = WriteWatch(self._targets)
        finally:
            store.release(worker)

    def switch(self) -> Version:
        """Claim the newest weights and bind the module to them; returns their version. Allocates only at first use."""
        claimed = self.claim()
        if claimed.buffer != self._bound:
            self.bind(claimed.buffer)
        self.version = claimed
        return claimed

    def move(self, held: Held) -> None:
        """Use the buffers of another store from now on. Called while weights are claimed; they are claimed afterwards.

        NotShared if the newest version there does not match its checksum; then nothing has changed.
        """
        moved = held.store.claim(self._worker, self._generation)
        found = checksum_of(_bytes_of(held.flats[moved.buffer]))
        if found != moved.checksum:
            held.store.release(self._worker)
            raise NotShared(f"version {moved.version} has checksum {found:08x} there; expected {moved.checksum:08x}")
        self.release()
        self.store, self._flats = held.store, held.flats
        self._views = {buffer: self._views_of(buffer) for buffer in range(self.num_copies)}
        self.bind(moved.buffer)
        self.version = moved

    @property
    def num_copies(self) -> int:
        """See `on_device.Copies`: the store's buffers."""
        return self.store.layout.num_buffers

    @property
    def active(self) -> int:
        return self._bound

    def claim(self) -> Version:
        """Claim the newest weights until `release`, without binding the module to them."""
        return self.store.claim(self._worker, self._generation)

    def release(self, budget_ns: int = 0) -> None:
        """Give up the claim. PolicyError if the weights were written while they were claimed."""
        written = self._writes.written()
        intact = self.store.is_intact(self.version)
        whole = not budget_ns or self._verify_part(budget_ns)
        self.store.release(self._worker)
        if written or (intact and not whole):
            raise self._writes_weights(written)
        if not intact:
            self._on_torn()
            raise PolicyError(
                f"worker {self._worker} computed with weights that were written meanwhile (version "
                f"{self.version.version}); expected them to stay. This is a fault of rtcore: please report it"
            )

    def refuse_changes(self) -> None:
        """PolicyError if the module writes to its own weights, which all workers share.

        Reads all weights, so only the first worker does it.
        """
        buffer, flats = self.version.buffer, self._flats
        memory = self.store.buffer(buffer) if flats is None else _bytes_of(flats[buffer])
        if not self.is_plain or checksum_of(memory) == self.version.checksum:
            return
        raise self._writes_weights(self._writes.written())

    def _writes_weights(self, written: list[str]) -> PolicyError:
        which = ", ".join(written[:5])
        if not written:
            buffers = [tensor.name for tensor in self.manifest.tensors if tensor.kind == "buffer"]
            which = (
                "which of them is not known, as it was past PyTorch's count of writes: by .data, NumPy, or a layer"
                + (f" that updates a buffer ({', '.join(buffers[:5])})" if buffers else " of your own")
            )
        return PolicyError(
            f"the policy's module writes to its own weights while it computes (version {self.version.version}: "
            f"{which}); expected it not to, as all workers share them, and the record names them by version and "
            "checksum. BatchNorm does so in training mode: keep to eval mode. A state that goes on from frame to frame "
            "is not carried (each worker sees every N-th frame): use --obs-history. What is scratch memory of one call "
            "may be a buffer with persistent=False, each worker's own"
        )

    def _verify_part(self, budget_ns: int) -> bool:
        """Verify the next part of the weights; False if the checksum of a whole pass is wrong.

        Finds writes that torch does not count: BatchNorm in training mode, `.data`, NumPy. The first worker alone does.
        """
        if self._worker != 0 or self._flats is not None:
            return True
        at, checksum, version = self._verified
        if version != self.version.version:
            at, checksum = 0, 0
        memory = self.store.buffer(self.version.buffer)
        end = min(len(memory), at + min(budget_ns, _MOST_VERIFIED_BYTES))  # a CRC takes about 1 ns a byte
        checksum = crc32(memory[at:end], checksum)
        is_over = end == len(memory)
        self._verified = (0, 0, -1) if is_over else (end, checksum, self.version.version)
        return not is_over or checksum == self.version.checksum

    def bind(self, buffer: int) -> None:
        """Make the tensors of the module views of a buffer."""
        views = self._views.get(buffer)
        if views is None:
            views = self._views[buffer] = self._views_of(buffer)
        for (_, target), view in zip(self._targets, views, strict=True):
            target.data = view
        self._bound = buffer

    def _views_of(self, buffer: int) -> list[Tensor]:
        flats, memory = self._flats, self.store.buffer(buffer)
        by_name = {
            tensor.name: view_of(memory, tensor) if flats is None else view_in(flats[buffer], tensor)
            for tensor in self._shared
        }
        return [by_name[name] for name, _ in self._targets]

    def _take_over(self, buffer: memoryview) -> list[tuple[str, Tensor]]:
        """The module's tensors with their names in the manifest. Those on the meta device get memory."""
        found: list[tuple[str, Tensor]] = []
        present = dict(_named_tensors(self.module))
        _check_same(self.manifest, present)
        for tensor in self.manifest.tensors:
            seen: set[int] = set()
            replaced: Tensor | None = None
            for name in tensor.names:
                own = present[name]
                if own.is_meta:
                    # Tied weights stay one object under all their names.
                    view = view_of(buffer, tensor)
                    data = view.clone() if tensor.kind == "private" else view
                    replaced = data_like(own, data) if replaced is None else replaced
                    _set(self.module, name, replaced)
                    own = replaced
                if tensor.kind != "private" and id(own) not in seen:
                    seen.add(id(own))
                    found.append((tensor.name, own))
        return found


def named_targets(weights: SharedWeights) -> list[tuple[str, Tensor]]:
    """The module's own tensors that follow the store, each with its first name in the manifest."""
    return weights._targets


def manifest_of(module: nn.Module) -> ParamManifest:
    """Every parameter and buffer of a module, tied ones once. PolicyError for what cannot be shared.

    Trainable are float32 parameters that require a gradient. Memory order is each tensor's own.
    """
    refuse_lazy(module)
    groups: dict[tuple[Any, ...], tuple[list[str], Tensor, str]] = {}
    for name, tensor in _named_tensors(module):
        if tensor.layout is not torch.strided:
            raise PolicyError(
                f"the policy's tensor {name!r} is {tensor.layout}; expected a dense one. Keep sparse data "
                "outside of the module's parameters and buffers"
            )
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        # Empty tensors and those on the meta device have no address.
        unique = key if tensor.numel() and not tensor.is_meta else (id(tensor),)
        groups.setdefault(unique, ([], tensor, _kind(module, name, tensor)))[0].append(name)
    return ParamManifest.of(
        ParamTensor(
            tuple(names),
            tuple(tensor.shape),
            torch.empty_like(tensor, device="meta").stride(),
            str(tensor.dtype).removeprefix("torch."),
            kind,
            trainable=kind == "parameter" and tensor.requires_grad and tensor.dtype == torch.float32,
        )
        for names, tensor, kind in groups.values()
    )


def refuse_lazy(module: nn.Module) -> None:
    """PolicyError for a module whose sizes are not known before its first call."""
    for name, tensor in _named_tensors(module):
        if is_lazy(tensor):
            raise PolicyError(
                f"the policy's tensor {name!r} is not initialised yet; expected one of a known shape. Give lazy layers "
                "their sizes (nn.Linear(n, ...) for nn.LazyLinear(...)), or call the module once in the factory, on "
                "zeros of the observation space"
            )


def write_weights(module: nn.Module, manifest: ParamManifest, buffer: memoryview) -> None:
    """Copy a module's tensors into a buffer of their manifest. Padding is left as it is (0 in a new buffer)."""
    present = dict(_named_tensors(module))
    with torch.no_grad():
        for tensor in manifest.tensors:
            view_of(buffer, tensor).copy_(present[tensor.name])


def view_of(buffer: memoryview, tensor: ParamTensor) -> Tensor:
    """A tensor of a buffer: a view of shared memory, in its own memory order."""
    dtype = getattr(torch, tensor.dtype)
    if tensor.num_elements == 0:
        return torch.empty(tensor.shape, dtype=dtype)
    flat = torch.frombuffer(buffer, dtype=dtype, count=tensor.num_elements, offset=tensor.offset)
    return flat.as_strided(tensor.shape, tensor.strides)


def view_in(flat: Tensor, tensor: ParamTensor) -> Tensor:
    """The same of a buffer that is a tensor, (buffer_bytes,) uint8, on any device."""
    part = flat[tensor.offset : tensor.offset + tensor.num_bytes].view(getattr(torch, tensor.dtype))
    return part.as_strided(tensor.shape, tensor.strides) if tensor.num_elements else part.view(tensor.shape)


def _bytes_of(flat: Tensor) -> memoryview:
    """A device's buffer on the host: a copy, if it is not there."""
    return flat.cpu().numpy().data


def data_like(own: Tensor, data: Tensor) -> Tensor:
    """`data` as what `own` is: a parameter (with its requires_grad) or a plain tensor."""
    return nn.Parameter(data, requires_grad=own.requires_grad) if isinstance(own, nn.Parameter) else data


def connect(
    build: Build,
    make_store: Callable[[ParamManifest | None], ParamStore],
    *,
    initial: Mapping[str, Array] | None = None,
    what: str = "the weights",
    is_first: bool,
    plain: bool = False,
    **options: Any,
) -> tuple[nn.Module, str, SharedWeights]:
    """Build a module and bind it to the run's weights.

    The first one makes them: `make_store(manifest)`; version 1 is what the factory drew, or `initial` (as
    `ParamManifest.check` takes it; `what` names it in errors). Later ones, `make_store(None)`, are built without
    memory on the meta device, and built plainly if that does not go, or if `plain`. `options`: as `SharedWeights`.
    """
    if is_first:
        module, title = build()
        manifest = manifest_of(module)
        _refuse_hidden_views(module)
        arrays = None if initial is None else manifest.check(initial, what)
        store = make_store(manifest)
        store.set_manifest(manifest)

        def write(buffer: memoryview) -> None:
            write_weights(module, manifest, buffer)
            if arrays is not None:
                manifest.write(buffer, arrays)

        store.publish(write)
        return module, title, SharedWeights(module, manifest, store, **options)
    store = make_store(None)
    manifest = store.manifest()
    if manifest.tensors and not plain:  # a network without tensors to share is built plainly
        try:
            with torch.device("meta"), WithoutDraws(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", _NO_COPY)
                module, title = build()
            weights = SharedWeights(module, manifest, store, **options)
        except Exception:
            pass
        else:
            if not _has_meta(module):
                return module, title, weights
    module, title = build()
    return module, title, SharedWeights(module, manifest, store, **options)


# -- modules -----------------------------------------------------------------------------------------------------


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _kind(module: nn.Module, name: str, tensor: Tensor) -> str:
    if isinstance(tensor, nn.Parameter):
        return "parameter"
    owner, leaf = _owner(module, name)
    return "private" if leaf in owner._non_persistent_buffers_set else "buffer"


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, leaf = _owner(module, name)
    # By the module's own attribute: an RNN also keeps a list of its weights, which follows.
    setattr(owner, leaf, tensor)


def _check_same(manifest: ParamManifest, present: Mapping[str, Tensor]) -> None:
    known = manifest.by_name
    for name in (*known, *present):
        expected, own = known.get(name), present.get(name)
        got = None if own is None else (tuple(own.shape), str(own.dtype).removeprefix("torch."))
        if expected is None or got != (expected.shape, expected.dtype):
            wanted = None if expected is None else (expected.shape, expected.dtype)
            raise PolicyError(
                f"the policy's tensor {name!r} is {got} in this worker and {wanted} in worker 0; expected the same "
                "network in each. Make the factory depend on its arguments alone"
            )


def _plain_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Tensors that modules keep beside their parameters and buffers."""
    for path, each in module.named_modules():
        for attribute, value in vars(each).items():
            if attribute in ("_parameters", "_buffers", "_modules"):
                continue
            values = value.values() if isinstance(value, dict) else value
            for item in values if isinstance(value, list | tuple | dict) else (value,):
                if isinstance(item, Tensor):
                    yield f"{path}.{attribute}".lstrip("."), item


def _has_meta(module: nn.Module) -> bool:
    tensors = (tensor for source in (_named_tensors, _plain_tensors) for _, tensor in source(module))
    return any(tensor.is_meta for tensor in tensors)


def _refuse_hidden_views(module: nn.Module) -> None:
    """PolicyError for a view of a weight that is kept outside the parameters: it would not follow a new version."""
    own = dict(_named_tensors(module))
    addresses = {tensor.untyped_storage().data_ptr(): name for name, tensor in own.items() if tensor.numel()}
    objects = {id(tensor) for tensor in own.values()}
    for name, tensor in _plain_tensors(module):
        if id(tensor) in objects or not tensor.numel() or tensor.layout is not torch.strided:
            continue
        source = addresses.get(tensor.untyped_storage().data_ptr())
        if source is not None:
            raise PolicyError(
                f"the policy's module keeps {name!r}, a view of its weight {source!r}; expected views to be made in "
                "forward, as one that is kept does not follow a new version of the weights"
            )
