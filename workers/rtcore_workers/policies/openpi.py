"""A policy server that speaks OpenPI's protocol, as policy `openpi:ws://HOST:PORT`.

A websocket. The server says what it is; then each observation, a map of names to arrays, is answered by a map with
`actions` (horizon, action size). Maps are msgpack, an array in them a map of its bytes, dtype and shape. A text instead
is an error. No pickle: what is decoded are numbers and texts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from math import prod
from typing import Any

import numpy as np

from rtcore.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock
from rtcore.config.groups import POLICY_SERVER
from rtcore.errors import ConfigError, LinkLost, PolicyConfigError, PolicyError, printable, shortened
from rtcore.spaces import ActionSpec, ObservationSpec, PolicyNeeds
from rtcore.spaces.task import TaskSpec, is_text, plain
from rtcore_workers.policies.base import Array, FrameOnly, InferenceTiming, PolicyInfo, refuse_unknown
from rtcore_workers.policies.calling import begin_context

#: Read here, so that it stands in no settings and in no file of the run.
_API_KEY = "OPENPI_API_KEY"
_ARGUMENTS = ("prompt", "observation", "actions")
_MOST_BYTES = 64 << 20
#: How long a server is looked for; after that this worker is down, and another one looks.
_REACH_NS, _PAUSE_NS = 5 * NS_PER_S, 200 * NS_PER_MS
#: A connection whose other end has gone without a word is over after so long: seconds, seconds, probes, ms.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3))
_TCP_USER_TIMEOUT_MS = 4000
_KINDS = "fiub"


def check_address(name: str) -> str:
    """The address in a policy's name. PolicyConfigError if there is none."""
    address = name.removeprefix(POLICY_SERVER)
    if not address.startswith(("ws://", "wss://")):
        raise PolicyConfigError(f"policy {name!r} has no address; expected {POLICY_SERVER}ws://HOST:PORT, or wss://")
    return address


