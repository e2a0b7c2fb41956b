"""How the processes of a run talk: messages, sent whole over a stream socket, whatever their length.

`messages.py` lists what they say.

Neither end can hold up the other for ever: an end that has to wait until it can send reads meanwhile, and `post`, the
supervisor's and the fork server's way, never waits. The kernel's limits on messages (EMSGSIZE, SO_SNDBUF) are met
nowhere, and a message arrives whole or not at all. JSON: numbers survive, inf and nan too; tuples become lists.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import threading
from collections import deque
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from rtcore.clock import MonotonicClock, ns_of
from rtcore.errors import ChannelError

#: Before each message: a mark, whether a file descriptor comes with it, and its length [bytes].
_HEAD = struct.Struct("<4s?Q")
_MARK = b"rtc\1"
_READ_BYTES = 1 << 18
_LONGEST_WAIT_MS = 60_000.0
_ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(4 * struct.calcsize("i"))
#: What a send may meet that is nobody's end: no memory, or too many descriptors of this user's under way.
_SOON_OVER = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)


M = TypeVar("M", bound="Message")


class Message:
    """What one process says to another: a dataclass, by its fields' names and types as JSON (see `messages.py`).

    A field is JSON, a dataclass, or of a class that has `to_json` and `from_json`, or `to_jsonable` and
    `from_jsonable`; it may be None where its type says so. A field `descriptor` is a file descriptor: it travels apart,
    has another number where it arrives (-1 if that process had no room for one more), and belongs to the channel from
    `post` on.
    """

    kinds: ClassVar[dict[str, type[Message]]] = {}
    descriptor: int

    def __init_subclass__(cls) -> None:
        Message.kinds[cls.__name__] = cls


# -- the channel -----------------------------------------------------------------------------------------------


class Channel:
    """One end of a stream socket between two processes. One thread reads; any may send."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._in = bytearray()
        self._descriptors: deque[int] = deque()
        self._out: deque[tuple[memoryview, int]] = deque()
        self._sending = threading.Lock()
        #: The other end is gone: nothing more will come, and what is posted is dropped.
        self.is_closed = False

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """One end, and the socket of the other: to be handed to another process. OSError without free descriptors."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    def fileno(self) -> int:
        """For selectors; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Drop what has not been sent. More than once does no harm."""
        self._drop_unsent()
        while self._descriptors:
            _close(self._descriptors.popleft())
        self.is_closed = True
        self._socket.close()

    # -- sending -------------------------------------------------------------------------------------------

    def post(self, message: Message) -> bool:
        """Send as much as the kernel takes now and keep the rest for `flush`; never waits. False: some is kept.

        Args:
            message: TypeError or ValueError if it is not JSON; nothing is sent then. To an end that is gone nothing is.
        """
        head, body = _encode(message)
        with self._sending:
            if self.is_closed:
                _close(head[1])
                return True
            self._out += (head, body)
            return self._flush()

    def flush(self) -> bool:
        """Go on sending what was kept; False: some still is."""
        with self._sending:
            return self._flush()

    @property
    def num_unsent(self) -> int:
        """Parts of messages that wait to be sent: two for each that was not begun."""
        return len(self._out)

    def send(self, message: Message) -> None:
        """`post`, and wait until the kernel has all of it, reading meanwhile. Nothing if the other end is gone."""
        self.post(message)
        while not self.flush():
            self._wait(select.POLLIN | select.POLLOUT, None)
            self._fill()

    def _flush(self) -> bool:
        while self._out:
            part, descriptor = self._out[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))] if descriptor >= 0 else []
            try:
                sent = self._socket.sendmsg([part], rights, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno in _SOON_OVER:
                    return False
                self._drop_unsent()
                return True
            _close(descriptor)
            if sent < len(part):
                self._out[0] = (part[sent:], -1)
            else:
                self._out.popleft()
        return True

    def _drop_unsent(self) -> None:
        while self._out:
            _close(self._out.popleft()[1])

    # -- reading -------------------------------------------------------------------------------------------

    def next(self) -> Message | None:
        """The oldest message that has come in whole; None: there is none now. Never waits.

        Raises:
            ChannelError: what came in is no message.
        """
        message = self._take()
        if message is None and not self.is_closed:
            self._fill()
            message = self._take()
        return message

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None if `timeout_s` has passed without one.

        Raises:
            ChannelError: the other end is gone, or what came in is no message.
        """
        give_up_ns = None if timeout_s is None else MonotonicClock.now_ns() + ns_of(timeout_s)
        while (message := self.next()) is None:
            if self.is_closed:
                raise ChannelError("the other process is gone")
            left_ns = None if give_up_ns is None else give_up_ns - MonotonicClock.now_ns()
            if left_ns is not None and left_ns <= 0:
                return None
            # What was posted goes out while this end waits: the answer may depend on it.
            self._wait(select.POLLIN | (0 if self.flush() else select.POLLOUT), left_ns)
        return message

    def expect(self, kind: type[M], timeout_s: float) -> M:
        """The next message, which is to be of that kind and to come within `timeout_s`; else ChannelError."""
        message = self.receive(timeout_s)
        if not isinstance(message, kind):
            got = "nothing" if message is None else f"a {type(message).__name__}"
            raise ChannelError(f"got {got} within {timeout_s:g} s; expected a {kind.__name__} from the supervisor")
        return message

    def _wait(self, events: int, left_ns: int | None) -> None:
        poller = select.poll()  # not select(): that ends at descriptor 1023
        poller.register(self._socket, events)
        poller.poll(None if left_ns is None else min(left_ns / 1e6 + 1, _LONGEST_WAIT_MS))

    def _fill(self) -> None:
        """Read what there is."""
        while not self.is_closed:
            try:
                got, rights, flags, _ = self._socket.recvmsg(
                    _READ_BYTES, _ROOM_FOR_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENOTSOCK) and not self.is_closed:
                    self.is_closed = True
                    raise ChannelError(
                        "the channel to the supervisor was closed in this process: something in it closes file "
                        "descriptors that are not its own (os.closerange, say)"
                    ) from error
                got, rights, flags = b"", [], 0
            if not got:
                self.is_closed = True
                return
            found = [number for *_, data in rights for number in memoryview(data[: len(data) // 4 * 4]).cast("i")]
            if flags & socket.MSG_CTRUNC and not found:
                found = [-1]  # no room for one more: the message that it belongs to has to know
            self._descriptors += found
            self._in += got
            if len(got) < _READ_BYTES and not found:
                return  # all there is; a descriptor ends a read early

    def _take(self) -> Message | None:
        if len(self._in) < _HEAD.size:
            return None
        mark, has_descriptor, num_bytes = _HEAD.unpack_from(self._in)
        if mark != _MARK:
            self.is_closed = True
            raise ChannelError(f"got the bytes {bytes(self._in[:16])!r}; expected a message of rtcore's own")
        end = _HEAD.size + num_bytes
        if len(self._in) < end:
            return None
        text = bytes(memoryview(self._in)[_HEAD.size : end])
        del self._in[:end]
        try:
            kind, fields = json.loads(text)
            if has_descriptor:
                fields["descriptor"] = self._descriptors.popleft()
            return from_plain([kind, fields])
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            self.is_closed = True
            raise ChannelError(f"got {text[:80]!r}, which is no message of rtcore: {type(error).__name__}") from error


def _encode(message: Message) -> tuple[tuple[memoryview, int], tuple[memoryview, int]]:
    """Head and body as they are sent; the descriptor goes with the head."""
    fields = dict(vars(message))
    descriptor: int = fields.pop("descriptor", -1)
    body = json.dumps([type(message).__name__, fields], default=_plain).encode()
    head = _HEAD.pack(_MARK, descriptor >= 0, len(body))
    return (memoryview(head), descriptor), (memoryview(body), -1)


def to_plain(message: Message) -> list[Any]:
    """As JSON, for `from_plain`, which may be called in another process."""
    plain: list[Any] = json.loads(json.dumps([type(message).__name__, vars(message)], default=_plain))
    return plain


def from_plain(plain: list[Any]) -> Message:
    """The message again, its fields of their types. KeyError, TypeError or ValueError if it is none."""
    kind, fields = plain
    types = _field_types(kind)
    return Message.kinds[kind](**{name: _typed(types.get(name), value) for name, value in fields.items()})


@cache
def _field_types(kind: str) -> dict[str, Any]:
    return get_type_hints(Message.kinds[kind])


def _typed(kind: Any, value: Any) -> Any:
    """JSON as a field of that type has it."""
    if isinstance(kind, UnionType):  # X | None
        kind = get_args(kind)[0]
    make = getattr(kind, "from_jsonable", None) or getattr(kind, "from_json", None)
    if value is None or (make is None and not is_dataclass(kind)):
        return value
    return kind(**value) if make is None else make(value)


def _plain(value: Any) -> Any:
    """Classes of our own, numpy's scalars and arrays, as JSON has them."""
    for name in ("to_jsonable", "to_json", "tolist"):
        if hasattr(value, name):
            return getattr(value, name)()
    if is_dataclass(value):
        return vars(value)
    raise TypeError(f"got a {type(value).__name__} ({value!r:.80}); expected numbers, strings, lists and dicts of them")


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
