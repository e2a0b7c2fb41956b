"""Runs a policy on one observation at a time, in memory that is allocated beforehand: on a CPU, or on a GPU.

The CUDA part has not yet been run on a GPU; `docs/gpu.md` keeps the record.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rtcore.clock import Clock, MonotonicClock
from rtcore.errors import PolicyError
from rtcore.host.devices import device_names, no_gpu, no_such_gpu
from rtcore.spaces import ObservationSpec
from rtcore.spaces.payload import WORD_AT, Block
from rtcore_workers.modulestate import PlainCallable
from rtcore_workers.policies.base import Array, InferenceTiming
from rtcore_workers.policies.calling import ALONE, Calling, begin_context
from rtcore_workers.weights.on_device import Copies

_NUM_WARM_UP_RUNS = 3
_NS_PER_EVENT_MS = 1_000_000
_STATE_TICK = WORD_AT["state_tick"]
#: Of torch's messages when a graph is built on tensors of the inference mode.
_OF_AUTOGRAD = ("nference tensor", "does not require grad", "requires_grad", "grad_fn")


class Executor(Protocol):
    """One policy, one staging buffer, one output buffer; used by one thread."""

    #: Staging buffer of the frame's shape and dtype: fill it, then `run`. Always the same array. Of a Dict observation
    #: the policy gets the parts.
    observation: Array
    #: Staging buffer of the past actions, the policy's second argument; None: it has only one.
    past_actions: Array | None
    #: Memory for what the policy gets and gives beside frame and action.
    blocks: ContextAndPayload
    #: Host output of the last run, batch of one first: overwritten by each run, and the same array as long as the
    #: policy gives the same dtype. None: a plain callable has not given an action yet.
    output: Array | None
    #: Parts of the last run [ns]. Always the same object.
    timing: InferenceTiming
    device: str
    #: What a user should know, such as a CUDA graph that could not be captured.
    notes: tuple[str, ...]

    def run(self) -> Array | None:
        """Run the policy on `observation`; `output`, in which floats of fewer than 64 bits have become float32.

        None: it gave no action this time, which only a plain callable may. PolicyError if it returns no tensor, or
        another shape than before.
        """
        ...


class ContextAndPayload:
    """Host memory for a job's context, which the policy gets, and an answer's payload, which it gives.

    `context`, `payload`: each one block of bytes, None where the policy has none; always the same memory.
    """

    def __init__(self, calling: Calling, allocate: Callable[[int], memoryview]) -> None:
        needs = calling.needs
        self.context = allocate(calling.block.nbytes) if calling.block else None
        self.payload = allocate(needs.payload.nbytes) if needs.payload else None
        self.given = calling.block.views(self.context) if self.context is not None else {}
        self.returned = needs.payload.views(self.payload) if self.payload is not None else {}
        first = needs.state.views(needs.first_state)
        self._initial = [(self.given[f"state.{name}"], array) for name, array in first.items()]
        self._kept = [(self.returned[f"state.{name}"], self.given[f"state.{name}"]) for name in needs.state.names]
        #: What could turn NaN. Whoever begins with NaN means something by it.
        self._finite = [
            (name, self.returned[f"state.{name}"])
            for name, array in first.items()
            if array.dtype.kind == "f" and array.size and not np.isnan(array).any()
        ]
        begin_context(self.given, needs, calling.first_task)

    def begin(self) -> None:
        """Before a run: an episode begins with the initial state."""
        if self._initial and self.given["words"][_STATE_TICK] < 0:
            for target, array in self._initial:
                target[...] = array

    def refuse_nan(self) -> None:
        """After a run. PolicyError if a part of the new state has become NaN, before it is carried on.

        The least number of an array with NaN is NaN: one pass over it, in the worker, which allocates nothing large.
        """
        for name, array in self._finite:
            if np.isnan(array.min()):
                which = "carried state" if name == ALONE else f"carried state {name!r}"
                raise PolicyError(
                    f"the policy's {which} has become NaN ({np.isnan(array).sum()} of {array.size} numbers, dtype "
                    f"{array.dtype}); expected numbers, as all later decisions of the episode begin from it. Look for "
                    "a division by 0, a logarithm or root of what is not above 0, or an overflow in what computes it"
                )

    def nothing_returned(self) -> None:
        """The policy gave nothing: no extras, and its state is what it was."""
        for array in self.returned.values():
            array[...] = 0
        for target, array in self._kept:
            target[...] = array


class _Destination(NamedTuple):
    """Where an array of an answer is copied to. `shapes`: those accepted, with and without the batch."""

    name: str
    target: Any
    shapes: tuple[tuple[int, ...], ...]
    dtype: Any


def _destinations(calling: Calling, targets: Mapping[str, Any], dtype_of: Callable[[str], Any]) -> list[_Destination]:
    """For each array that this part of a policy returns; the rest of the payload stays as it is."""
    destinations = []
    for name, shape, dtype in calling.needs.payload.fields:
        what = name.partition(".")[0]
        if what == "extras" or (what == "state" and calling.has_state) or (what, calling.part) == ("features", "trunk"):
            shapes = (shape, (1, *shape)) if what == "extras" else (shape,)
            destinations.append(_Destination(name, targets[name], shapes, dtype_of(dtype)))
    return destinations


def make_executor(
    module: nn.Module,
    observation: ObservationSpec,
    device: str,
    *,
    clock: Clock | None = None,
    past_actions: Array | None = None,
    copies: Copies | None = None,
    calling: Calling | None = None,
) -> Executor:
    """An executor, warmed up on an all-zero observation, on "cpu" or "cuda:i" (see `resolve_device`).

    `past_actions`: an array like those that are the module's second argument, without the batch axis; its values are
    what the warm-up sees. None: the module has one argument. `copies`: of the module's weights on a GPU, where
    they change. `calling`: what else it is given and returns; None: nothing.
    """
    calling = calling or Calling()
    if isinstance(module, PlainCallable):
        return CallableExecutor(module, observation, clock or MonotonicClock(), past_actions, calling)
    if device == "cpu":
        return CpuExecutor(module, observation, clock or MonotonicClock(), past_actions, calling)
    return CudaExecutor(module, observation, device, past_actions, copies=copies, calling=calling)


class CpuExecutor:
    """Inference on one CPU thread. Sets the number of torch threads of this whole process to 1.

    The input tensors are the staging buffers themselves; nothing is copied in. A run allocates what the module does.
    """

    def __init__(
        self,
        module: nn.Module,
        observation: ObservationSpec,
        clock: Clock,
        past_actions: Array | None = None,
        calling: Calling | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self.device = "cpu"
        self.notes: tuple[str, ...] = ()
        self.observation: Array = np.zeros(observation.shape, observation.np_dtype)
        self.timing = InferenceTiming()
        self._clock = clock
        self.past_actions: Array | None = None if past_actions is None else past_actions.copy()
        self._calling = calling = calling or Calling()
        self.blocks = ContextAndPayload(calling, _zeros)
        staging = [self.observation] if self.past_actions is None else [self.observation, self.past_actions]
        inputs = [self._input_of(array[np.newaxis, ...]) for array in staging]
        context = {name: self._input_of(array) for name, array in self.blocks.given.items()}
        self._call = calling.bind(self._called(module), observation, inputs, context)
        self._destinations = _destinations(calling, self.blocks.returned, self._dtype_of)
        self._mode: type[torch.inference_mode] | type[torch.no_grad] = torch.inference_mode
        first = self._infer()
        self.output: Array | None = None if first is None else np.array(first)

    def run(self) -> Array | None:
        start_ns = self._clock.now_ns()
        result = self._infer()
        self.timing.abstained = int(result is None)
        if result is not None:
            if self.output is not None and result.shape != self.output.shape:
                raise _changed_shape(result.shape, self.output.shape)
            if self.output is None or result.dtype != self.output.dtype:
                # Whole numbers at first, such as zeros, and others later: these are not to be rounded.
                self.output = np.array(result)
            self.output[...] = result
        self.timing.compute_ns = self._clock.now_ns() - start_ns
        return None if result is None else self.output

    def _called(self, module: Any) -> Any:
        return module

    def _input_of(self, array: Array) -> Any:
        return torch.from_numpy(array)

    def _dtype_of(self, name: str) -> Any:
        return getattr(torch, name)

    def _infer(self) -> Array | None:
        self.blocks.begin()
        try:
            with self._mode():
                action, returned = self._calling.parts_of(self._call())
                for destination in self._destinations:
                    leaf = _fitting(self._calling, destination, _dense(destination.name, returned[destination.name]))
                    # NumPy leaves out an axis of 1 in front, as that of the batch is.
                    destination.target[...] = (leaf.detach() if leaf.requires_grad else leaf).numpy()
                self.blocks.refuse_nan()
                return _plain_output(action).numpy()
        except RuntimeError as error:
            self._mode, note = _mode_after(error, self._mode)
        # The module differentiates in its forward: what inference mode made cannot be part of that.
        self.notes = (*self.notes, note)
        return self._infer()


class CallableExecutor(CpuExecutor):
    """Runs a policy that is no module: NumPy arrays in and out, and None where it gives no action this time."""

    def _called(self, module: Any) -> Any:
        return module.inner

    def _input_of(self, array: Array) -> Any:
        return array

    def _dtype_of(self, name: str) -> Any:
        return np.dtype(name)

    def _infer(self) -> Array | None:
        self.blocks.begin()
        result = self._call()
        if result is None:
            self.blocks.nothing_returned()
            return None
        action, returned = self._calling.parts_of(result)
        for destination in self._destinations:
            leaf = _fitting(self._calling, destination, np.asarray(returned[destination.name]))
            destination.target[...] = leaf
        self.blocks.refuse_nan()
        if action is None:
            if self._calling.has_state:
                raise PolicyError(
                    "the policy returned (None, state): the state of an answer without an action is not carried on. "
                    "Return None alone to keep the state as it was, or an action"
                )
            return None
        output = np.asarray(action)
        if output.dtype.kind not in "fiub":
            raise PolicyError(
                f"the policy returned {type(action).__name__} as its action; expected an array of numbers for a batch "
                "of one, or None for no action this time. A factory takes two arguments: observation_space and "
                "action_space"
            )
        return output.astype(np.float32) if output.dtype.kind == "f" and output.dtype != np.float64 else output


class CudaExecutor:
    """Inference on one GPU, on an own stream of high priority. Not yet run on a GPU.

    Input and output live at fixed addresses on both sides (pinned on the host), context and payload as well. The
    module is captured into a CUDA graph after a warm-up; if that fails it runs eagerly and `notes` says so. Parameters
    changed in place are seen by the next run. With a graph a run allocates nothing. It sleeps, not spins, to wait.

    `copies`: the weights exist more than once, and a run uses the active ones. Each copy has a graph of its own.
    """

    def __init__(
        self,
        module: nn.Module,
        observation: ObservationSpec,
        device: str,
        past_actions: Array | None = None,
        copies: Copies | None = None,
        calling: Calling | None = None,
    ) -> None:
        self.device = device
        self.notes: tuple[str, ...] = ()
        self.timing = InferenceTiming()
        self._cuda_device = torch.device(device)
        self._module = module.to(self._cuda_device)
        self._copies = copies
        self._calling = calling = calling or Calling()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        staging: list[Array] = [np.zeros(observation.shape, observation.np_dtype)]
        staging += [] if past_actions is None else [past_actions]
        self._host_inputs = [torch.from_numpy(array[np.newaxis, ...]).pin_memory() for array in staging]
        self.observation: Array = self._host_inputs[0][0].numpy()
        self.past_actions: Array | None = None if past_actions is None else self._host_inputs[1][0].numpy()
        self.blocks = ContextAndPayload(calling, _pinned)
        self.blocks.begin()
        self._mode: type[torch.inference_mode] | type[torch.no_grad] = torch.inference_mode
        with torch.cuda.device(self._cuda_device):
            # Lower is more urgent: above the default 0, on which a learner runs.
            self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
            # Not in inference mode: a module may differentiate in its forward.
            inputs = [each.to(self._cuda_device) for each in self._host_inputs]
            self._copied_in = list(zip(inputs, self._host_inputs, strict=True))
            context = self._on_device(self.blocks.context, calling.block, self._copied_in)
            self._copied_out: list[tuple[Tensor, Tensor]] = []
            payload = self._on_device(self.blocks.payload, calling.needs.payload, self._copied_out)
            self._destinations = _destinations(calling, payload, lambda name: getattr(torch, name))
            self._call = calling.bind(self._module, observation, inputs, context)
            # The first one last: it is the active one, and the module has its weights when this is done.
            for copy in reversed(range(copies.num_copies if copies is not None else 1)):
                if copies is not None:
                    copies.bind(copy)
                try:
                    self._output = self._warm_up()
                except RuntimeError as error:
                    self._mode, note = _mode_after(error, self._mode)
                    self.notes = (*self.notes, note)
                    self._output = self._warm_up()
                self._capture(copy)
            host_output = torch.empty_like(self._output, device="cpu", pin_memory=True)
            self._host_output = host_output
            self._events = [_new_event() for _ in range(4)]
            torch.cuda.synchronize()
        self.output: Array | None = host_output.numpy()
        self.run()

    def run(self) -> Array | None:
        self.blocks.begin()
        begin, copied_in, computed, copied_out = self._events
        with torch.cuda.device(self._cuda_device), torch.cuda.stream(self._stream), torch.inference_mode():
            begin.record()
            for device_input, host_input in self._copied_in:
                device_input.copy_(host_input, non_blocking=True)
            copied_in.record()
            captured = self._graphs.get(self._copies.active if self._copies is not None else 0)
            if captured is not None:
                graph, self._output = captured
                graph.replay()
            else:
                self._output = self._compute()
                if self._output.shape != self._host_output.shape:
                    raise _changed_shape(tuple(self._output.shape), tuple(self._host_output.shape))
            computed.record()
            self._host_output.copy_(self._output, non_blocking=True)
            for device_returned, host_returned in self._copied_out:
                host_returned.copy_(device_returned, non_blocking=True)
            copied_out.record()
        copied_out.synchronize()
        self.blocks.refuse_nan()
        self.timing.h2d_ns = round(begin.elapsed_time(copied_in) * _NS_PER_EVENT_MS)
        self.timing.compute_ns = round(copied_in.elapsed_time(computed) * _NS_PER_EVENT_MS)
        self.timing.d2h_ns = round(computed.elapsed_time(copied_out) * _NS_PER_EVENT_MS)
        return self.output

    def _on_device(
        self, memory: memoryview | None, block: Block, copied: list[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """The arrays of a block in the device's memory; what is to be copied with each run goes into `copied`."""
        if memory is None:
            return {}
        host = torch.frombuffer(memory, dtype=torch.uint8)
        device = host.to(self._cuda_device)
        copied.append((device, host))
        views = {}
        for name, shape, dtype in block.fields:
            at, kind = block.offsets[name], getattr(torch, dtype)
            part = device[at : at + math.prod(shape) * kind.itemsize]
            views[name] = part.view(kind).view(shape)
        return views

    def _compute(self) -> Tensor:
        """The output; what else the policy returns goes to its place in the device's memory."""
        with self._mode():
            action, returned = self._calling.parts_of(self._call())
            for destination in self._destinations:
                leaf = _fitting(self._calling, destination, _dense(destination.name, returned[destination.name]))
                destination.target.copy_(leaf.detach().reshape(destination.target.shape))
            return _plain_output(action)

    def _warm_up(self) -> Tensor:
        """Let libraries choose kernels and allocate, on a side stream as graph capture demands."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_NUM_WARM_UP_RUNS):
                output = self._compute()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        return output

    def _capture(self, copy: int) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                output = self._compute()
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.notes = (*self.notes, f"CUDA graph capture failed, the policy runs eagerly: {error}")
            return
        self._graphs[copy] = graph, output


class Called(NamedTuple):
    """What one call of a policy gave: its action (None: none this time), and what came with it by its name."""

    output: Array | None
    returned: dict[str, Array]


def output_of(
    module: nn.Module,
    observation: ObservationSpec,
    frame: Array,
    past_actions: Array | None,
    device: str,
    calling: Calling | None = None,
) -> Called:
    """Call a module once on a frame, as at the beginning of an episode, with memory of this call's own."""
    calling = calling or Calling()
    blocks = ContextAndPayload(calling, _zeros)
    blocks.begin()
    staging = [frame] if past_actions is None else [frame, past_actions]
    if isinstance(module, PlainCallable):
        arrays = [array.copy()[np.newaxis, ...] for array in staging]
        result = calling.bind(module.inner, observation, arrays, blocks.given)()
        action, returned = (None, {}) if result is None else calling.parts_of(result)
        output = None if action is None else np.array(action)
        return Called(output, {name: np.array(leaf) for name, leaf in returned.items()})
    inputs = [torch.from_numpy(array.copy()).unsqueeze(0).to(device) for array in staging]
    context = {name: torch.from_numpy(array).to(device) for name, array in blocks.given.items()}
    with torch.no_grad():
        action, returned = calling.parts_of(calling.bind(module.to(device), observation, inputs, context)())
        output = np.array(_plain_output(action).cpu().numpy())
        return Called(output, {name: array_of(leaf) for name, leaf in returned.items()})


