"""Packets to and from a worker on another host: whole or refused, whatever bytes arrive."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import LinkError
from rtcore.memory.weights import Version, checksum_of
from rtcore_workers.remote.weights import CHUNK_BYTES, WINDOW_BYTES, Download, Upload
from rtcore_workers.remote.wire import HEADER, SHAPES, WIRE_VERSION, FramePacking, Kind, Packet, in_words, parse
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    kind = draw(st.sampled_from(Kind))
    shape = SHAPES[kind]
    words = tuple(draw(NUMBERS) for _ in shape.words)
    parts = tuple(draw(st.binary(max_size=40)) for _ in range(shape.num_parts))
    return Packet(kind, draw(st.integers(0, 2**64 - 1)), draw(NUMBERS), words, parts)


@given(packets())
def test_a_packet_arrives_as_it_was_sent(packet: Packet) -> None:
    assert parse(packet.message()) == packet


@given(packets(), st.integers(0, HEADER.size - 1), st.integers(1, 255))
def test_a_header_with_another_byte_is_a_packet_or_refused(packet: Packet, at: int, change: int) -> None:
    spoiled = bytearray(packet.message())
    spoiled[at] ^= change
    try:
        got = parse(bytes(spoiled))
    except LinkError:
        return
    assert b"".join(got.parts) == b"".join(packet.parts)
    assert got != packet


@examples(300)
@given(st.binary(max_size=HEADER.size + 8))
def test_garbage_is_refused(message: bytes) -> None:
    with pytest.raises(LinkError):
        parse(message)


@given(packets(), st.integers(-50, 50).filter(bool))
def test_a_message_that_is_cut_or_too_long_is_refused(packet: Packet, more: int) -> None:
    message = packet.message()
    with pytest.raises(LinkError):
        parse(message[:more] if more < 0 else message + bytes(more))


@given(st.binary(max_size=60))
def test_what_is_said_in_words_is_an_object_or_refused(text: bytes) -> None:
    try:
        said = Packet(Kind.SETUP, parts=(text,)).said()
    except LinkError:
        return
    assert isinstance(said, dict)


def test_nested_too_deep_and_no_numbers_are_refused() -> None:
    for text in (b"[" * 100_000, b'{"a": NaN}', b'{"a": Infinity}', b"\xff"):
        with pytest.raises(LinkError, match="no JSON"):
            Packet(Kind.SETUP, parts=(text,)).said()


def test_another_version_is_named_and_can_still_say_hello() -> None:
    job = Packet(Kind.JOB, 1, 1, (0, 0, 0), (b"", b"", b""), version=WIRE_VERSION + 1)
    with pytest.raises(LinkError, match=rf"version {WIRE_VERSION + 1}; expected {WIRE_VERSION}"):
        parse(job.message())
    hello = in_words(Kind.HELLO, {"rtcore": "9"})
    newer = Packet(hello.kind, parts=hello.parts, version=WIRE_VERSION + 1)
    assert parse(newer.message()).version == WIRE_VERSION + 1


@given(st.binary(max_size=300), st.integers(0, 5))
def test_a_packed_frame_is_the_frame_again(frame: bytes, repeats: int) -> None:
    whole = frame * repeats
    sent, is_packed = FramePacking(is_on=True).pack(whole)
    assert (FramePacking.unpack(sent, len(whole)) if is_packed else sent) == whole


def test_frames_are_packed_where_that_is_worth_it_and_never_on_one_host() -> None:
    noise, plain = random.Random(0).randbytes(1000), bytes(1000)
    packing = FramePacking(is_on=True)
    assert [packing.pack(frame)[1] for frame in (plain, noise)] == [1, 0]
    later = [packing.pack(plain)[1] for _ in range(FramePacking.PAUSE + 1)]
    assert later == [0] * FramePacking.PAUSE + [1]
    here = FramePacking(is_on=False)
    assert {here.pack(plain) for _ in range(3 * FramePacking.PAUSE)} == {(plain, 0)}


def test_a_packed_frame_of_another_size_or_damaged_is_refused_and_never_grows() -> None:
    bomb = zlib.compress(bytes(10_000_000))
    for packed in (bomb, zlib.compress(bytes(9)), zlib.compress(bytes(10))[:-5], b"", b"garbage"):
        with pytest.raises(LinkError, match="a packed frame"):
            FramePacking.unpack(packed, 10)


# -- weights -------------------------------------------------------------------------------------------------------


def sent(data: bytes, number: int = 3) -> Upload:
    view = memoryview(data)
    return Upload(Version(number, 0, checksum_of(view), 7), view, session=1)


@pytest.mark.parametrize("num_bytes", [1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * WINDOW_BYTES + 5])
def test_a_version_arrives_whole_and_once(num_bytes: int) -> None:
    data = bytes(range(256)) * (num_bytes // 256 + 1)
    upload, download, came, chunks = sent(data[:num_bytes]), Download(num_bytes), [], 0
    while not upload.is_over:
        under_way = upload.next_chunks()
        assert sum(len(chunk.parts[0]) for chunk in under_way) <= WINDOW_BYTES
        for chunk in under_way:
            chunks += 1
            came.append(download.take(parse(chunk.message())))
            upload.take(Packet(Kind.WEIGHTS_HELD, 1, words=(3, download.held)))
    assert chunks == -(-num_bytes // CHUNK_BYTES)
    assert [version for version in came if version is not None] == [upload.version]
    assert came[-1] is not None
    assert bytes(download.data) == data[:num_bytes]


def test_a_newer_version_takes_the_place_of_one_that_is_half_there() -> None:
    size = 2 * CHUNK_BYTES
    download = Download(size)
    older, newer = sent(b"a" * size, 3).next_chunks(), sent(b"b" * size, 4).next_chunks()
    assert [download.take(chunk) for chunk in (older[0], newer[0])] == [None, None]
    with pytest.raises(LinkError, match=f"bytes {CHUNK_BYTES} of weights version 3; expected {CHUNK_BYTES} of 4"):
        download.take(older[1])
    assert download.take(newer[1]) is not None


def test_weights_of_another_network_with_a_gap_or_damaged_are_refused() -> None:
    first, second = sent(b"a" * (2 * CHUNK_BYTES)).next_chunks()
    with pytest.raises(LinkError, match="the networks differ"):
        Download(CHUNK_BYTES).take(first)
    with pytest.raises(LinkError, match="expected 0 of 0"):
        Download(2 * CHUNK_BYTES).take(second)
    download = Download(2 * CHUNK_BYTES)
    download.take(first)
    damaged = Packet(second.kind, second.session, words=second.words, parts=(b"c" * CHUNK_BYTES,))
    with pytest.raises(LinkError, match="have checksum"):
        download.take(damaged)
    upload = sent(b"abc")
    upload.next_chunks()
    with pytest.raises(LinkError, match="4 bytes of version 3 held; 3 were sent"):
        upload.take(Packet(Kind.WEIGHTS_HELD, 1, words=(3, 4)))
