"""The segment `payload`: what travels with jobs and answers beside frame and action, of a policy that needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from rtcore.memory.layout.record_type import Record, round_up
from rtcore.memory.layout.records import RING_CONTROL, SEGMENT_HEADER


class PayloadSizes(NamedTuple):
    """Sizes of the blocks, from which their offsets follow; 0: there is no such block."""

    manifest_bytes: Annotated[int, "length of the manifest: JSON that says what is in each block"]
    context_bytes: Annotated[int, "size of what a job carries"]
    payload_bytes: Annotated[int, "size of what an answer carries behind its actions"]
    kept_bytes: Annotated[int, "size of what stays with a tick"]
    task_bytes: Annotated[int, "size of a task"]


PAYLOAD_SIZES = Record(PayloadSizes, writer="supervisor (once, before anybody else attaches)")


@dataclass(frozen=True)
class PayloadLayout:
    """Where the blocks lie: each begins a cache line. Block by block one writer, as of the records they belong to."""

    max_workers: int
    ring_slots: int
    manifest_bytes: int
    context_bytes: int
    payload_bytes: int
    kept_bytes: int
    task_bytes: int

    @property
    def sizes(self) -> PayloadSizes:
        return PayloadSizes._make(getattr(self, name) for name in PayloadSizes._fields)

    @property
    def sizes_at(self) -> int:
        return SEGMENT_HEADER.num_bytes

    @property
    def manifest_at(self) -> int:
        return self.sizes_at + PAYLOAD_SIZES.num_bytes

    def context_at(self, worker: int) -> int:
        """Beside the worker's `job`."""
        return round_up(self.manifest_at + self.manifest_bytes) + worker * round_up(self.context_bytes)

    def payload_at(self, worker: int, entry_seq: int) -> int:
        """Beside the worker's two slot entries."""
        return self.context_at(self.max_workers) + (2 * worker + (entry_seq & 1)) * round_up(self.payload_bytes)

    @property
    def kept_stride_bytes(self) -> int:
        return round_up(self.kept_bytes)

    @property
    def kept_at(self) -> int:
        """Of slot 0 of the frame ring; of slot i so many strides behind."""
        return self.payload_at(self.max_workers, 0)

    @property
    def task_control_at(self) -> int:
        """Sequence words of the two tasks, of which the supervisor writes one while the other can be read."""
        return self.kept_at + self.ring_slots * self.kept_stride_bytes

    def task_at(self, seq: int) -> int:
        return self.task_control_at + RING_CONTROL.itemsize + (seq & 1) * round_up(self.task_bytes)

    @property
    def num_bytes(self) -> int:
        return self.task_at(0) + 2 * round_up(self.task_bytes) if self.task_bytes else self.task_control_at