def resolve_device(device: str, worker_index: int) -> str:
    """ "cpu" or "cuda:i" for a worker, from "cpu", "cuda", "cuda:i" or "auto".

    "cuda" and "auto" deal the workers out over the GPUs; "auto" takes the CPU where there is none.
    A list such as "cuda:0,cuda:2" is dealt out in turn: worker w gets number w mod n.
    ConfigError if the device does not exist.
    """
    names = device_names(device)
    device = names[worker_index % len(names)]
    if device == "cpu":
        return device
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto" and num_gpus == 0:
        return "cpu"
    if num_gpus == 0:
        raise no_gpu(device, "CUDA is not available")
    index = device.partition(":")[2]
    if not index:
        return f"cuda:{worker_index % num_gpus}"
    if int(index) >= num_gpus:
        raise no_such_gpu(device, num_gpus)
    return device


def mps_status() -> str:
    """Whether NVIDIA MPS shares the GPU between processes, judged by its control pipe.

    "no GPU", "MPS daemon running" or "MPS daemon not running". A pipe left by a killed daemon still counts.
    """
    if not torch.cuda.is_available():
        return "no GPU"
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps")
    return "MPS daemon running" if (pipes / "control").exists() else "MPS daemon not running"


def _zeros(num_bytes: int) -> memoryview:
    return np.zeros(num_bytes, np.uint8).data


