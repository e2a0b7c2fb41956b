"""Run a module on one observation at a time, with all memory set aside beforehand: on a CPU, or on a GPU.

The CUDA part has not yet been run on a GPU; `docs/gpu.md` keeps the record.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rtcore.clock import Clock, MonotonicClock
from rtcore.errors import PolicyError
from rtcore.host.devices import device_names, no_gpu, no_such_gpu
from rtcore.spaces import ObservationSpec
from rtcore_workers.policies.base import Array, InferenceTiming
from rtcore_workers.weights.on_device import Copies

_NUM_WARM_UP_RUNS = 3
_NS_PER_EVENT_MS = 1_000_000
#: Of torch's messages when a graph is built on tensors of the inference mode.
_OF_AUTOGRAD = ("nference tensor", "does not require grad", "requires_grad", "grad_fn")


class Executor(Protocol):
    """One module, one staging buffer, one output buffer; used by one thread."""

    #: Staging buffer of the frame's shape and dtype: fill it, then `run`. Always the same array. Of a Dict observation
    #: the module gets the parts.
    observation: Array
    #: Staging buffer of the past actions, the module's second argument; None: it has only one.
    past_actions: Array | None
    #: Host output of the last run, batch of one first. Always the same array: overwritten by each run.
    output: Array
    #: Parts of the last run [ns]. Always the same object.
    timing: InferenceTiming
    device: str
    #: What a user should know, such as a CUDA graph that could not be captured.
    notes: tuple[str, ...]

    def run(self) -> Array:
        """Run the module on `observation`; `output`, in which floats of any width have become float32.

        PolicyError if the module returns no tensor, or another shape than before.
        """
        ...


def make_executor(
    module: nn.Module,
    observation: ObservationSpec,
    device: str,
    *,
    clock: Clock | None = None,
    past_actions: Array | None = None,
    copies: Copies | None = None,
) -> Executor:
    """An executor, warmed up on an all-zero observation, on "cpu" or "cuda:i" (see `resolve_device`).

    `past_actions`: an array like those that are the module's second argument, without the batch axis; its values are
    what the warm-up sees. None: the module has one argument. `copies`: of the module's weights on a GPU, where
    they change.
    """
    if device == "cpu":
        return CpuExecutor(module, observation, clock or MonotonicClock(), past_actions)
    return CudaExecutor(module, observation, device, past_actions, copies)


class CpuExecutor:
    """Inference on one CPU thread. Sets the number of torch threads of this whole process to 1.

    The input tensor is the staging buffer itself; nothing is copied in. A run allocates what the module does.
    """

    def __init__(
        self, module: nn.Module, observation: ObservationSpec, clock: Clock, past_actions: Array | None = None
    ) -> None:
        torch.set_num_threads(1)
        self.device = "cpu"
        self.notes: tuple[str, ...] = ()
        self.observation: Array = np.zeros(observation.shape, observation.np_dtype)
        self.timing = InferenceTiming()
        self._clock = clock
        self.past_actions: Array | None = None if past_actions is None else past_actions.copy()
        staging = [self.observation] if self.past_actions is None else [self.observation, self.past_actions]
        self._call = _bound(module, observation, [torch.from_numpy(array).unsqueeze(0) for array in staging])
        self._mode: type[torch.inference_mode] | type[torch.no_grad] = torch.inference_mode
        self.output: Array = np.array(self._infer())

    def run(self) -> Array:
        start_ns = self._clock.now_ns()
        result = self._infer()
        if result.shape != self.output.shape:
            raise _changed_shape(result.shape, self.output.shape)
        self.output[...] = result
        self.timing.compute_ns = self._clock.now_ns() - start_ns
        return self.output

    def _infer(self) -> Array:
        try:
            with self._mode():
                return _plain_output(self._call()).numpy()
        except RuntimeError as error:
            if not any(word in str(error) for word in _OF_AUTOGRAD):
                raise
            if self._mode is torch.no_grad:
                raise PolicyError(
                    f"the policy's module differentiates in its forward, and torch says: {error}. Do it under "
                    "torch.enable_grad(), in no torch.inference_mode() of your own (or within "
                    "torch.inference_mode(False)), on tensors that were cloned there"
                ) from error
        # The module differentiates in its forward: what inference mode made cannot be part of that.
        self._mode = torch.no_grad
        self.notes = (
            *self.notes,
            "autograd in forward: no_grad mode instead of inference mode, which is quicker",
        )
        return self._infer()


class CudaExecutor:
    """Inference on one GPU, on an own stream of high priority. Not yet run on a GPU.

    Input and output live at fixed addresses on both sides (pinned on the host). The module is captured
    into a CUDA graph after a warm-up; if that fails it runs eagerly and `notes` says so. Parameters changed
    in place are seen by the next run. With a graph a run allocates nothing. It sleeps, not spins, to wait.

    `copies`: the weights exist more than once, and a run uses the active ones. Each copy has a graph of its own.
    """

    def __init__(
        self,
        module: nn.Module,
        observation: ObservationSpec,
        device: str,
        past_actions: Array | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.device = device
        self.notes: tuple[str, ...] = ()
        self.timing = InferenceTiming()
        self._cuda_device = torch.device(device)
        self._module = module.to(self._cuda_device)
        self._copies = copies
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        staging: list[Array] = [np.zeros(observation.shape, observation.np_dtype)]
        staging += [] if past_actions is None else [past_actions]
        self._host_inputs = [torch.from_numpy(array[np.newaxis, ...]).pin_memory() for array in staging]
        self.observation: Array = self._host_inputs[0][0].numpy()
        self.past_actions: Array | None = None if past_actions is None else self._host_inputs[1][0].numpy()
        with torch.cuda.device(self._cuda_device), torch.inference_mode():
            # Lower is more urgent: above the default 0, on which a learner runs.
            self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
            self._inputs = [each.to(self._cuda_device) for each in self._host_inputs]
            self._call = _bound(self._module, observation, self._inputs)
            # The first one last: it is the active one, and the module has its weights when this is done.
            for copy in reversed(range(copies.num_copies if copies is not None else 1)):
                if copies is not None:
                    copies.bind(copy)
                self._output = self._warm_up()
                self._capture(copy)
            self._host_output = torch.empty_like(self._output, device="cpu", pin_memory=True)
            self._events = [_new_event() for _ in range(4)]
            torch.cuda.synchronize()
        self.output: Array = self._host_output.numpy()
        self.run()

    def run(self) -> Array:
        begin, copied_in, computed, copied_out = self._events
        with torch.cuda.device(self._cuda_device), torch.cuda.stream(self._stream), torch.inference_mode():
            begin.record()
            for device_input, host_input in zip(self._inputs, self._host_inputs, strict=True):
                device_input.copy_(host_input, non_blocking=True)
            copied_in.record()
            captured = self._graphs.get(self._copies.active if self._copies is not None else 0)
            if captured is not None:
                graph, self._output = captured
                graph.replay()
            else:
                self._output = _plain_output(self._call())
                if self._output.shape != self._host_output.shape:
                    raise _changed_shape(tuple(self._output.shape), tuple(self._host_output.shape))
            computed.record()
            self._host_output.copy_(self._output, non_blocking=True)
            copied_out.record()
        copied_out.synchronize()
        self.timing.h2d_ns = round(begin.elapsed_time(copied_in) * _NS_PER_EVENT_MS)
        self.timing.compute_ns = round(copied_in.elapsed_time(computed) * _NS_PER_EVENT_MS)
        self.timing.d2h_ns = round(computed.elapsed_time(copied_out) * _NS_PER_EVENT_MS)
        return self.output

    def _warm_up(self) -> Tensor:
        """Let libraries choose kernels and allocate, on a side stream as graph capture demands."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_NUM_WARM_UP_RUNS):
                output = _plain_output(self._call())
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        return output

    def _capture(self, copy: int) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                output = _plain_output(self._call())
        except RuntimeError as error:
            torch.cuda.synchronize()
            self.notes = (f"CUDA graph capture failed, the policy runs eagerly: {error}",)
            return
        self._graphs[copy] = graph, output


