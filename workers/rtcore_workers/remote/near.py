"""The policy of a worker whose computing is done on another host: each `act` sends the job there and waits.

To the env process its worker is one as any other. What happens to the answer of one that is late, or does not come, is
said by the same rules.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, LinkError, LinkLost, PolicyError
from rtcore.host.addresses import Address
from rtcore.memory.history import History
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import ParamStore, Version
from rtcore.spaces import ActionSpec, ObservationSpec, PolicyNeeds
from rtcore.version import __version__
from rtcore_workers.policies.base import Array, InferenceTiming, PolicyInfo
from rtcore_workers.remote.keys import Keys
from rtcore_workers.remote.session import Near, State
from rtcore_workers.remote.sockets import Line, silent_ms_of
from rtcore_workers.remote.weights import Download, Upload, copy_of
from rtcore_workers.remote.wire import FramePacking, Kind, Packet

#: What far builds the policy from. They say what is computed, and nothing of files or code.
SENT_SETTINGS = (
    "policy",
    "policy_args",
    "policy_extras",
    "context_ticks",
    "chunk",
    "chunk_rest",
    "obs_history",
    "obs_every",
    "act_history",
    "task",
    "seed",
)
#: How often the connection is looked at while an answer is awaited [ms].
_LOOK_MS = 50
#: Versions whose checksum is kept: an answer is of one that was sent lately.
_MOST_KNOWN = 64
#: Connections that end before both know each other: then it is no accident.
_MOST_REFUSED = 3
#: How long a run that starts waits for a worker to be there.
_REACH_NS = 20 * NS_PER_S
#: Between two attempts, and between two looks for new weights [s].
_PAUSE_S, _LOOK_FOR_WEIGHTS_S = 0.2, 0.05


class RunStore(Protocol):
    """The run's weights, as a proxy needs them."""

    #: Nobody has made them yet: this worker does.
    is_first: bool

    def make(self, manifest: ParamManifest | None) -> ParamStore:
        """The store; with a manifest, a new one for that network, without a version in it."""
        ...

    def initial(self, manifest: ParamManifest) -> Mapping[str, Array]:
        """Weights that version 1 is to have in the place of those that the factory drew."""
        ...


@dataclass(frozen=True)
class Place:
    """Whose link it is, and where to. `in_run`: the run goes on without it: it waits for as long as it takes."""

    run_id: str
    worker: int
    generation: int
    address: Address
    keys: Keys | None
    link_timeout_s: float
    in_run: bool