def _pinned(num_bytes: int) -> memoryview:
    return torch.zeros(num_bytes, dtype=torch.uint8).pin_memory().numpy().data


def array_of(leaf: Any) -> Array:
    """A tensor that a policy gave, or anything that NumPy takes, as an array of the host."""
    if not isinstance(leaf, Tensor):
        return np.asarray(leaf)
    if leaf.dtype is torch.bfloat16:
        raise PolicyError("the policy gave a tensor of bfloat16, which NumPy lacks; expected another: x.float()")
    return _dense("array", leaf).detach().cpu().numpy()


def _dense(name: str, leaf: Any) -> Tensor:
    """A tensor of the payload; PolicyError for anything else."""
    if not isinstance(leaf, Tensor) or leaf.layout is not torch.strided or leaf.is_nested:
        raise PolicyError(
            f"the policy's module returned {type(leaf).__name__} as {name.replace('.', ' ')}; expected a dense tensor"
        )
    return leaf


def _fitting(calling: Calling, destination: _Destination, leaf: Any) -> Any:
    """The array, if it is as it was declared."""
    if leaf.dtype != destination.dtype or leaf.shape not in destination.shapes:
        got, expected = (str(kind).removeprefix("torch.") for kind in (leaf.dtype, destination.dtype))
        raise calling.misfit(destination.name, (tuple(leaf.shape), got), (destination.shapes[0], expected))
    return leaf


