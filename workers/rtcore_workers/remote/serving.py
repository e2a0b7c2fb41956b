"""`rtcore-worker`: listens for a run, builds the policy that it names, and answers its jobs, one at a time.

What comes over the link is data. It may name the policies that come with rtcore; a module of the user's own, or a file,
only where the one who started this worker has allowed that name.
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.config.run import RuntimeConfig
from rtcore.errors import LinkError, RtcoreError, printable, text_of, words_of
from rtcore.memory.tensors import ParamManifest
from rtcore.memory.weights import ParamStore
from rtcore.realtime import wake_soon
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.version import __version__
from rtcore_workers.malloc import keep_freed_memory
from rtcore_workers.policies import BUILTIN_POLICIES, policy_of
from rtcore_workers.policies.base import Policy
from rtcore_workers.remote.near import SENT_SETTINGS
from rtcore_workers.remote.session import Far
from rtcore_workers.remote.sockets import Listener
from rtcore_workers.remote.weights import Download, chunk_of
from rtcore_workers.remote.wire import MOST_PART_BYTES, FramePacking, Kind, Packet, parse

_SECTIONS = {"settings", "observation", "action"}
#: Between two lines about packets that are none.
_TELL_AGAIN_NS = 10 * NS_PER_S
_WAIT_MS = 500


class Builder:
    """Makes the policy of a SETUP, and keeps the last one: a run whose link was cut goes on with it at once.

    Args:
        device: Where it computes here; see the setting `device`.
        allowed: Policies of the user's own (module:function, sb3:FILE.zip) that a run may name.
    """

    def __init__(self, device: str, allowed: frozenset[str]) -> None:
        self._device, self._allowed = device, allowed
        self._key = ""
        self._built: ServedPolicy | None = None

    def __call__(self, run_id: str, setup: Mapping[str, Any]) -> ServedPolicy:
        """The policy. LinkError if it is refused, or cannot be built."""
        key = json.dumps([run_id, setup], sort_keys=True)
        if self._built is None or key != self._key:
            self._built = None  # before the next one takes memory
            self._built = self._build(setup)
            self._key = key
        return self._built

    def _build(self, setup: Mapping[str, Any]) -> ServedPolicy:
        settings = setup.get("settings")
        if setup.keys() != _SECTIONS or not isinstance(settings, Mapping) or settings.keys() != set(SENT_SETTINGS):
            raise LinkError("the setup is not what rtcore sends; expected settings, observation and action")
        name = str(settings["policy"])
        if name not in BUILTIN_POLICIES and name not in self._allowed:
            raise LinkError(
                f"the run's policy is {printable(name)!r}, which is none of rtcore's own; a run does not choose what "
                f"code this host runs. If you know it, start the worker with --allow {printable(name)}"
            )
        try:
            config = RuntimeConfig.from_jsonable(settings)
            observation, action = (
                ObservationSpec.from_json(setup["observation"]),
                ActionSpec.from_json(setup["action"]),
            )
            served = ServedPolicy(config, observation, action, self._device)
        except RtcoreError:
            raise
        except Exception as error:
            raise LinkError(f"the policy cannot be built: {text_of(error)}") from error
        keep_freed_memory()
        # As in a worker of the run's own: a collection would walk all that importing torch has made.
        gc.collect()
        gc.freeze()
        return served


class ServedPolicy:
    """A policy, its weights if it has a network, and the answers to its jobs. Implements `session.Served`."""

    def __init__(self, config: RuntimeConfig, observation: ObservationSpec, action: ActionSpec, device: str) -> None:
        self._store: ParamStore | None = None
        self._manifest: ParamManifest | None = None
        self._download: Download | None = None
        self._clock = MonotonicClock()
        frames, actions = config.history.obs_history + 1, config.agent.policy_chunk
        if max(frames * observation.nbytes, actions * action.nbytes) > MOST_PART_BYTES:
            raise LinkError(f"frames or actions of more than {MOST_PART_BYTES >> 20} MiB for one inference")
        self._policy: Policy = policy_of(
            config, observation, action, worker_index=0, device=device, share=self._share, is_head=False
        )
        self._out = np.zeros((actions, *action.shape), action.np_dtype)
        self._staged = [
            memoryview(b"") if array is None else array.reshape(-1).view(np.uint8).data
            for array in (self._policy.observation, self._policy.past_actions)
        ]
        self._staged.append(memoryview(b"") if self._policy.context is None else self._policy.context)

    def describe(self) -> str:
        """In one line."""
        return self._policy.info.describe()

    def ready(self) -> dict[str, Any]:
        """What near has to know of it."""
        newest = self._store.newest() if self._store is not None else None
        return {
            "info": vars(self._policy.info) | {"notes": list(self._policy.info.notes)},
            "needs": self._policy.needs.to_json(),
            "manifest": self._manifest.to_json() if self._manifest is not None else None,
            "weights": [newest.version, newest.checksum] if newest is not None else None,
        }

    def serve(self, packet: Packet) -> Packet | None:
        """Answer one packet. Raises what the policy raises."""
        if packet.kind is Kind.JOB:
            return self._act(packet)
        if self._store is None or self._manifest is None:
            raise LinkError("the policy has no weights")
        newest = self._store.newest()
        if packet.kind is Kind.WEIGHTS_WANTED:
            data = self._store.buffer(newest.buffer)
            if not 0 <= packet["offset"] < len(data):
                raise LinkError(f"weights from byte {packet['offset']} on; there are {len(data)}")
            return chunk_of(newest, data, packet["offset"], packet.session)
        return self._take_weights(packet, self._store, self._manifest)

    def _act(self, job: Packet) -> Packet:
        begun_ns = self._clock.now_ns()
        frame, *rest = job.parts
        parts = [FramePacking.unpack(frame, len(self._staged[0])) if job["is_packed"] else frame, *rest]
        if (got := [len(part) for part in parts]) != [len(place) for place in self._staged]:
            raise LinkError(f"a job of {got} bytes; expected {[len(place) for place in self._staged]}")
        for place, part in zip(self._staged, parts, strict=True):
            if len(place):
                place[:] = part
        policy, timing = self._policy, self._policy.timing
        timing.abstained = 0
        policy.act(frame_seq=job["frame_seq"], out=self._out, tick=job["tick"])
        payload = b"" if policy.payload is None else bytes(policy.payload)
        words = (
            self._clock.now_ns() - begun_ns,
            timing.h2d_ns,
            timing.compute_ns,
            timing.d2h_ns,
            timing.clipped,
            timing.abstained,
            timing.policy_version,
            timing.policy_checksum,
        )
        return Packet(Kind.ANSWER, job.session, job.number, words, (self._out.tobytes(), payload))

    def _take_weights(self, packet: Packet, store: ParamStore, manifest: ParamManifest) -> Packet:
        if self._download is None:
            self._download = Download(manifest.buffer_bytes)
        download = self._download
        version = download.take(packet)
        if version is not None:

            def bring(buffer: int) -> Any:
                store.buffer(buffer)[:] = download.data
                return version

            # Between two inferences no buffer is in use.
            store.take_over(bring)
        return Packet(Kind.WEIGHTS_HELD, packet.session, words=(packet["version"], download.held))

    def _share(self, build: Any, plain: bool) -> Any:
        """Build the policy's network on weights of this process; see `rtcore_workers.policies.Share`."""
        from rtcore_workers.weights.shared import connect  # noqa: PLC0415 - imports torch

        def make_store(manifest: ParamManifest | None) -> ParamStore:
            if manifest is None:
                raise LinkError("weights of nobody. This is a fault of rtcore")
            self._manifest = manifest
            self._store = ParamStore.private(manifest)
            return self._store

        return connect(build, make_store, is_first=True, plain=plain)