class RemotePolicy:
    """A policy that another host computes, as long as the link to it lasts: once that is lost, make another one.

    Args:
        place: Which worker's.
        config: Of the run.
        observation: Of its frames.
        action: Of its actions.
        store: The run's weights.
        waits: Told why there is no link, often, as long as there is none. What it raises ends that.

    Raises:
        LinkError: The worker refuses, before the run or once it has begun.
        LinkLost: It is not there, before the run has begun.
        PolicyError: Its policy is another one.
    """

    def __init__(
        self,
        place: Place,
        config: RuntimeConfig,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        store: RunStore,
        waits: Callable[[str], None],
    ) -> None:
        self._place, self._waits, self._clock = place, waits, MonotonicClock()
        self._action = action
        history = History.of(config.history)
        stacked = history.stacked(observation)
        settings = config.to_jsonable()
        setup = {
            "settings": {name: settings[name] for name in SENT_SETTINGS},
            "observation": observation.to_json(),
            "action": action.to_json(),
        }
        hello = {
            "rtcore": __version__,
            "run_id": place.run_id,
            "worker": place.worker,
            "host": socket.gethostname(),
        }
        #: Set once the link is lost.
        self._is_over = threading.Event()
        #: Sends weights that come later; None: there are none.
        self._follower: threading.Thread | None = None
        #: Checksums of the versions that far was sent.
        self._known: dict[int, int] = {}
        self._number = 0
        self._line, self._near = self._reach(hello, setup)
        with self._closed_if_lost():
            self.needs = _needs_of(self._near.ready, place.address)
            self.info = _info_of(self._near.ready, self._near.far, place.address)
            if (manifest := self._near.ready.get("manifest")) is not None:
                self._share_weights(store, ParamManifest.from_json(str(manifest)))
        self.observation: Array = np.zeros(stacked.shape, stacked.np_dtype)
        self.past_actions = history.empty_past_actions(action)
        context, payload = self.needs.context(action).nbytes, self.needs.payload.nbytes
        self.context = memoryview(bytearray(context)) if context else None
        self.payload = memoryview(bytearray(payload)) if payload else None
        self.timing = InferenceTiming()
        staged = (self.observation, self.past_actions)
        self._staged = [memoryview(b"") if array is None else array.reshape(-1).view(np.uint8).data for array in staged]
        self._packing = FramePacking(is_on=not place.address.is_loopback)

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """Fill `out`. LinkLost if the worker is gone; PolicyError for what its policy raised."""
        self._number += 1
        context = self.context if self.context is not None else b""
        frame, is_packed = self._packing.pack(self._staged[0])
        words = (frame_seq, frame_seq if tick is None else tick, is_packed)
        parts = (frame, self._staged[1], context)
        with self._closed_if_lost():
            self._line.send(Packet(Kind.JOB, self._near.session, self._number, words, parts))
            answer = self._answer()
        self._take(answer, out)

    # -- a job ---------------------------------------------------------------------------------------------

    def _answer(self) -> Packet:
        while True:
            packet = self._line.receive(_LOOK_MS)
            if packet is None or packet.session != self._near.session:
                continue
            if packet.kind is Kind.REFUSED:
                self._near.take(packet, self._clock.now_ns())
            if packet.number != self._number:
                continue
            if packet.kind is Kind.FAILED:
                raise PolicyError(f"on {self._place.address}: {packet.said().get('text')}")
            if packet.kind is Kind.ANSWER:
                return packet

    def _take(self, answer: Packet, out: Array) -> None:
        actions, payload = answer.parts
        expected = out.nbytes, 0 if self.payload is None else len(self.payload)
        if (len(actions), len(payload)) != expected:
            raise PolicyError(
                f"{self._place.address} answered with {len(actions)} bytes of actions and {len(payload)} of payload; "
                f"expected {expected[0]} and {expected[1]}"
            )
        version, checksum = answer["policy_version"], answer["policy_checksum"]
        if self._known and self._known.get(version) != checksum:
            raise PolicyError(
                f"{self._place.address} computed with weights version {version}, checksum {checksum:08x}, which it was "
                "not sent"
            )
        timing = self.timing
        timing.abstained = int(answer["abstained"] != 0)
        timing.h2d_ns, timing.compute_ns, timing.d2h_ns = (answer[name] for name in ("h2d_ns", "compute_ns", "d2h_ns"))
        timing.clipped, timing.policy_version, timing.policy_checksum = answer["clipped"], version, checksum
        if not timing.abstained:
            came = np.frombuffer(actions, out.dtype).reshape(out.shape)
            # NaN is in no range.
            if not ((came >= self._action.low_array) & (came <= self._action.high_array)).all():
                raise PolicyError(
                    f"{self._place.address} gave an action outside {self._action.to_space()}: {came!r:.80}"
                )
            out[...] = came
        if self.payload is not None:
            self.payload[:] = payload

    # -- the link ------------------------------------------------------------------------------------------

    @contextmanager
    def _closed_if_lost(self) -> Iterator[None]:
        """Nothing of a link that is lost stays: the process goes on, with another one."""
        try:
            yield
        except LinkError:
            self._is_over.set()
            if self._follower is not None:
                self._follower.join()
            self._line.close()
            raise

    def _reach(self, hello: dict[str, Any], setup: dict[str, Any]) -> tuple[Line, Near]:
        """A worker that has built the policy. In the run it is waited for; before it there is an end to that."""
        place, begun_ns = self._place, self._clock.now_ns()
        while True:
            line = Line(place.address, place.keys, silent_ms_of(place.link_timeout_s))
            try:
                return line, self._greet(line, Near(hello, setup, secrets.randbits(62)), begun_ns)
            except LinkError as error:
                line.close()
                if not place.in_run and not (isinstance(error, LinkLost) and not self._is_late(begun_ns)):
                    raise _start_error(place, error) from error
                self._waits(str(error))
                self._clock.sleep_until_ns(self._clock.now_ns() + round(_PAUSE_S * NS_PER_S))

    def _greet(self, line: Line, near: Near, begun_ns: int) -> Near:
        while near.state is not State.READY:
            self._waits(line.why if not line.is_connected else near.state.value)
            if near.state is State.CONNECTING:
                if line.became_connected(_LOOK_MS):
                    self._say(line, near.connected(self._clock.now_ns()))
                elif line.num_refused >= _MOST_REFUSED and not self._place.in_run:
                    raise LinkError(line.why)
                elif not self._place.in_run and self._is_late(begun_ns):
                    raise LinkLost(line.why)
                continue
            packet = line.receive(_LOOK_MS)
            if packet is not None:
                self._say(line, near.take(packet, self._clock.now_ns()))
            near.check(self._clock.now_ns())
        return near

    @staticmethod
    def _say(line: Line, packets: list[Packet]) -> None:
        for packet in packets:
            line.send(packet)

    def _is_late(self, begun_ns: int) -> bool:
        return self._clock.now_ns() - begun_ns > _REACH_NS

    # -- weights -------------------------------------------------------------------------------------------

    def _share_weights(self, store: RunStore, manifest: ParamManifest) -> None:
        """The run's weights are the worker's, if it is the first to have any; else the worker gets the run's."""
        place = self._place
        if store.is_first:
            shared = store.make(manifest)
            shared.set_manifest(manifest)
            drawn = self._fetch(manifest.buffer_bytes)
            given = store.initial(manifest)

            def write(buffer: memoryview) -> None:
                buffer[:] = drawn
                manifest.write(buffer, given)

            shared.publish(write)
        else:
            shared = store.make(None)
            if shared.manifest() != manifest:
                raise PolicyError(
                    f"the policy on {place.address} is another network than this run's; expected the same tensors. "
                    "Use one version of the policy and of PyTorch on both hosts"
                )
        self._bring(self._line, shared)
        self._follower = threading.Thread(target=self._follow, args=(shared,), daemon=True, name="weights")
        self._follower.start()

    def _fetch(self, num_bytes: int) -> bytearray:
        """The weights that far's factory drew."""
        download, line = Download(num_bytes), self._line
        while True:
            line.send(Packet(Kind.WEIGHTS_WANTED, self._near.session, words=(1, download.held)))
            while (packet := line.receive(_LOOK_MS)) is None or packet.kind is not Kind.WEIGHTS:
                if packet is not None:
                    self._near.take(packet, self._clock.now_ns())
            if download.take(packet) is not None:
                return download.data

    def _bring(self, line: Line, store: ParamStore) -> Version:
        """Send the newest version, if far does not have it."""
        newest, ready = store.newest(), self._near.ready
        if not self._known and ready.get("weights") == [newest.version, newest.checksum]:
            self._known[newest.version] = newest.checksum
            return newest
        version, data = copy_of(store, self._place.worker, self._place.generation)
        self._known[version.version] = version.checksum
        if len(self._known) > _MOST_KNOWN:
            del self._known[min(self._known)]
        upload = Upload(version, data, self._near.session)
        while not upload.is_over and not self._is_over.is_set():
            for chunk in upload.next_chunks():
                line.send(chunk)
            packet = line.receive(_LOOK_MS)
            if packet is not None and packet.kind is Kind.WEIGHTS_HELD:
                upload.take(packet)
            elif packet is not None:
                self._near.take(packet, self._clock.now_ns())
        return version

    def _follow(self, store: ParamStore) -> None:
        """A thread: sends each newer version over a connection of its own, so that no frame waits behind weights."""
        place, line = self._place, None
        sent, pause_s = max(self._known), _LOOK_FOR_WEIGHTS_S
        while not self._is_over.wait(pause_s):
            pause_s = _LOOK_FOR_WEIGHTS_S
            if store.newest_version() == sent:
                continue
            try:
                if line is None:
                    line = Line(place.address, place.keys, silent_ms_of(place.link_timeout_s))
                if not line.became_connected(_LOOK_MS):
                    continue
                sent = self._bring(line, store).version
            except LinkError:
                if line is not None:
                    line.close()
                line, pause_s = None, _PAUSE_S
        if line is not None:
            line.close()


