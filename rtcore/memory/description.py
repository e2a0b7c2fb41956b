"""The text in shared memory by which a run says what it consists of (`rtcore.results.description`)."""

from __future__ import annotations

from rtcore.memory.layout import DESCRIPTION_HEAD, Layout
from rtcore.memory.ring import SequenceRing


class DescriptionBuffer:
    """Two texts, of which the newest is valid: the writer fills the other one. One writer (the supervisor)."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        self._sequence = SequenceRing.over(buffer, layout.ring_control_at, 2)
        self._buffer = buffer
        self._layout = layout

    @property
    def num_bytes(self) -> int:
        """What a text may take."""
        return self._layout.description_bytes

    def write(self, text: bytes) -> bool:
        """Writer: replace the text. False if it does not fit: then the old text stays, and the run goes on."""
        if len(text) > self.num_bytes:
            return False
        seq = self._sequence.newest() + 1
        self._sequence.begin(seq)
        at = self._layout.description_at(seq)
        DESCRIPTION_HEAD.struct.pack_into(self._buffer, at, len(text))
        at += DESCRIPTION_HEAD.num_bytes
        self._buffer[at : at + len(text)] = text
        self._sequence.commit(seq)
        return True

    def read(self) -> bytes | None:
        """Reader: the newest text; None before the first (the run is still starting)."""
        while (seq := self._sequence.newest()) >= 0:
            at = self._layout.description_at(seq)
            (num_bytes,) = DESCRIPTION_HEAD.struct.unpack_from(self._buffer, at)
            at += DESCRIPTION_HEAD.num_bytes
            text = bytes(self._buffer[at : at + num_bytes])
            if not self._sequence.was_lapped(seq):
                return text
        return None
