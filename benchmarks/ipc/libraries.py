"""Other libraries for the same purpose, where they are installed (`pip install 'rtcore[profile]'`)."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ipc.standard import STAMP_BYTES, stamp
from rtcore.clock import MonotonicClock
from rtcore.errors import RtcoreError
from rtcore.profile.transports import PATIENCE_S, Frame, Opener, Receive, Shape, Transport

now_ns = MonotonicClock.now_ns
#: Transport name -> module it needs.
MODULES = {"zmq": "zmq", "iceoryx2": "iceoryx2", "faster-fifo": "faster_fifo"}
INSTALL = "pip install 'rtcore[profile]'"


def why_missing(name: str) -> str | None:
    """Why a peer cannot be measured here; None if it can."""
    if importlib.util.find_spec(MODULES[name]) is None:
        return f"{name} is not installed ({INSTALL})"
    return None


def _module(name: str) -> Any:
    """A peer's library. Late, because it is optional; untyped, because it may not be there for a type checker."""
    return importlib.import_module(MODULES[name])


# -- ZeroMQ ------------------------------------------------------------------------------------------------


class ZmqTransport(Transport):
    """pyzmq over ipc://, copied into a private array: PUSH/PULL for one reader, PUB/SUB for several."""

    name = "zmq"

    def __init__(self, shape: Shape, readers: int) -> None:
        zmq = _module("zmq")
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="rtcore-profile-")
        self._address = f"ipc://{Path(self._folder.name) / 'zmq'}"
        self._shape = shape
        self._readers = readers
        self._context = zmq.Context()
        # XPUB is PUB that can be asked who subscribed: the first frame must not go out before all have.
        self._socket = self._context.socket(zmq.PUSH if readers == 1 else zmq.XPUB)
        if readers > 1:
            self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # tell of every subscriber, not only of the first
        self._socket.rcvtimeo = int(PATIENCE_S * 1000)
        self._socket.bind(self._address)

    def opener(self, reader: int) -> Opener:
        return Opener(_open_zmq, (self._address, self._shape, self._readers > 1))

    def connect(self) -> None:
        if self._readers > 1:
            for _ in range(self._readers):
                self._socket.recv()

    def send(self, frame: Frame) -> None:
        self._socket.send_multipart([stamp(), frame.data])

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()
        self._folder.cleanup()


def _open_zmq(address: str, shape: Shape, subscribe: bool) -> Receive:
    zmq = _module("zmq")
    socket = zmq.Context.instance().socket(zmq.SUB if subscribe else zmq.PULL)
    if subscribe:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.rcvtimeo = int(PATIENCE_S * 1000)
    socket.linger = 0
    socket.connect(address)
    out = np.empty(shape, np.uint8)

    def receive(count: int) -> list[int]:
        times = []
        for _ in range(count):
            sent, payload = socket.recv_multipart(copy=False)
            np.copyto(out, np.frombuffer(payload.buffer, np.uint8).reshape(shape))
            times.append(now_ns() - int.from_bytes(bytes(sent.buffer), "little"))
        return times

    weakref.finalize(receive, socket.close)
    return receive


# -- iceoryx2 ----------------------------------------------------------------------------------------------


class IceoryxTransport(Transport):
    """iceoryx2: a loaned sample in shared memory, an event that wakes the listeners, a copy in the reader."""

    name = "iceoryx2"

    def __init__(self, shape: Shape, readers: int) -> None:
        super().__init__()
        self._service = f"rtcore-profile-{os.getpid()}-{id(self):x}"
        self._num_bytes = STAMP_BYTES + int(np.prod(shape))
        self._readers = readers
        self._node, data, event = _iceoryx_services(self._service, readers)
        self._publisher = data.publisher_builder().initial_max_slice_len(self._num_bytes).create()
        self._notifier = event.notifier_builder().create()

    def opener(self, reader: int) -> Opener:
        return Opener(_open_iceoryx, (self._service, self._num_bytes, self._readers))

    def send(self, frame: Frame) -> None:
        sent = stamp()
        sample = self._publisher.loan_slice_uninit(self._num_bytes)
        memory = sample.payload().as_memory_view().cast("B")
        memory[:STAMP_BYTES] = sent
        memory[STAMP_BYTES:] = frame.data.cast("B")
        sample.assume_init().send()
        self._notifier.notify()

    def close(self) -> None:
        self._publisher.delete()
        self._notifier.delete()
        self._node = None


