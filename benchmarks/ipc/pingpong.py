"""The other libraries' sides of a ping-pong (`rtcore-profile ipc --pattern pingpong`), each in its quickest use."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ipc.libraries import _module
from rtcore.errors import RtcoreError
from rtcore.profile.pingpong import End, spin_for
from rtcore.profile.transports import PATIENCE_S, Frame, Opener, Shape


class PipeEnd:
    """multiprocessing.Pipe, both ways; the kernel wakes the side that waits."""

    def __init__(self, shape: Shape) -> None:
        self._pipe, self._theirs = mp.Pipe(duplex=True)

    @classmethod
    def opened(cls, pipe: Connection) -> PipeEnd:
        end = cls.__new__(cls)
        end._pipe = end._theirs = pipe
        return end

    def other(self) -> Opener:
        return Opener(PipeEnd.opened, (self._theirs,))

    def send(self, frame: Frame) -> None:
        self._pipe.send_bytes(frame.data.cast("B"))

    def receive(self, out: Frame) -> None:
        if not self._pipe.poll(PATIENCE_S):
            raise RtcoreError(f"the other side of the ping-pong sent nothing for {PATIENCE_S:g} s")
        self._pipe.recv_bytes_into(out.data.cast("B"))

    def close(self) -> None:
        self._pipe.close()
        self._theirs.close()


class ZmqEnd:
    """pyzmq, PAIR over ipc://, looked at without a pause."""

    def __init__(self, shape: Shape) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = tempfile.TemporaryDirectory(prefix="rtcore-profile-")
        self._address = f"ipc://{Path(self._folder.name) / 'zmq'}"
        self._connect(bind=True)

    def _connect(self, *, bind: bool) -> None:
        self._zmq = zmq = _module("zmq")
        self._socket = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.linger = 0
        (self._socket.bind if bind else self._socket.connect)(self._address)

    @classmethod
    def opened(cls, address: str) -> ZmqEnd:
        end = cls.__new__(cls)
        end._folder, end._address = None, address
        end._connect(bind=False)
        return end

    def other(self) -> Opener:
        return Opener(ZmqEnd.opened, (self._address,))

    def send(self, frame: Frame) -> None:
        self._socket.send(frame.data, copy=True)

    def receive(self, out: Frame) -> None:
        message = spin_for(self._look)
        np.copyto(out, np.frombuffer(message.buffer, np.uint8).reshape(out.shape))

    def _look(self) -> Any:
        try:
            return self._socket.recv(self._zmq.NOBLOCK, copy=False)
        except self._zmq.Again:
            return None

    def close(self) -> None:
        self._socket.close()
        if self._folder is not None:
            self._folder.cleanup()


class IceoryxEnd:
    """iceoryx2: a service each way, the subscriber looked at without a pause, as its own benchmark does."""

    def __init__(self, shape: Shape) -> None:
        name = f"rtcore-pingpong-{os.getpid()}-{id(self):x}"
        self._names, self._num_bytes = (f"{name}-there", f"{name}-back"), int(np.prod(shape))
        self._open(*self._names)

    def _open(self, out: str, back: str) -> None:
        iox = _module("iceoryx2")
        iox.set_log_level(iox.LogLevel.Error)
        node = iox.NodeBuilder.new().signal_handling_mode(iox.SignalHandlingMode.Disabled).create(iox.ServiceType.Ipc)
        services = [
            node.service_builder(iox.ServiceName.new(name))
            .publish_subscribe(iox.Slice[ctypes.c_uint8])
            .max_publishers(1)
            .max_subscribers(1)
            .max_nodes(2)
            .subscriber_max_buffer_size(2)
            .subscriber_max_borrowed_samples(1)
            .history_size(0)
            .open_or_create()
            for name in (out, back)
        ]
        self._node: Any = node
        self._publisher = services[0].publisher_builder().initial_max_slice_len(self._num_bytes).create()
        self._subscriber = services[1].subscriber_builder().create()

    @classmethod
    def opened(cls, out: str, back: str, num_bytes: int) -> IceoryxEnd:
        end = cls.__new__(cls)
        end._num_bytes = num_bytes
        end._open(out, back)
        return end

    def other(self) -> Opener:
        there, back = self._names
        return Opener(IceoryxEnd.opened, (back, there, self._num_bytes))

    def send(self, frame: Frame) -> None:
        sample = self._publisher.loan_slice_uninit(self._num_bytes)
        sample.payload().as_memory_view().cast("B")[:] = frame.data.cast("B")
        sample.assume_init().send()

    def receive(self, out: Frame) -> None:
        sample = spin_for(self._subscriber.receive)
        out.data.cast("B")[:] = sample.payload().as_memory_view().cast("B")
        sample.delete()

    def close(self) -> None:
        self._publisher.delete()
        self._node = None


class FasterFifoEnd:
    """faster-fifo with bytes instead of pickles, a queue each way; it sleeps in the kernel."""

    def __init__(self, shape: Shape) -> None:
        faster_fifo, num_bytes = _module("faster-fifo"), int(np.prod(shape))
        self._out, self._back = (
            faster_fifo.Queue(max_size_bytes=4 * (num_bytes + 64), loads=bytes, dumps=bytes) for _ in range(2)
        )

    @classmethod
    def opened(cls, out: Any, back: Any) -> FasterFifoEnd:
        end = cls.__new__(cls)
        end._out, end._back = out, back
        return end

    def other(self) -> Opener:
        return Opener(FasterFifoEnd.opened, (self._back, self._out))

    def send(self, frame: Frame) -> None:
        self._out.put(frame.tobytes())

    def receive(self, out: Frame) -> None:
        message = self._back.get(timeout=PATIENCE_S)
        np.copyto(out, np.frombuffer(message, np.uint8).reshape(out.shape))

    def close(self) -> None:
        self._out.close()
        self._back.close()


#: Name of a transport -> what makes this process's side of it.
ENDS: dict[str, Callable[[Shape], End]] = {
    "pipe": PipeEnd,
    "zmq": ZmqEnd,
    "iceoryx2": IceoryxEnd,
    "faster-fifo": FasterFifoEnd,
}
