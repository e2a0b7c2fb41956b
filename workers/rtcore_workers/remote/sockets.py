"""The sockets of a link (ZeroMQ): the one place where packets meet the network.

Silence is found by ZeroMQ itself, whose own thread answers its heartbeats: a worker that computes for long is not
silent, one whose host, process or cable has gone is. A connection that is lost is not gone on with: its `Line` is
closed, and all that was under way in it is void.
"""

from __future__ import annotations

from typing import Any

from rtcore.errors import ConfigError, LinkLost
from rtcore.host.addresses import Address
from rtcore_workers.remote.keys import Keys, import_zmq
from rtcore_workers.remote.wire import MOST_BYTES, Packet, parse

#: How long one attempt to connect may take, and the pause before the next [ms]. One that began while the line was cut
#: is lost: so long after the return of the line the next one begins.
_CONNECT_MS, _AGAIN_MS = 400, 20
#: How long the other side may take to prove who it is [ms].
_HANDSHAKE_MS = 10_000
#: Messages that wait in a queue of ZeroMQ's. There is one job at a time; chunks of weights have a window of their own.
_MOST_QUEUED = 64


def _prepare(zmq: Any, socket: Any, silent_ms: int) -> None:
    """What both sides set. A connection without a sign of life for `silent_ms` ends."""
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.SNDHWM, _MOST_QUEUED),
        (zmq.RCVHWM, _MOST_QUEUED),
        (zmq.HANDSHAKE_IVL, _HANDSHAKE_MS),
        (zmq.HEARTBEAT_IVL, max(1, silent_ms // 4)),
        (zmq.HEARTBEAT_TIMEOUT, max(1, silent_ms * 3 // 4)),
        (zmq.MAXMSGSIZE, MOST_BYTES),
        (zmq.IPV6, 1),
    ):
        socket.setsockopt(option, value)


def _received(zmq: Any, socket: Any, timeout_ms: int) -> list[bytes] | None:
    """The pieces of a message, one if it is a packet; None after `timeout_ms`.

    Waits in the call that receives: to poll before it wakes this thread no sooner, and takes longer.
    """
    if socket.rcvtimeo != timeout_ms:
        socket.rcvtimeo = timeout_ms
    try:
        pieces: list[bytes] = socket.recv_multipart()
    except zmq.Again:
        return None
    return pieces


class Line:
    """Near's connection to a worker, as long as it lasts. Used by one thread.

    Args:
        address: Where the worker listens.
        keys: Of this side; None: without, on one host.
        silent_ms: A connection without a sign of life for so long is lost.

    Attributes:
        why: Why it is not connected, as far as is known.
        num_refused: How often somebody was there and one of both did not want the other.
    """

    def __init__(self, address: Address, keys: Keys | None, silent_ms: int) -> None:
        self._zmq = zmq = import_zmq("--workers-at")
        self.address = address
        self.why = "no answer yet"
        self.is_connected = False
        self.num_refused = 0
        self._has_keys = keys is not None
        self._context = zmq.Context()
        self._socket = socket = self._context.socket(zmq.DEALER)
        _prepare(zmq, socket, silent_ms)
        # Nothing is queued for a worker that is not there.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL, _AGAIN_MS)
        if keys is not None:
            socket.curve_publickey, socket.curve_secretkey = keys.public.encode(), keys.secret.encode()
            socket.curve_serverkey = keys.peers[0].encode()
        self._monitor = socket.get_monitor_socket()
        self._was_reached = False
        socket.connect(f"tcp://{address}")

    def send(self, packet: Packet) -> None:
        """LinkLost if it cannot be sent."""
        try:
            self._socket.send(packet.message(), self._zmq.DONTWAIT)
        except self._zmq.Again as error:
            self._look()
            raise LinkLost(self.why if not self.is_connected else "nothing can be sent any more") from error

    def receive(self, timeout_ms: int) -> Packet | None:
        """The next packet; None after `timeout_ms`.

        Raises:
            LinkLost: The connection has ended.
            LinkError: What came is no packet.
        """
        message = _received(self._zmq, self._socket, timeout_ms)
        if message is None:
            was_connected = self.is_connected
            self._look()
            if was_connected and not self.is_connected:
                raise LinkLost(self.why)
            return None
        return parse(b"".join(message))

    def became_connected(self, timeout_ms: int) -> bool:
        """Wait for the connection and the proof of the keys. False after `timeout_ms`: `why` says more."""
        if not self.is_connected and self._monitor.poll(timeout_ms):
            self._look()
        return self.is_connected

    def close(self) -> None:
        """More than once does no harm."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._context.destroy(0)

    def _look(self) -> None:
        """Take what ZeroMQ has seen of the connection."""
        from zmq.utils.monitor import recv_monitor_message  # noqa: PLC0415 - an extra

        zmq = self._zmq
        while self._monitor.poll(0):
            seen = recv_monitor_message(self._monitor)
            event = seen["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.is_connected = True
            elif event == zmq.EVENT_CONNECTED:
                self._was_reached = True
            elif event == zmq.EVENT_DISCONNECTED and self.is_connected:
                self.is_connected, self.why = False, "the connection has ended, or nothing came over it any more"
            elif event in (
                zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
                zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
                zmq.EVENT_HANDSHAKE_FAILED_AUTH,
            ) or (event == zmq.EVENT_DISCONNECTED and self._was_reached):
                self.num_refused += 1
                with_keys = "with the keys of this side" if self._has_keys else "without keys"
                self.why = (
                    f"somebody listens there, who is not the worker {with_keys}: another key, keys on one side only, a "
                    "key that the worker does not know, or another program"
                )
            elif event == zmq.EVENT_CLOSED and not self._was_reached:
                self.why = "nobody listens there, or the host cannot be reached"


class Listener:
    """Where a worker listens. Used by one thread.

    Args:
        address: Its own. Port 0: any that is free.
        keys: Of this side; None: without, on one host.
        silent_ms: A connection without a sign of life for so long is over.

    Raises:
        ConfigError: Nobody can listen there.
    """

    def __init__(self, host: str, port: int, keys: Keys | None, silent_ms: int) -> None:
        self._zmq = zmq = import_zmq("rtcore-worker")
        self._context = zmq.Context()
        self._auth: Any = None
        self._socket = socket = self._context.socket(zmq.ROUTER)
        _prepare(zmq, socket, silent_ms)
        # To a peer that has gone nothing can be sent, which is how that is seen.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if keys is not None:
            self._auth = _authenticator(self._context, keys)
            socket.curve_secretkey, socket.curve_publickey = keys.secret.encode(), keys.public.encode()
            socket.curve_server = True
        try:
            socket.bind(f"tcp://{f'[{host}]' if ':' in host else host}:{port or '*'}")
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"listen: nobody can listen at {host}:{port}: {error}") from error
        self.port = int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])

    def receive(self, timeout_ms: int) -> tuple[bytes, bytes] | None:
        """Who has sent something, and what; None after `timeout_ms`."""
        message = _received(self._zmq, self._socket, timeout_ms)
        if message is None:
            return None
        peer, *rest = message
        return peer, b"".join(rest)

    def send(self, peer: bytes, packet: Packet) -> bool:
        """Whether the peer is still there."""
        try:
            self._socket.send_multipart((peer, packet.message()), self._zmq.DONTWAIT)
        except self._zmq.ZMQError:  # unreachable, or it has not taken anything for long
            return False
        return True

    def close(self) -> None:
        """More than once does no harm."""
        if self._auth is not None:
            self._auth.stop()
            self._auth = None
        self._context.destroy(0)


def _authenticator(context: Any, keys: Keys) -> Any:
    """Lets in who has one of the known keys."""
    from zmq.auth.thread import ThreadAuthenticator  # noqa: PLC0415 - an extra

    known = {key.encode() for key in keys.peers}

    class Known:
        def callback(self, domain: str, key: bytes) -> bool:
            return key in known

    auth = ThreadAuthenticator(context)
    auth.start()
    auth.configure_curve_callback(domain="*", credentials_provider=Known())
    return auth


def silent_ms_of(link_timeout_s: float) -> int:
    """The setting in whole milliseconds."""
    return max(8, min(round(link_timeout_s * 1000), 1 << 30))
