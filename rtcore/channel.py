"""How the processes of a run talk: one class per message, sent whole over a stream socket, whatever its length.

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
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from rtcore.clock import MonotonicClock, ns_of
from rtcore.errors import ChannelError, ConfigError, RtcoreError, printable, shortened, words_of

#: Before each message: a mark, whether a file descriptor comes with it, and its length [bytes].
_HEAD = struct.Struct("<4s?Q")
_MARK = b"rtc\1"
_READ_BYTES = 1 << 18
_LONGEST_WAIT_MS = 60_000.0
_ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(4 * struct.calcsize("i"))
#: What a send may meet that is nobody's end: no memory, or too many descriptors of this user's under way.
_SOON_OVER = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
#: Of an error's text and of its traceback, what is shown [characters].
_TEXT_CHARS = 8_000
_TRACEBACK_CHARS = 24_000

M = TypeVar("M", bound="Message")


class Message:
    """What one process says to another: a dataclass whose fields are JSON.

    A field `descriptor` is a file descriptor: it travels apart, has another number where it arrives (-1 if that
    process had no room for one more), and belongs to the channel from `post` on.
    """

    kinds: ClassVar[dict[str, type[Message]]] = {}
    descriptor: int

    def __init_subclass__(cls) -> None:
        Message.kinds[cls.__name__] = cls


# -- supervisor and fork server --------------------------------------------------------------------------------


@dataclass
class Setup(Message):
    """To the fork server, first: whose it is, and its children's `sys.path`. `own_folders`: of these, the program's
    own (its current folder and its script's), in which no library is looked for before all others. `grace_s`: what the
    env process gets to close its world in if the program is killed."""

    sys_path: list[str]
    own_folders: list[str]
    run_id: str
    parent_pid: int
    grace_s: float


@dataclass
class Preload(Message):
    """To the fork server: import "module"s, call "module:function"s, for all children to come."""

    entries: list[str]


@dataclass
class Preloaded(Message):
    """From the fork server: that is done."""


@dataclass
class Fork(Message):
    """To the fork server: start a child `rt-NAME` that calls `entry` ("module:function") with (boot, channel)."""

    token: int
    name: str
    entry: str
    boot: dict[str, Any]


@dataclass
class Forked(Message):
    """From the fork server: the child of that token, and the supervisor's end of the channel to it."""

    token: int
    pid: int
    descriptor: int


@dataclass
class ForkFailed(Message):
    """From the fork server: there is no child. `errno`: the kernel's error number; `why`: the same in words."""

    token: int
    errno: int
    why: str


@dataclass
class Exited(Message):
    """From the fork server: a child has ended. `exitcode` as in `errors.WorkerDied`."""

    pid: int
    exitcode: int


# -- from a child to the supervisor ----------------------------------------------------------------------------


@dataclass
class Failed(Message):
    """A child's last words: what it raised. `kind`: the exception's class. `traceback`: "" where it says nothing."""

    kind: str
    text: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """Whole, or shortened and saying so; printable on any terminal, even if the exception itself is not."""
        # A user's world or policy that raised is shown with its own traceback, without the way of our error from there;
        # our own errors say everything themselves.
        cause = error.__cause__
        plain = isinstance(cause, ModuleNotFoundError | None) or type(cause).__module__ == "rtcore_envs.errors"
        says_it_all = isinstance(error, ConfigError) or (isinstance(error, RtcoreError) and plain)
        shown = "" if says_it_all else _traceback(cause if isinstance(error, RtcoreError) and cause else error)
        return cls(type(error).__name__, shortened(printable(words_of(error)), _TEXT_CHARS), shown)


@dataclass
class Ready(Message):
    """A child can do its work from now on; `info`: what it found out on the way there."""

    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class AtWorld(Message):
    """From the env process, while there is no memory to show it in: what it asks of the world next ("step 3 of 20").

    `may_take_a_start`: the first of its kind, in which worlds load what they need; any other has a step's time.
    """

    call: str
    may_take_a_start: bool = False


@dataclass
class WorldSpec(Message):
    """From the env process: what the world looks like (`environment.describe`)."""

    spec: dict[str, Any]


@dataclass
class WeightSizes(Message):
    """From worker 0: how large its network is (`ParamLayout.sizes`). Answered by `WeightsMade`."""

    sizes: dict[str, int]


@dataclass
class LeavesItsSpace(Message):
    """From a worker, once: what in the world's observations is not as its space declares."""

    what: str


@dataclass
class HoldWish(Message):
    """From a worker: that the weights on its device be held. Answered by `Holder`."""

    device: str
    kind: str


@dataclass
class KeepsOwnWeights(Message):
    """From a worker: it does not use what is held on its device."""

    device: str
    why: str


@dataclass
class Recorded(Message):
    """From the recorder: how far it is (`writer.Counts`). `end`: its file is closed; `failed_with`: it cannot be."""

    counts: dict[str, Any]
    end: str = ""
    note: str = ""
    failed_with: str = ""


@dataclass
class Result(Message):
    """From a measuring process: what it measured."""

    value: Any


# -- from the supervisor to a child ----------------------------------------------------------------------------


@dataclass
class SegmentsMade(Message):
    """To the env process: the run's shared memory is there (`Layout.to_json`), and all about it is decided
    (`ResolvedRun.to_jsonable`)."""

    layout: dict[str, Any]
    run: dict[str, Any]


@dataclass
class ResetOrder(Message):
    """To the env process of a program that plays: begin an episode. Sent before `run_control.reset_seq` is raised."""

    reset_seq: int
    seed: int | None
    options: dict[str, Any] | None


@dataclass
class WeightsMade(Message):
    """To worker 0: the memory for the weights is there."""


@dataclass
class Holder(Message):
    """To a worker: where the weights on its device are, or why they are not held."""

    part: str = ""
    memory: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


@dataclass
class End(Message):
    """To a recorder or holder: finish. `soon`: somebody waits for it."""

    soon: bool = False


@dataclass
class Begin(Message):
    """To a measuring process: measure from then on."""

    begin_ns: int


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
            return Message.kinds[kind](**fields)
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


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"got a {type(value).__name__} ({value!r:.80}); expected numbers, strings, lists and dicts of them")


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _traceback(error: BaseException) -> str:
    try:
        lines = "".join(traceback.format_exception(error))
    except Exception as second:  # a user's __str__ or source that cannot be read
        return f"(its traceback cannot be had: {type(second).__name__})"
    return shortened(printable(lines), _TRACEBACK_CHARS)