def _mode_after(error: RuntimeError, mode: type) -> tuple[type[torch.no_grad], str]:
    """The mode for a module that differentiates in its forward, and the note of it; raises anything else again."""
    if not any(word in str(error) for word in _OF_AUTOGRAD):
        raise error
    if mode is torch.no_grad:
        raise PolicyError(
            f"the policy's module differentiates in its forward, and torch says: {error}. Do it under "
            "torch.enable_grad(), in no torch.inference_mode() of your own (or within "
            "torch.inference_mode(False)), on tensors that were cloned there"
        ) from error
    return torch.no_grad, "autograd in forward: no_grad mode instead of inference mode, which is quicker"


def _new_event() -> torch.cuda.Event:
    """A timing event on which the host sleeps instead of spinning."""
    return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]


def _plain_output(result: Any) -> Tensor:
    """The module's output, detached from its precision: numpy has no bfloat16."""
    if not isinstance(result, Tensor):
        raise PolicyError(
            f"the policy's module returned {type(result).__name__} as its action; expected one tensor of action values "
            "or actions: of a mean and a value the mean, of a distribution a sample. No action this time (None) is "
            "for plain callables: a CUDA graph always gives one"
        )
    if result.layout is not torch.strided or result.is_nested:
        raise PolicyError(
            "the policy's module returned a tensor that is no plain array "
            f"({'nested' if result.is_nested else result.layout}); expected a dense one: return y.to_dense()"
        )
    return result.float() if result.is_floating_point() and result.dtype is not torch.float64 else result


def _changed_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> PolicyError:
    return PolicyError(
        f"the policy's module returned shape {got}; expected {expected}, as for its first observation. "
        f"Make the output shape independent of the input's values"
    )