def _iceoryx_services(name: str, readers: int) -> tuple[Any, Any, Any]:
    """Node, publish-subscribe service and event service. The node must outlive the others' use."""
    iox = _module("iceoryx2")
    iox.set_log_level(iox.LogLevel.Error)
    silent = iox.SignalHandlingMode.Disabled
    node = iox.NodeBuilder.new().signal_handling_mode(silent).create(iox.ServiceType.Ipc)
    data = (
        node.service_builder(iox.ServiceName.new(name))
        .publish_subscribe(iox.Slice[ctypes.c_uint8])
        .max_publishers(1)
        .max_subscribers(readers)
        .max_nodes(readers + 1)
        .subscriber_max_buffer_size(2)
        .subscriber_max_borrowed_samples(1)
        .history_size(0)
        .open_or_create()
    )
    event = (
        node.service_builder(iox.ServiceName.new(name))
        .event()
        .max_notifiers(1)
        .max_listeners(readers)
        .max_nodes(readers + 1)
        .open_or_create()
    )
    return node, data, event


def _open_iceoryx(service: str, num_bytes: int, readers: int) -> Receive:
    iox = _module("iceoryx2")
    node, data, event = _iceoryx_services(service, readers)
    subscriber = data.subscriber_builder().create()
    listener = event.listener_builder().create()
    patience = iox.Duration.from_millis(int(PATIENCE_S * 1000))
    out = np.empty(num_bytes - STAMP_BYTES, np.uint8)

    def receive(count: int, node: Any = node) -> list[int]:
        times: list[int] = []
        give_up_ns = now_ns() + count * int(PATIENCE_S * 1e9)
        while len(times) < count and now_ns() < give_up_ns:
            sample = subscriber.receive()
            if sample is None:
                listener.timed_wait(patience)
                continue
            memory = sample.payload().as_memory_view().cast("B")
            np.copyto(out, np.frombuffer(memory, np.uint8, offset=STAMP_BYTES))
            times.append(now_ns() - int.from_bytes(memory[:STAMP_BYTES], "little"))
            sample.delete()
        return times

    return receive


# -- faster-fifo -------------------------------------------------------------------------------------------


class FasterFifoTransport(Transport):
    """faster-fifo with bytes instead of pickles, one queue a reader: its fastest use."""

    name = "faster-fifo"

    def __init__(self, shape: Shape, readers: int) -> None:
        faster_fifo = _module("faster-fifo")
        super().__init__()
        self._message = bytearray(STAMP_BYTES + int(np.prod(shape)))
        room = 4 * (len(self._message) + 64)
        self._queues = [
            faster_fifo.Queue(max_size_bytes=room, loads=_as_it_is, dumps=_as_it_is) for _ in range(readers)
        ]

    def opener(self, reader: int) -> Opener:
        return Opener(_open_faster_fifo, (self._queues[reader], len(self._message)))

    def send(self, frame: Frame) -> None:
        self._message[:STAMP_BYTES] = stamp()
        self._message[STAMP_BYTES:] = frame.data.cast("B")
        message = bytes(self._message)  # it takes nothing else
        for queue in self._queues:
            queue.put(message)

    def close(self) -> None:
        for queue in self._queues:
            queue.close()


def _as_it_is(message: Any) -> Any:
    return message


def _open_faster_fifo(queue: Any, num_bytes: int) -> Receive:
    out = bytearray(num_bytes)

    def receive(count: int) -> list[int]:
        times = []
        for _ in range(count):
            # Bytes of its own if it gives such, a view of its buffer otherwise: private either way after the copy.
            message = queue.get(timeout=PATIENCE_S)
            if not isinstance(message, bytes):
                out[:] = message
                message = out
            if len(message) != num_bytes:
                raise RtcoreError(f"faster-fifo: got a message of {len(message)} bytes, expected {num_bytes}")
            times.append(now_ns() - int.from_bytes(message[:STAMP_BYTES], "little"))
        return times

    return receive
