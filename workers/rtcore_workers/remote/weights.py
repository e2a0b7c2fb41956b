"""Weights over a link: a version travels once, in chunks, and is used when its checksum is right. Pure.

Near has the run's parameter store, far a store of its own. Far says how many bytes it has in a row; near sends what
comes after them, a window ahead. A newer version takes the place of one that is not there yet.
"""

from __future__ import annotations

from rtcore.errors import LinkError
from rtcore.memory.weights import ParamStore, Version, checksum_of
from rtcore_workers.remote.wire import Bytes, Kind, Packet

#: Small, so that a frame that is sent meanwhile waits for little [bytes].
CHUNK_BYTES = 64 << 10
#: Sent and not acknowledged yet, at most [bytes].
WINDOW_BYTES = 16 * CHUNK_BYTES


class Upload:
    """One version on its way to the other side. `data`: all of its bytes, which stay as they are."""

    def __init__(self, version: Version, data: memoryview, session: int) -> None:
        self.version = version
        self._data, self._session = data, session
        self._sent = self._held = 0

    @property
    def is_over(self) -> bool:
        """The other side has all of it."""
        return self._held == len(self._data)

    def next_chunks(self) -> list[Packet]:
        """What may be sent now."""
        chunks = []
        while self._sent < min(len(self._data), self._held + WINDOW_BYTES):
            chunks.append(chunk_of(self.version, self._data, self._sent, self._session))
            self._sent += len(chunks[-1].parts[0])
        return chunks

    def take(self, packet: Packet) -> None:
        """A WEIGHTS_HELD of the other side. LinkError if it has another number of bytes than it can have."""
        if packet["version"] != self.version.version:
            return
        if not self._held <= packet["offset"] <= self._sent:
            raise LinkError(f"{packet['offset']} bytes of version {self.version.version} held; {self._sent} were sent")
        self._held = packet["offset"]


def chunk_of(version: Version, data: memoryview, offset: int, session: int) -> Packet:
    """The bytes from `offset` on, at most a chunk."""
    words = (version.version, version.checksum, version.updates, offset, len(data))
    return Packet(Kind.WEIGHTS, session, words=words, parts=(data[offset : offset + CHUNK_BYTES],))


class Download:
    """Versions that come in chunks. `num_bytes`: of each."""

    def __init__(self, num_bytes: int) -> None:
        self.data = bytearray(num_bytes)
        self._version = 0
        #: Bytes that are there, in a row.
        self.held = 0

    def take(self, packet: Packet) -> Version | None:
        """A WEIGHTS: the version that is complete by it, in `data`; None: it is not yet.

        Raises:
            LinkError: It is of another network, has a gap before it, or the whole does not match its checksum.
        """
        chunk: Bytes = packet.parts[0]
        version, offset, end = packet["version"], packet["offset"], packet["offset"] + len(chunk)
        if packet["total_bytes"] != len(self.data) or not 0 <= offset < end <= len(self.data) or version < 1:
            raise LinkError(
                f"bytes {offset} to {end} of {packet['total_bytes']} of weights version {version}; expected some of "
                f"{len(self.data)}: the networks differ"
            )
        if offset == 0:
            self._version, self.held = version, 0
        if version != self._version or offset != self.held:
            raise LinkError(f"bytes {offset} of weights version {version}; expected {self.held} of {self._version}")
        self.data[offset:end] = chunk
        self.held = end
        if end < len(self.data):
            return None
        found = checksum_of(memoryview(self.data))
        if found != packet["checksum"]:
            raise LinkError(f"weights version {version} have checksum {found:08x}; expected {packet['checksum']:08x}")
        return Version(version, 0, found, packet["updates"])


def copy_of(store: ParamStore, worker: int, generation: int) -> tuple[Version, memoryview]:
    """The newest version, and a copy of its bytes: sending them takes long, and a claim keeps publishers waiting."""
    copied = bytearray()
    version = store.snapshot(worker, generation, copied.extend)
    return version, memoryview(copied)
