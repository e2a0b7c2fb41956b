"""Policies that compute: find the factory, build the module or the callable, run it through an executor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from rtcore.clock import Clock
from rtcore.config.factories import import_factory_module, is_missing
from rtcore.errors import PolicyConfigError, PolicyError
from rtcore.host.seeding import the_same_for_all
from rtcore.scheduling.dispatch import COMMITTED_TICKS
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.spaces.task import TaskSpec
from rtcore_workers.modulestate import FromFile, PlainCallable, kept_by
from rtcore_workers.policies.base import Array, PolicyInfo, suggestion
from rtcore_workers.policies.calling import Calling, ModulePart, calling_of, is_policy_itself, taken_for_factory
from rtcore_workers.policies.executors import array_of, make_executor, output_of, resolve_device
from rtcore_workers.policies.probing import ModuleProbe, named_first, scale_note, space_notes, state_note
from rtcore_workers.weights.on_device import Copies, placed
from rtcore_workers.weights.shared import SharedWeights, Weights, refuse_lazy

#: At most 1 / this of an inference's time is spent on checking whether the module wrote to its weights.
_CHECK_SHARE = 100
#: What the built-in factories take besides their own arguments.
_GIVEN = ("observation_space", "action_space", "chunk", "act_history", "sb3_file")


def build_module(
    name: str,
    built_in: str | None,
    args: dict[str, object],
    observation: ObservationSpec,
    action: ActionSpec,
    *,
    seed: int,
    chunk: int,
    act_history: int = 0,
) -> tuple[nn.Module, str]:
    """Call the factory with seeded weights; the module in eval mode, and a title such as "impala k=1".

    `observation` is what the module gets, stacked frames if there are any; `act_history` past actions come with it.
    `built_in` is the import string behind a built-in name. What the factory draws, from torch's, numpy's or Python's
    global generator, depends on `seed` alone; the generators are left as they were.
    """
    factory = find_factory(name, built_in)
    if isinstance(factory, nn.Module) or is_policy_itself(factory):
        if args:
            raise PolicyConfigError(
                f"policy {name!r} is a policy itself, and got the arguments {', '.join(args)}; expected a factory for "
                "these, which takes observation_space and action_space before them"
            )
        return _ready(factory), name
    if built_in and chunk > 1 and not _takes(factory, "chunk"):
        raise PolicyConfigError(
            f"chunk={chunk}: policy {name!r} gives one action at a time; give --chunk-rest noop or hold as well"
        )
    if built_in and chunk > 1:
        args = {**args, "chunk": chunk}
    if act_history and _takes(factory, "act_history"):
        args = {**args, "act_history": act_history}
    elif act_history and built_in:
        raise PolicyConfigError(f"act_history={act_history}: policy {name!r} takes no past actions; leave it out")
    spaces = (observation.to_space(), action.to_space())
    bound = _bind(name, factory, spaces, args)
    with the_same_for_all(seed):
        try:
            module = factory(*spaces, **args)
        except PolicyError:
            raise
        except Exception as error:
            raise PolicyError(
                f"policy {name!r} raised {type(error).__name__}: {error}; expected an nn.Module from "
                f"{_call_text(name, args)}. The traceback shows the line in the factory{taken_for_factory(factory)}"
            ) from error
    if not isinstance(module, nn.Module) and not callable(module):
        raise PolicyError(
            f"policy {name!r} returned {type(module).__name__}; expected an nn.Module, or any callable that takes "
            f"and gives NumPy arrays, from {_call_text(name, args)}{taken_for_factory(factory)}"
        )
    shown = bound if built_in else args
    title = " ".join([name, *(f"{key}={value}" for key, value in shown.items() if key not in _GIVEN)])
    return _ready(module), title


def _ready(policy: Any) -> nn.Module:
    """A policy as it is called: in eval mode, where it is a module that has one."""
    if not isinstance(policy, nn.Module):
        return PlainCallable(policy)
    refuse_lazy(policy)
    try:
        policy = policy.eval()
    except NotImplementedError:  # torch.export's: it is what it was when it was written
        return FromFile(policy)
    return FromFile(policy) if isinstance(policy, torch.jit.ScriptModule) else policy


class NetworkPolicy:
    """A module or a plain callable behind an executor; its largest action value, or its action itself, is applied.

    Args:
        title: Names it in the run's header and in errors.
        module: The policy.
        observation: The world's, of one frame with its history.
        action: The world's.
        device: "cpu", "cuda", "cuda:i", "auto", or a list of them; a plain callable is on the CPU.
        worker_index: Which of the devices it is, and whether the module is looked at: worker 0 does that.
        chunk: How many actions the module itself gives in one inference.
        clock: Measures inferences; None: the machine's.
        past_actions: An array like those the module gets, (m, *action_shape), without the batch; None: it gets none.
            Fill `self.past_actions`, not it.
        weights: Of the module, where they change between inferences; held during each one only.
        extras: The setting `policy_extras`; None: what the module declares.
        committed_ticks: The setting `context_ticks`.
        task: Of the run.
        is_head: Whether it is the fast part of a policy with two speeds.

    Raises:
        PolicyError: The module does not take the observation, or gives no action of this world.
    """

    def __init__(
        self,
        title: str,
        module: nn.Module,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        device: str,
        worker_index: int,
        chunk: int = 1,
        clock: Clock | None = None,
        past_actions: Array | None = None,
        weights: Weights | None = None,
        extras: Mapping[str, Any] | None = None,
        committed_ticks: int = COMMITTED_TICKS,
        task: TaskSpec | None = None,
        is_head: bool = False,
    ) -> None:
        is_callable = isinstance(module, PlainCallable)
        # The other workers have the same module: it is looked at once, and both parts of one with two speeds.
        probe = ModuleProbe(module) if not worker_index or is_head else None
        resolved = "cpu" if is_callable else resolve_device(device, worker_index)
        whose: Any = module.inner if isinstance(module, FromFile | PlainCallable) else module
        num_parameters = 0 if is_callable else sum(parameter.numel() for parameter in whose.parameters())
        copies: Copies | None = None
        notes: tuple[str, ...] = ()
        if isinstance(weights, SharedWeights):
            weights, copies, notes = placed(weights, resolved)
        try:
            calling = _calling(
                whose,
                module,
                observation,
                action,
                past_actions=past_actions,
                device=resolved,
                extras=extras,
                committed_ticks=committed_ticks,
                task=task,
                is_head=is_head,
            )
            if is_head:
                past_actions = None
            self.executor = make_executor(
                module,
                observation,
                resolved,
                clock=clock,
                past_actions=past_actions,
                copies=copies,
                calling=calling,
            )
        except PolicyError:
            raise
        except Exception as error:
            raise PolicyError(
                f"policy {title!r} raised {type(error).__name__}: {error}; expected it to take "
                f"{_batch_of_one(observation)}{_and_past(past_actions)} on {resolved}. Cast and reshape the "
                f"observation inside the {'callable' if is_callable else 'module'}"
            ) from error
        self.module = module
        self._weights = weights
        self.observation = self.executor.observation
        self.past_actions = self.executor.past_actions
        self.timing = self.executor.timing
        self.needs = calling.needs
        self.context = self.executor.blocks.context
        self.payload = self.executor.blocks.payload
        if isinstance(module, FromFile):
            notes = ("weights: from the file, a copy in each worker; publish and checkpoints do not reach them",)
        elif is_callable:
            notes = ("a plain callable: publish and checkpoints do not reach it",)
        found = []
        if probe is not None:
            probe.call_as(observation, past_actions, resolved, calling)
            found = _warnings(probe, module, observation, action)
        notes = (*self.executor.notes, *notes, *found)
        self.info = PolicyInfo(title, num_parameters, synthetic=False, pad_ms=None, device=resolved, notes=notes)
        self._action = action
        # A head is asked at every tick for the action of the next one alone.
        self._chunk = chunk = 1 if is_head else chunk
        # The output for an all-zero observation, which the warm-up has computed, shows its shape and dtype.
        if self.executor.output is not None:
            action.from_policy_output(self.executor.output, chunk)

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """Fill `out` (chunk, *action_shape). The action depends on what is staged alone, not on the numbers."""
        output = self.executor.run() if self._weights is None else self._run_shared(self._weights)
        self.timing.clipped = 0
        if output is not None:
            out[...] = self._action.from_policy_output(output, self._chunk)
            self.timing.clipped = self._action.count_clipped(output, self._chunk)

    def _run_shared(self, weights: Weights) -> Array | None:
        version = weights.switch()
        try:
            output = self.executor.run()
        finally:
            weights.release(self.timing.compute_ns // _CHECK_SHARE)
        self.timing.policy_version, self.timing.policy_checksum = version.version, version.checksum
        return output


def _calling(
    policy: Any,
    module: nn.Module,
    observation: ObservationSpec,
    action: ActionSpec,
    *,
    past_actions: Array | None,
    device: str,
    extras: Mapping[str, Any] | None,
    committed_ticks: int,
    task: TaskSpec | None,
    is_head: bool,
) -> Calling:
    """How a policy is called. One call of the slow part of two speeds shows what its features are."""
    has_two_speeds = callable(getattr(policy, "think", None))
    if is_head and not has_two_speeds:
        raise PolicyError("a head is asked for, and the policy has no think(); expected one with think and act")

    def of(part: ModulePart) -> Calling:
        return calling_of(
            policy,
            action,
            act_history=past_actions is not None,
            committed_ticks=committed_ticks,
            extras=extras,
            task=task,
            ages=[part.name for part in observation.stamped],
            part=part,
            array_of=array_of,
            what="the policy" if isinstance(module, PlainCallable) else "the policy's module",
        )

    if not has_two_speeds:
        return of("whole")
    if isinstance(module, PlainCallable):
        raise PolicyError("a policy with think() and act() is no nn.Module; expected one: both parts share its weights")
    trunk = of("trunk")
    frame = np.zeros(observation.shape, observation.np_dtype)
    thought = output_of(module, observation, frame, past_actions, device=device, calling=trunk)
    return (of("head") if is_head else trunk).with_features(thought.returned, action)


def _warnings(probe: ModuleProbe, module: nn.Module, observation: ObservationSpec, action: ActionSpec) -> list[str]:
    """What the run's header is to say of the module, once it has been called."""
    kept = kept_by(probe.module)
    states = probe.states()
    buffers = [name for name in states if name in dict(probe.module.named_buffers())]
    if buffers:
        raise PolicyError(
            f"the policy keeps a state in its buffers ({', '.join(buffers)}), and its output depends on it; expected "
            "none that changes. Each worker has its own and sees only every N-th frame. Carry it: initial_state() "
            "returns the first one, and forward(observation, state) returns (action, next state)"
        )
    notes = [state_note(named_first(states, kept))] if states else []
    # Only where it could be wrong: it costs a call.
    is_module = not isinstance(module, PlainCallable)
    scale = scale_note(probe.range(), action) if action.kind == "box" and is_module else None
    return [*notes, *([scale] if scale else []), *space_notes(module, observation, action)]


