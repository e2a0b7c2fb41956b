"""What an action looks like in memory: one array of any of Gymnasium's four kinds of action space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from gymnasium import spaces

from rtcore.errors import ConfigError, PolicyError
from rtcore.spaces.arrays import Array, ArraySpec, JsonDict, fields_from_json, packed_bounds, require_plain_numbers

#: What `env.step` gets: a Python int for Discrete, an array of the space's shape and dtype for the others.
Action: TypeAlias = int | Array
ActionKind: TypeAlias = Literal["box", "discrete", "multi_discrete", "multi_binary"]

_ACTION_KINDS: tuple[ActionKind, ...] = ("box", "discrete", "multi_discrete", "multi_binary")


@dataclass(frozen=True)
class ActionSpec(ArraySpec):
    """One action of a Box, Discrete, MultiDiscrete or MultiBinary space.

    All four are an array between inclusive bounds: Discrete(n, start) has shape () and bounds
    start..start+n-1, MultiBinary has bounds 0..1.
    """

    kind: ActionKind

    @classmethod
    def from_space(cls, space: object) -> ActionSpec:
        """Describe a Gymnasium action space.

        Args:
            space: A Box, Discrete, MultiDiscrete or MultiBinary.

        Returns:
            What an action looks like in memory.

        Raises:
            ConfigError: It is of a kind that has no fixed array form.
        """
        if isinstance(space, spaces.Box):
            require_plain_numbers("action space", space)
            return cls(space.shape, space.dtype.name, packed_bounds(space.low), packed_bounds(space.high), "box")
        if isinstance(space, spaces.Discrete):
            start, num_choices = int(space.start), int(space.n)
            return cls((), np.dtype(space.dtype).name, (start,), (start + num_choices - 1,), "discrete")
        if isinstance(space, spaces.MultiDiscrete):
            first = space.start.astype(np.int64)
            last = first + space.nvec.astype(np.int64) - 1
            return cls(space.nvec.shape, space.dtype.name, packed_bounds(first), packed_bounds(last), "multi_discrete")
        if isinstance(space, spaces.MultiBinary):
            return cls(space.shape, np.dtype(space.dtype).name, (0,), (1,), "multi_binary")
        raise ConfigError(
            f"action space is {space!r}; expected Box, Discrete, MultiDiscrete or MultiBinary, as an action "
            f"is one array in shared memory. Wrap the environment in gymnasium.wrappers.TransformAction"
        )

    @cached_property
    def num_choices(self) -> tuple[int, ...]:
        """Choices per element in C order: (n,) for Discrete, nvec for MultiDiscrete; () for the others."""
        if self.kind not in ("discrete", "multi_discrete"):
            return ()
        low, high = self.low_array.ravel().tolist(), self.high_array.ravel().tolist()
        return tuple(last - first + 1 for first, last in zip(low, high, strict=True))

    def policy_output_shape(self, chunk: int = 1) -> tuple[int, ...]:
        """Shape of a policy's float output for a batch of one: (1, ...), or (1, chunk, ...) if chunk > 1.

        The rest is (n,) for Discrete(n), (sum(nvec),) for MultiDiscrete, else the action's own shape.
        """
        batch = (1,) if chunk == 1 else (1, chunk)
        return (*batch, sum(self.num_choices)) if self.num_choices else (*batch, *self.shape)

    def to_space(self) -> spaces.Space[Any]:
        """The Gymnasium space this was made from."""
        if self.kind == "box":
            return spaces.Box(self.low_array, self.high_array, self.shape, dtype=self.np_dtype)
        if self.kind == "discrete":
            return spaces.Discrete(self.num_choices[0], start=int(self.low[0]), dtype=self.np_dtype)
        if self.kind == "multi_discrete":
            num_choices = np.array(self.num_choices, dtype=np.int64).reshape(self.shape)
            return spaces.MultiDiscrete(num_choices, dtype=self.np_dtype.type, start=self.low_array)
        return spaces.MultiBinary(self.shape[0] if len(self.shape) == 1 else self.shape)

    def to_json(self) -> JsonDict:
        return {"kind": self.kind, **super().to_json()}

    @classmethod
    def _of_json(cls, data: Mapping[str, object]) -> ActionSpec:
        kind = data.get("kind")
        if kind not in _ACTION_KINDS:
            raise ConfigError(f"action spec has kind {kind!r}; expected one of {', '.join(_ACTION_KINDS)}")
        rest = {key: value for key, value in data.items() if key != "kind"}
        return cls(*fields_from_json("action", rest), kind)

    def encode(self, action: object, out: Array) -> None:
        """Write an action into memory.

        Args:
            action: An element of the space.
            out: An array of this dtype, of this shape or with as many elements.

        Raises:
            PolicyError: The action is not in the space.
        """
        try:
            value = self._as_element(action)
        except ValueError as error:
            raise PolicyError(f"action {action!r} {error}; expected an element of {self.to_space()}") from error
        out[...] = value.reshape(out.shape)

    def from_numbers(self, numbers: object) -> Action:
        """An action that somebody wrote down.

        Args:
            numbers: A number or nested lists of numbers; one number stands for every element of a Box.

        Returns:
            As of `decode`.

        Raises:
            ValueError: It is not in the space; says in what way.
        """
        try:
            value = np.asarray(numbers)
        except ValueError as error:
            raise ValueError("is no array of numbers") from error
        if self.kind == "box" and not value.shape:
            value = np.broadcast_to(value, self.shape)
        return self.decode(self._as_element(value))

    def decode(self, raw: object) -> Action:
        """Make what `env.step` expects.

        Args:
            raw: An array of this dtype, (*shape,).

        Returns:
            A Python int for Discrete, else a new array, never a view of `raw`.
        """
        if self.kind == "discrete":
            return int(cast(Any, raw))
        return np.array(raw, dtype=self.np_dtype).reshape(self.shape)

    def from_policy_output(self, output: Array, chunk: int = 1) -> Array:
        """Turn what a policy returned for a batch of one into new actions.

        Accepted, each with an axis of length `chunk` after the batch axis if chunk > 1:

        - Discrete(n, start): float (1, n) action values, the largest wins and `start` is added; or integers
          (1,) or (1, 1), the action itself.
        - MultiDiscrete(nvec): float (1, sum(nvec)), the largest of each part; or integers (1, *shape).
        - MultiBinary(n): float (1, n) logits, on where > 0; or integers or bools (1, n).
        - Box: numbers (1, *shape), clipped into the bounds; rounded first if the Box has an integer dtype.

        Args:
            output: What the policy returned.
            chunk: Actions in it.

        Returns:
            (chunk, *shape) of this dtype: a new array.

        Raises:
            PolicyError: A NaN or an infinity, another shape or dtype, or an integer outside the space.
        """
        self._require_accepted(output, chunk)
        output = self._numbers_of(output)
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            raise PolicyError(
                f"policy output has NaN or infinity: {output.ravel()[:8].tolist()}; expected finite ones. "
                f"Check the weights; to forbid an action give it a large negative value, not -inf"
            )
        if self.kind == "box":
            return self._clip(output.reshape(chunk, *self.shape))
        if output.dtype.kind != "f":
            return self._require_in_range(output.reshape(chunk, *self.shape))
        if self.kind == "multi_binary":
            return (output > 0).astype(self.np_dtype).reshape(chunk, *self.shape)
        values = output.reshape(chunk, -1)
        actions = np.empty((chunk, self.num_elements), self.np_dtype)
        begin = 0
        for column, num_choices in enumerate(self.num_choices):
            actions[:, column] = values[:, begin : begin + num_choices].argmax(axis=1)
            begin += num_choices
        shaped = actions.reshape(chunk, *self.shape)
        shaped += self.low_array
        return shaped

    def count_clipped(self, output: Array, chunk: int = 1) -> int:
        """Count what has to be clipped.

        Args:
            output: Of a policy, for a batch of one.
            chunk: Actions in it.

        Returns:
            How many of them lie outside a Box's bounds; 0 for other spaces.
        """
        if self.kind != "box":
            return 0
        values = self._numbers_of(output).reshape(chunk, -1)
        if self.np_dtype.kind in "iub" and values.dtype.kind == "f":
            values = np.rint(values)
        outside = (values < self.low_array.ravel()) | (values > self.high_array.ravel())
        return int(outside.any(axis=1).sum())

    def noop(self, env: object) -> tuple[Action, str]:
        """The action that stands for doing nothing, and the rule that chose it, for the run header.

        In this order: the environment's `noop_action`; NOOP among its `get_action_meanings()`; zeros for Box
        (clipped into the bounds) and MultiBinary; else the first action, and the text says "has no no-op".
        ConfigError if the environment's own `noop_action` is not in its action space.
        """
        name = _name_of(env)
        own = attribute_of(env, "noop_action")
        if own is not None:
            try:
                value = self._as_element(own)
            except ValueError as error:
                raise ConfigError(
                    f"{name}.noop_action = {own!r} {error}; expected an element of {self.to_space()}. "
                    f"Correct the environment, or choose with --noop-action"
                ) from error
            return self.decode(value), f"{name} declares noop_action = {own}"
        meanings = attribute_of(env, "get_action_meanings")
        if self.kind == "discrete" and callable(meanings):
            listed = [str(meaning).upper() for meaning in meanings()]
            if "NOOP" in listed and len(listed) == self.num_choices[0]:
                action = int(self.low[0]) + listed.index("NOOP")
                return action, f"{name} names action {action} NOOP"
        if self.kind in ("box", "multi_binary"):
            zeros = np.clip(np.zeros(self.shape, self.np_dtype), self.low_array, self.high_array)
            clipped = ", clipped into the bounds" if zeros.any() else ""
            return self.decode(zeros), f"{name} names no no-op: zeros{clipped}"
        first = self.decode(self.low_array)
        return first, f"{name} has no no-op: action {first} stands in; choose with --noop-action"

    def sample(self, rng: np.random.Generator) -> Action:
        """Draw a random action: see `draw`.

        Args:
            rng: All that it depends on.

        Returns:
            As of `decode`.
        """
        return self.decode(self.draw(rng))

    def _numbers_of(self, output: Array) -> Array:
        """A policy's output in the precision that its actions need: float32 is enough for most."""
        keeps = self.kind == "box" and (self.np_dtype.itemsize == 8 or self.np_dtype.name in ("int32", "uint32"))
        return output if output.dtype != np.float64 or keeps else output.astype(np.float32)

    def _as_element(self, action: object) -> Array:
        """The action as a finite array of this shape and within bounds; ValueError saying what is wrong."""
        value = np.asarray(action)
        if value.dtype.kind not in ("fiub" if self.np_dtype.kind == "f" else "iub"):
            raise ValueError(f"has dtype {value.dtype}")
        if value.shape != self.shape:
            raise ValueError(f"has shape {value.shape}")
        if value.dtype.kind == "f":
            with np.errstate(over="ignore"):
                value = value.astype(self.np_dtype)
        if not ((value >= self.low_array) & (value <= self.high_array) & np.isfinite(value)).all():
            raise ValueError("is out of range")
        return value

    def _require_accepted(self, output: Array, chunk: int) -> None:
        """PolicyError, listing all accepted shapes, unless dtype and shape are among them."""
        batch = (1,) if chunk == 1 else (1, chunk)
        value_shape = self.policy_output_shape(chunk)
        action_shapes = [(*batch, *self.shape)]
        if self.kind == "discrete":
            action_shapes.append((*batch, 1))
        action_kinds = "iub" if self.kind == "multi_binary" or self.np_dtype.kind == "b" else "iu"
        if output.dtype.kind == "f" and output.shape == value_shape:
            return
        if output.dtype.kind in action_kinds and output.shape in action_shapes:
            return
        values = {"box": "numbers", "multi_binary": "logits"}.get(self.kind, "action values")
        raise PolicyError(
            f"policy output has shape {output.shape} and dtype {output.dtype}; expected float {values} "
            f"of shape {value_shape} or integer actions of shape {' or '.join(map(str, action_shapes))}, "
            f"for {self.to_space()} and chunk={chunk}. Make the policy's last layer fit the action space"
        )

    def _require_in_range(self, actions: Array) -> Array:
        outside = (actions < self.low_array) | (actions > self.high_array)
        if outside.any():
            raise PolicyError(
                f"policy returned action {actions[outside][0]}, outside {self.to_space()}; "
                f"return the environment's own action numbers (they start at {self.low[0]})"
            )
        return actions.astype(self.np_dtype)

    def _clip(self, values: Array) -> Array:
        if self.np_dtype.kind in "iub" and values.dtype.kind == "f":
            values = np.rint(values)
        with np.errstate(over="ignore", invalid="ignore"):
            actions = values.astype(self.np_dtype)
        # Decided by the values before the cast: a number beyond the dtype's own range lands on the bound.
        np.copyto(actions, self.low_array, where=values <= self.low_array)
        np.copyto(actions, self.high_array, where=values >= self.high_array)
        return actions


def attribute_of(env: object, name: str) -> Any:
    """An attribute of an environment or of what it wraps; None if there is none."""
    lookup = getattr(env, "get_wrapper_attr", None)
    try:
        return lookup(name) if callable(lookup) else getattr(env, name)
    except AttributeError:
        return None


def _name_of(env: object) -> str:
    spec_id = getattr(getattr(env, "spec", None), "id", None)
    return str(spec_id) if spec_id else type(getattr(env, "unwrapped", env)).__name__
