"""Warnings about a policy, from calls of copies of it before the run: state it keeps, range of its output, spaces."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rtcore.host.seeding import the_same_for_all
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.modulestate import Kept, PlainCallable, changed, copy_of, kept_by
from rtcore_workers.policies.base import Array
from rtcore_workers.policies.calling import Calling
from rtcore_workers.policies.executors import output_of

#: Names in a message.
_MOST_NAMED = 3
#: What an activation maps everything to.
_RANGES = {"tanh": (-1.0, 1.0), "tanh_": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "sigmoid_": (0.0, 1.0)}
_CLAMPS = ("clamp", "clamp_", "hardtanh", "hardtanh_")
#: Operations that leave numbers as they are.
_RESHAPES = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "squeeze",
        "unsqueeze",
        "clone",
        "detach",
        "alias",
        "_to_copy",
        "select",
        "slice",
        "t",
        "transpose",
        "permute",
        "expand",
        "contiguous",
        "lift_fresh",
        "as_strided",
    ]
)
#: How often to look for a state, where all that a policy gives are whole numbers: few differences show in these.
_MOST_TRIALS = 8
#: Operations of a call that are looked at, from its last one.
_LAST_OPERATIONS = 32


class ModuleProbe:
    """Copies of a module as it was before its first call, and what calls of them show.

    They share its parameters and have copies of everything else, so that their calls do not change the module.
    A plain callable is looked at in the same way.
    """

    def __init__(self, module: nn.Module) -> None:
        """Before the first call of `module`. What cannot be copied is called itself."""
        #: What is looked at: of torch.compile the module that was compiled, whose copies are not compiled again.
        self.module: nn.Module = getattr(module, "_orig_mod", module)
        self._before = kept_by(self.module)
        self._unused = copy_of(self.module, self._before)

    def call_as(self, observation: ObservationSpec, past_actions: Array | None, device: str, calling: Calling) -> None:
        """How it is called, once that is known."""
        self._observation = observation
        self._past_actions = past_actions
        self._device = device
        self._calling = calling

    def states(self) -> list[str]:
        """The attributes that a call changes and that later outputs depend on, as far as can be told.

        Counters, caches and attributes that are never read do not count. So the outputs of two copies are compared:
        after different frames and then the same one; and after the same frame once and twice. The second comparison
        is left out for a module with a random generator of its own.
        """
        kept = kept_by(self.module)
        suspects, draws = changed(self._before, kept), any(value.draws for value in kept.values())
        rng = np.random.default_rng(0)
        is_callable = isinstance(self.module, PlainCallable)
        if self._unused is not None and not (is_callable and any(value.checksum is None for value in kept.values())):
            # What the blank frames of a warm-up leave as it was, another one may change.
            suspects = list(dict.fromkeys([*suspects, *self._changed_by(self._frame(rng))]))
        if is_callable:
            # It may talk to a server: it is called only if it can be copied and its attributes can be compared.
            suspects = [name for name in suspects if name in kept and kept[name].checksum is not None]
            suspects = suspects if self._unused is not None else []
        if not suspects:
            return []
        try:
            for _ in range(_MOST_TRIALS):
                first, second, shown = (self._frame(rng) for _ in range(3))
                pairs = [([first, shown], [second, shown]), *([] if draws else [([shown], [shown, shown])])]
                if any(self._differ(*pair) for pair in pairs):
                    return list(suspects)
                if not self._is_coarse:
                    break
        except Exception:  # of the module's, for frames that no world shows
            return []
        return []

    def _changed_by(self, frame: Array) -> list[str]:
        """The attributes that a call changes."""
        twin = self._twin()
        before = kept_by(twin)
        try:
            self._call(twin, [frame])
        except Exception:  # of the module's, for a frame that no world shows
            return []
        return changed(before, kept_by(twin))

    def range(self) -> tuple[float, float] | None:
        """Between which numbers its output is, whatever it is shown, if the last operation on it says so."""
        operations = Operations()
        try:
            with torch.no_grad(), operations:
                self._call(self._twin(), [self._frame(np.random.default_rng(0))])
        except Exception:
            return None
        return operations.range_of_output()

    def _frame(self, rng: np.random.Generator) -> Array:
        """One of the space."""
        with np.errstate(over="ignore"):
            return self._observation.draw(rng)

    def _differ(self, one: list[Array], other: list[Array]) -> bool:
        first, second = (self._call(self._twin(), frames) for frames in (one, other))
        return len(first) != len(second) or not all(
            np.allclose(*pair, equal_nan=True) for pair in zip(first, second, strict=True)
        )

    def _call(self, module: nn.Module, frames: list[Array]) -> list[Array]:
        """All that it gave for the last of the frames; for that one the global generators begin anew."""
        for frame in frames:
            with the_same_for_all(0):
                called = output_of(
                    module,
                    self._observation,
                    frame,
                    self._past_actions,
                    device=self._device,
                    calling=self._calling,
                )
        found = [array for array in (called.output, *called.returned.values()) if array is not None]
        self._is_coarse = all(array.dtype.kind != "f" for array in found)
        return found

    def _twin(self) -> nn.Module:
        twin = copy_of(self._unused, self._before) if self._unused is not None else None
        return self.module if twin is None else twin


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the last operations of a call, with what they made and of what."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: deque[tuple[Tensor, str, tuple[Any, ...]]] = deque(maxlen=_LAST_OPERATIONS)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Of torch: skipping its compiler imports it: 800 modules, 70 MB and more than a second of CPU time."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._made.append((result, func._schema.name.rpartition("::")[2], args))
        return result

    def range_of_output(self) -> tuple[float, float] | None:
        """Of the last tensor that was made, through whatever only gave it another shape."""
        wanted = self._made[-1][0] if self._made else None
        for made, name, args in reversed(self._made):
            if made is not wanted:
                continue
            if name in _RESHAPES and args and isinstance(args[0], Tensor):
                wanted = args[0]
            elif name in _CLAMPS and len(args) == 3 and None not in args:
                return float(args[1]), float(args[2])
            else:
                return _RANGES.get(name)
        return None


def state_note(names: Sequence[str]) -> str:
    """The warning of a module whose output for a frame depends on the calls before."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    plural = "s" if len(names) > 1 else ""
    return (
        f"WARNING: the policy keeps a state from call to call (attribute{plural} {', '.join(names[:_MOST_NAMED])}"
        f"{more}), and its output depends on it. Each worker keeps its own and sees only every N-th frame; no "
        "episode's end resets it, and warm-up and rehearsal are in it. A queue of actions: return all of them, with "
        "--chunk. A memory of older frames: --obs-history and --act-history. A recurrent state: initial_state() gives "
        "the first one, and forward(observation, state) returns (action, next state)"
    )