def _start_error(place: Place, error: LinkError) -> LinkError:
    what = f"the worker at {place.address} (worker {place.worker})"
    if isinstance(error, LinkLost):
        return LinkLost(f"{what} cannot be reached: {error}. Does `rtcore-worker --listen` run there?")
    return LinkError(f"{what}: {error}")


def _needs_of(ready: Mapping[str, Any], address: Address) -> PolicyNeeds:
    try:
        return PolicyNeeds.from_json(ready["needs"])
    except (KeyError, TypeError, ConfigError) as error:
        raise LinkError(f"{address} does not say what its policy needs: {error}") from error


def _info_of(ready: Mapping[str, Any], far: Mapping[str, Any], address: Address) -> PolicyInfo:
    try:
        info = ready["info"]
        device = f"{address} ({info['device']})"
        notes = (*map(str, info["notes"]), f"a worker computes on {address}, host {far.get('host')}")
        pad_ms = None if info["pad_ms"] is None else float(info["pad_ms"])
        return PolicyInfo(
            name=str(info["name"]),
            num_parameters=int(info["num_parameters"]),
            synthetic=bool(info["synthetic"]),
            pad_ms=pad_ms,
            device=device,
            notes=notes,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LinkError(f"{address} does not say what its policy is: {error}") from error