class OpenPiPolicy(FrameOnly):
    """Asks a policy server for a chunk of actions. The values of the run's task are sent too, under their own names.

    Args:
        name: openpi:ws://HOST:PORT.
        args: `prompt`: sent with each observation. `observation`: the name under which the frame of a Box is sent
            ("observation"); the parts of a Dict have their own. `actions`: where they are in the answer ("actions").
        observation: Of one frame with its history.
        action: The world's.
        chunk: Actions that are used of each answer: the first ones.
        clock: What inferences are timed by.
        past_actions: Are not sent.
        task: Of the run.

    Raises:
        PolicyConfigError: The arguments are wrong.
        LinkLost: Nobody answers there.
        PolicyError: What answers is no such server.
    """

    def __init__(
        self,
        name: str,
        args: Mapping[str, object],
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        chunk: int = 1,
        clock: Clock | None = None,
        past_actions: Array | None = None,
        task: TaskSpec | None = None,
    ) -> None:
        refuse_unknown(name, args, _ARGUMENTS)
        self._address = check_address(name)
        self._key, self._actions_key = (str(args.get(each, each)) for each in _ARGUMENTS[1:])
        self._rest: dict[str, object] = {"prompt": args["prompt"]} if "prompt" in args else {}
        self._spec, self._action, self._chunk = observation, action, chunk
        self._clock = clock or MonotonicClock()
        self.observation: Array = np.zeros(observation.shape, observation.np_dtype)
        self.past_actions = past_actions
        self.timing = InferenceTiming()
        self._task: dict[str, Array] = {}
        if task is not None and task.block:
            self._take_task(task, action)
        self._pack, self._unpack, self._connect = _libraries()
        #: What is open as long as this policy lives.
        self._open = ExitStack()
        self._socket, about = self._reached()
        told = ", ".join(f"{key}={value}" for key, value in about.items() if isinstance(value, (str, int, float)))
        notes = (f"policy server at {self._address}: {shortened(printable(told), 200) or 'says nothing of itself'}",)
        self.info = PolicyInfo(name, 0, synthetic=False, pad_ms=None, device=self._address, notes=notes)

    def _take_task(self, task: TaskSpec, action: ActionSpec) -> None:
        if twice := sorted({*self._rest, *self._parts} & {*task.block.names}):
            raise PolicyConfigError(f"task: the server is sent {twice[0]!r} already; give that value another name")
        self.needs = PolicyNeeds(task=task.block)
        block = self.needs.context(action)
        self.context = memoryview(bytearray(block.nbytes))
        given = block.views(self.context)
        begin_context(given, self.needs, task.first)
        self._task = {name: given[f"task.{name}"] for name in task.block.names}

    @property
    def _parts(self) -> Mapping[str, Array]:
        """The observation as it is sent."""
        seen = self._spec.unpack(self.observation)
        return seen if isinstance(seen, dict) else {self._key: seen}

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """Fill `out`. LinkLost if the connection has ended; PolicyError for what the server raised or gave."""
        start_ns = self._clock.now_ns()
        task = {name: plain(array) if is_text(array) else array for name, array in self._task.items()}
        answer = self._asked({**self._parts, **self._rest, **task})
        came = answer.get(self._actions_key)
        actions = np.asarray(came) if isinstance(came, (np.ndarray, list, int, float)) else None
        if actions is None or actions.dtype.kind not in _KINDS:
            raise PolicyError(f"{self._address} gave no numbers as {self._actions_key!r}; it gave {sorted(answer)}")
        if actions.shape == self._action.shape:
            actions = actions[np.newaxis]  # one action, not a chunk of them
        if len(actions) < self._chunk:
            raise PolicyError(
                f"{self._address} gave {len(actions)} actions; expected {self._chunk} or more: give --chunk "
                f"{len(actions)}"
            )
        wanted = actions[: self._chunk]
        output = wanted if self._chunk == 1 else wanted[np.newaxis]
        out[...] = self._action.from_policy_output(output, self._chunk)
        self.timing.clipped = self._action.count_clipped(output, self._chunk)
        self.timing.compute_ns = self._clock.now_ns() - start_ns

    def _asked(self, what: dict[str, object]) -> dict[str, Any]:
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - an extra

        try:
            self._socket.send(self._pack(what))
            return self._map_of(self._socket.recv())
        except (ConnectionClosed, OSError) as error:
            self._open.close()
            raise LinkLost(f"the policy server at {self._address} has gone: {error}") from error

    def _reached(self) -> tuple[Any, dict[str, Any]]:
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI  # noqa: PLC0415 - an extra

        until_ns = self._clock.now_ns() + _REACH_NS
        key = os.environ.get(_API_KEY)
        headers = {"Authorization": f"Api-Key {key}"} if key else None
        while True:
            try:
                # A server that computes in its event loop answers no ping meanwhile: the kernel looks after the line.
                connection = self._open.enter_context(
                    self._connect(
                        self._address,
                        compression=None,
                        max_size=_MOST_BYTES,
                        additional_headers=headers,
                        ping_interval=None,
                        open_timeout=_REACH_NS / NS_PER_S,
                        proxy=None,
                    )
                )
                _watch(connection.socket)
                return connection, self._map_of(connection.recv(timeout=_REACH_NS / NS_PER_S))
            except InvalidURI as error:
                raise PolicyConfigError(f"policy {POLICY_SERVER}{self._address}: {error}") from error
            except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
                if self._clock.now_ns() > until_ns:
                    raise LinkLost(f"no policy server answers at {self._address}: {error}") from error
                self._clock.sleep_until_ns(self._clock.now_ns() + _PAUSE_NS)

    def _map_of(self, message: str | bytes) -> dict[str, Any]:
        if isinstance(message, str):
            raise PolicyError(f"on {self._address}: {shortened(printable(message), 4000)}")
        try:
            found = self._unpack(message)
        except Exception as error:  # msgpack raises what it likes
            raise PolicyError(f"{self._address} sent what is no msgpack of OpenPI's: {error}") from error
        if not isinstance(found, dict):
            raise PolicyError(f"{self._address} sent a {type(found).__name__}; expected a map")
        return {str(key): value for key, value in found.items()}


def _watch(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)


def _libraries() -> tuple[Any, Any, Any]:
    """What packs, what unpacks, what connects."""
    try:
        import msgpack  # noqa: PLC0415 - an extra
        from websockets.sync.client import connect  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            f"policy {POLICY_SERVER}... needs websockets and msgpack: pip install 'rtcore[openpi]'"
        ) from error

    def pack(what: dict[str, object]) -> Any:
        return msgpack.packb(what, default=packed)

    def unpack(message: bytes) -> Any:
        return msgpack.unpackb(message, object_hook=unpacked, strict_map_key=False)

    return pack, unpack, connect


def packed(value: object) -> object:
    """What msgpack does not know, arrays and NumPy's scalars, as OpenPI sends it. TypeError for anything else."""
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"{type(value).__name__} is neither an array of numbers nor plain data")


def unpacked(found: dict[Any, Any]) -> Any:
    """The inverse. ValueError for an array that is none."""
    is_scalar = b"__npgeneric__" in found
    if not is_scalar and b"__ndarray__" not in found:
        return found
    dtype = np.dtype(str(found.get(b"dtype")))
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype}; expected numbers")
    if is_scalar:
        return dtype.type(found[b"data"])
    shape, data = tuple(map(int, found[b"shape"])), found[b"data"]
    if min(shape, default=1) < 0 or prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)