def output_of(
    module: nn.Module, observation: ObservationSpec, frame: Array, past_actions: Array | None, device: str
) -> Array:
    """What a module returns for one frame, called once, without anything set aside."""
    staging = [frame] if past_actions is None else [frame, past_actions]
    inputs = [torch.from_numpy(array.copy()).unsqueeze(0).to(device) for array in staging]
    with torch.no_grad():
        return np.array(_plain_output(_bound(module.to(device), observation, inputs)()).cpu().numpy())


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


def _bound(module: nn.Module, observation: ObservationSpec, inputs: list[Tensor]) -> Callable[[], Any]:
    """A call of the module on these tensors, whose values may change: a Dict's frame as the parts that are in it."""
    if not observation.parts:
        return partial(module, *inputs)
    parts, past_actions = observation.unpack(inputs[0]), inputs[1:]
    # A dict of the call's own: the module may take it apart.
    return lambda: module(dict(parts), *past_actions)


def _new_event() -> torch.cuda.Event:
    """A timing event on which the host sleeps instead of spinning."""
    return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]


def _plain_output(result: Any) -> Tensor:
    """The module's output, detached from its precision: numpy has no bfloat16."""
    if not isinstance(result, Tensor):
        raise PolicyError(
            f"the policy's module returned {type(result).__name__}; expected one tensor of action values or "
            "actions. Return only that from forward: of a mean and a value the mean, of a distribution a sample. A "
            "recurrent state is not carried from frame to frame: use --obs-history"
        )
    if result.layout is not torch.strided or result.is_nested:
        raise PolicyError(
            "the policy's module returned a tensor that is no plain array "
            f"({'nested' if result.is_nested else result.layout}); expected a dense one: return y.to_dense()"
        )
    return result.float() if result.is_floating_point() else result


def _changed_shape(got: tuple[int, ...], expected: tuple[int, ...]) -> PolicyError:
    return PolicyError(
        f"the policy's module returned shape {got}; expected {expected}, as for its first observation. "
        f"Make the output shape independent of the input's values"
    )