def find_factory(name: str, built_in: str | None) -> Callable[..., object]:
    """Import the factory of a policy: `built_in`, or what the name says.

    PolicyConfigError says what is not there, PolicyError what its module raised.
    """
    module_name, _, attribute = (built_in or name).rpartition(":")
    if not module_name or not attribute:
        raise PolicyConfigError(f"policy {name!r} is incomplete; expected module:factory, as in my_agent.nets:make_net")
    try:
        module = import_factory_module(module_name)
    except Exception as error:
        kind = PolicyConfigError if is_missing(module_name, error) else PolicyError
        raise kind(
            f"policy {name!r}: importing {module_name!r} raised {type(error).__name__}: {error}; expected an "
            f"importable module, or a file as in agents/net.py:Net. Install it, or add its folder to PYTHONPATH"
        ) from error
    try:
        factory = getattr(module, attribute)
    except AttributeError as error:
        raise PolicyConfigError(
            f"policy {name!r}: module {module_name!r} has no {attribute!r}"
            f"{suggestion(attribute, dir(module))}; expected a policy, or what returns one: an nn.Module or a callable"
        ) from error
    if not callable(factory):
        raise PolicyConfigError(
            f"policy {name!r}: {attribute!r} is {type(factory).__name__}; expected a policy, or what returns "
            "one: an nn.Module or a callable"
        )
    return factory  # type: ignore[no-any-return]