def scale_note(bounds: tuple[float, float] | None, action: ActionSpec) -> str | None:
    """The warning of an actor whose outputs are between other numbers than the actions of the world."""
    low, high = action.low_array, action.high_array
    if bounds is None or action.kind != "box" or not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    if np.allclose(low, bounds[0]) and np.allclose(high, bounds[1]):
        return None
    return (
        f"WARNING: the policy's output is always from {bounds[0]:g} to {bounds[1]:g}, and the world's actions are from "
        f"{low.min():g} to {high.max():g}: it is applied as it is, not scaled. An actor like that (Stable-Baselines3's "
        f"SAC and TD3) has to do it itself: low + (x {-bounds[0]:+g}) / {bounds[1] - bounds[0]:g} * (high - low)"
    )


def space_notes(module: nn.Module, observation: ObservationSpec, action: ActionSpec) -> list[str]:
    """Warnings of a module that says for which spaces it was made (Stable-Baselines3's policies do): other ones."""
    notes = []
    world = {"observation_space": observation.to_space(), "action_space": action.to_space()}
    for name, declared in world.items():
        own = getattr(module, name, None)
        if _have_other_bounds(own, declared):
            notes.append(
                f"WARNING: the policy's {name} is {own!s:.80}, the world's is {declared!s:.80}: if trained on that, "
                "it meets other numbers here. Wrap the world as it was wrapped in training"
            )
    return notes


def _have_other_bounds(own: Any, declared: Any) -> bool:
    if not isinstance(own, spaces.Box) or not isinstance(declared, spaces.Box) or own.shape != declared.shape:
        return False  # of another shape or kind: its first call says that louder
    return not (np.allclose(own.low, declared.low) and np.allclose(own.high, declared.high))


def named_first(suspects: Sequence[str], kept: Kept) -> list[str]:
    """Counters last, and left out where there is anything else."""
    others = [name for name in suspects if not kept[name].is_number]
    return others or list(suspects)
