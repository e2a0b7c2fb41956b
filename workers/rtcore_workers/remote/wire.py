"""The packets between a run and a worker on another host: a fixed header, then parts as they are in memory.

A packet is one message: the header, which says how long each part is, and the parts. Not a multipart message: each
further piece costs more time than the copy does that makes one of all. Numbers are little-endian. What is said in words
(what a policy needs, why something is refused) is JSON. Nothing in a packet is executed. Pure: no socket, no clock.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from rtcore.errors import LinkError

#: Changes with every change of a message's form, of the header, of a packet's words, or of what they mean.
WIRE_VERSION = 2
_MAGIC = b"rtcW"
_NUM_WORDS = 10
_MOST_PARTS = 3
#: magic, version, kind | session | number | words | lengths of the parts, of which unused ones are 0
HEADER = struct.Struct(f"<4sHH Q q {_NUM_WORDS}q {_MOST_PARTS}I")
#: Of a part [bytes]: a stack of frames, a chunk of weights.
MOST_PART_BYTES = 64 << 20
MOST_BYTES = HEADER.size + _MOST_PARTS * MOST_PART_BYTES
_MOST_JSON_BYTES = 4 << 20

Bytes: TypeAlias = "bytes | bytearray | memoryview"


class Kind(IntEnum):
    """What a packet says. Near: the side of the run; far: the other host."""

    HELLO = 1  #: near: I want to be served (JSON: who I am). `number`: drawn by near
    WELCOME = 2  #: far: go on, as this session (JSON: who I am). `number`: that of the HELLO
    SETUP = 3  #: near: build this policy (JSON)
    READY = 4  #: far: it is built; what it needs (JSON)
    REFUSED = 5  #: far: no, and why (JSON)
    JOB = 6  #: near: frame (`FramePacking`, if is_packed), past actions, context. `number`: of the job
    ANSWER = 7  #: far: actions, payload. `number`: of the job
    FAILED = 8  #: far: the policy raised (JSON). `number`: of the job
    WEIGHTS = 9  #: either: some bytes of a version of the weights
    WEIGHTS_HELD = 10  #: far: how many bytes of which version it has in a row
    WEIGHTS_WANTED = 11  #: near: send me the bytes from there
    PROBE = 12  #: far: nothing; whether it can be sent shows whether near is still there


@dataclass(frozen=True)
class _Shape:
    """Of one kind of packet: the names of its words, and how many parts it has; `is_json`: its one part is JSON."""

    words: tuple[str, ...] = ()
    num_parts: int = 0
    is_json: bool = False


_JSON = _Shape(num_parts=1, is_json=True)
_TIMES = ("held_ns", "h2d_ns", "compute_ns", "d2h_ns")
SHAPES: Mapping[Kind, _Shape] = {
    Kind.HELLO: _JSON,
    Kind.WELCOME: _JSON,
    Kind.SETUP: _JSON,
    Kind.READY: _JSON,
    Kind.REFUSED: _JSON,
    Kind.JOB: _Shape(("frame_seq", "tick", "is_packed"), 3),
    Kind.ANSWER: _Shape((*_TIMES, "clipped", "abstained", "policy_version", "policy_checksum"), 2),
    Kind.FAILED: _JSON,
    Kind.WEIGHTS: _Shape(("version", "checksum", "updates", "offset", "total_bytes"), 1),
    Kind.WEIGHTS_HELD: _Shape(("version", "offset")),
    Kind.WEIGHTS_WANTED: _Shape(("version", "offset")),
    Kind.PROBE: _Shape(),
}
#: These begin in the same way in every version, so that two versions can tell each other which they are.
_OF_EVERY_VERSION = (Kind.HELLO, Kind.REFUSED)


@dataclass(frozen=True)
class Packet:
    """One packet. `session`: 0 before there is one. `number`: see `Kind`. `words`: as `SHAPES` names them."""

    kind: Kind
    session: int = 0
    number: int = 0
    words: tuple[int, ...] = ()
    parts: tuple[Bytes, ...] = ()
    version: int = WIRE_VERSION

    def __getitem__(self, word: str) -> int:
        return self.words[SHAPES[self.kind].words.index(word)]

    def said(self) -> dict[str, Any]:
        """The JSON of a packet that has it: an object. LinkError for anything else."""
        try:
            found = json.loads(bytes(self.parts[0]).decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise LinkError(f"a {self.kind.name} whose text is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise LinkError(f"a {self.kind.name} that says {found!r:.40}; expected an object")
        return found

    def message(self) -> bytes:
        """As it is sent."""
        words = (*self.words, *(0,) * (_NUM_WORDS - len(self.words)))
        lengths = [len(part) for part in self.parts] + [0] * (_MOST_PARTS - len(self.parts))
        header = HEADER.pack(_MAGIC, self.version, self.kind, self.session, self.number, *words, *lengths)
        return b"".join((header, *self.parts))


def in_words(kind: Kind, what: Mapping[str, Any], *, session: int = 0, number: int = 0) -> Packet:
    """A packet that says something as JSON."""
    return Packet(kind, session, number, parts=(json.dumps(what, allow_nan=False).encode(),))


def parse(message: bytes) -> Packet:
    """A packet from what has arrived.

    Args:
        message: Of whoever has sent something.

    Returns:
        The packet. Its parts are views of the message, not copies; what JSON they hold is not looked at yet.

    Raises:
        LinkError: It is no packet, or one of another version.
    """
    if len(message) < HEADER.size:
        raise LinkError(f"a message of {len(message)} bytes; expected a header of {HEADER.size}, and parts")
    magic, version, code, session, number, *rest = HEADER.unpack_from(message)
    words, lengths = tuple(rest[:_NUM_WORDS]), rest[_NUM_WORDS:]
    if magic != _MAGIC:
        raise LinkError(f"a message that begins with {magic!r}; expected {_MAGIC!r}")
    try:
        kind = Kind(code)
    except ValueError as error:
        raise LinkError(f"a packet of kind {code}, which version {WIRE_VERSION} does not have") from error
    if version != WIRE_VERSION and kind not in _OF_EVERY_VERSION:
        raise LinkError(f"a packet of version {version}; expected {WIRE_VERSION}: another rtcore is at the other end")
    shape = SHAPES[kind]
    if HEADER.size + sum(lengths) != len(message):
        raise LinkError(f"a {kind.name} of {len(message) - HEADER.size} bytes; its header says {lengths}")
    if any(lengths[shape.num_parts :]):
        raise LinkError(f"a {kind.name} with parts of {lengths} bytes; expected {shape.num_parts} parts")
    if any(words[len(shape.words) :]):
        raise LinkError(f"a {kind.name} with numbers where none belong")
    most = _MOST_JSON_BYTES if shape.is_json else MOST_PART_BYTES
    if max(lengths) > most:
        raise LinkError(f"a {kind.name} with {max(lengths)} bytes; expected {most} at most")
    view, parts, begin = memoryview(message), [], HEADER.size
    for length in lengths[: shape.num_parts]:
        parts.append(view[begin : begin + length])
        begin += length
    return Packet(kind, session, number, words=words[: len(shape.words)], parts=tuple(parts), version=version)


class FramePacking:
    """Frames by zlib, as long as that makes them a good deal smaller: fewer packets, of which fewer are lost.

    `is_on`: not on one host, where it would only take time.
    """

    #: Of a frame's size at most this is worth it, and after one that is not so many others are sent as they are.
    WORTH, PAUSE = 0.7, 100

    def __init__(self, is_on: bool) -> None:
        self._left = 0 if is_on else -1

    def pack(self, frame: Bytes) -> tuple[Bytes, int]:
        """What to send of a frame, and 1 if it is packed."""
        if self._left:
            self._left -= self._left > 0
            return frame, 0
        packed = zlib.compress(frame, 1)
        if len(packed) <= self.WORTH * len(frame):
            return packed, 1
        self._left = self.PAUSE
        return frame, 0

    @staticmethod
    def unpack(packed: Bytes, num_bytes: int) -> bytes:
        """The frame of that size; never makes more of it. LinkError if it is another one."""
        unpacking = zlib.decompressobj()
        try:
            frame = unpacking.decompress(packed, num_bytes + 1)
        except zlib.error as error:
            raise LinkError(f"a packed frame that is damaged: {error}") from error
        if len(frame) != num_bytes or not unpacking.eof:
            raise LinkError(f"a packed frame of another size; expected {num_bytes} bytes")
        return frame


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