def _bind(
    name: str, factory: Callable[..., object], spaces: tuple[Any, Any], args: dict[str, object]
) -> dict[str, object]:
    """All arguments of the factory with their defaults; PolicyConfigError if it does not take `args`."""
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return args
    known = [key for key in list(signature.parameters)[2:] if key not in _GIVEN]
    try:
        bound = signature.bind(*spaces, **args)
    except TypeError as error:
        near = next((suggestion(key, known) for key in args if key not in signature.parameters), "")
        raise PolicyConfigError(
            f"policy-args: policy {name!r} cannot be called as {_call_text(name, args)}: {error}{near}; "
            f"expected its arguments to be among {', '.join((*known, 'pad_ms'))}"
        ) from error
    bound.apply_defaults()
    return dict(bound.arguments)


def _takes(factory: Callable[..., object], argument: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return argument in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def _batch_of_one(observation: ObservationSpec) -> str:
    """What the module gets, in words."""
    if not observation.parts:
        return f"a {observation.dtype} tensor of shape {(1, *observation.shape)}"
    lead = (1, *observation.shape[:-1])
    listed = ", ".join(f"{part.name!r}: {part.dtype} {(*lead, *part.shape)}" for part in observation.parts)
    return f"a dict of tensors, {{{listed}}},"


def _and_past(past_actions: Array | None) -> str:
    """What `act_history` adds to the module's input."""
    if past_actions is None:
        return ""
    shape = (1, *past_actions.shape)
    return (
        f" and, as a second argument, the past actions as a {past_actions.dtype} tensor of shape {shape} "
        f"(act_history={len(past_actions)})"
    )


def _call_text(name: str, args: dict[str, object]) -> str:
    listed = "".join(f", {key}={value!r}" for key, value in args.items())
    return f"{name.rpartition(':')[2]}(observation_space, action_space{listed})"