def serve(listener: Listener, builder: Builder, say: Callable[[str], None]) -> None:
    """Serve one run after another, until the process is told to end. `say`: for lines to the user."""
    wake_soon()
    server = _Server(listener, builder, say)
    while True:
        server.turn()


class _Server:
    def __init__(self, listener: Listener, builder: Builder, say: Callable[[str], None]) -> None:
        self._listener, self._builder, self._say = listener, builder, say
        self._clock = MonotonicClock()
        about = {"rtcore": __version__, "host": socket.gethostname(), "pid": os.getpid()}
        self._far = Far(about, self._build, lambda: secrets.randbits(63) | 1, listener.send)
        self._bad, self._told_ns = 0, -_TELL_AGAIN_NS

    def turn(self) -> None:
        """Answer what has come, or wait for a moment."""
        came = self._listener.receive(_WAIT_MS)
        if came is None:
            return
        peer, message = came
        try:
            packet = parse(message)
        except LinkError as error:
            self._note_bad(error)
            return
        for answer in self._far.take(peer, packet):
            if answer.kind is Kind.REFUSED:
                self._say(f"refused: {answer.said().get('text')}")
            self._listener.send(peer, answer)

    def _build(self, run_id: str, setup: Mapping[str, Any]) -> ServedPolicy:
        self._say(f"run {printable(run_id)}: building its policy")
        served = self._builder(run_id, setup)
        self._say(f"run {printable(run_id)}: {served.describe()}")
        return served

    def _note_bad(self, error: LinkError) -> None:
        """What is no packet is counted, and told of now and then."""
        self._bad += 1
        now_ns = self._clock.now_ns()
        if now_ns - self._told_ns > _TELL_AGAIN_NS:
            self._told_ns = now_ns
            self._say(f"ignored: {words_of(error)} ({self._bad} such so far)")
