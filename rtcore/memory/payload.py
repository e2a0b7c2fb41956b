"""What travels with jobs and answers beside frame and action: the segment `payload` of a run whose policy needs it.

It is made once the first worker has built its policy and said what that takes and gives (`PolicyNeeds`), and holds a
manifest of that, so that whoever attaches can read it. A block lies beside the record that it belongs to and is written
and read with it, under the same ordering rules: a job's context before its number (W3), an answer's payload before its
entry is published (W4, R4, R5), what stays with a tick while its frame is being written (W1, W2, R1, R2). So a reader
has both whole, or neither. Without the segment nothing of this exists. Behind them is room for two tasks (`Tasks`).
"""

from __future__ import annotations

import json
from functools import cached_property

from rtcore.clock import NS_PER_MS
from rtcore.errors import ConfigError, LayoutMismatchError, PolicyError
from rtcore.memory.counters import Words
from rtcore.memory.layout import PAYLOAD_SIZES, FrameHeader, Layout, PayloadLayout
from rtcore.memory.ring import FrameRing, SequenceRing
from rtcore.memory.segments import Segment, attach_segment, create_segment
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.scheduling.dispatch import Known
from rtcore.spaces import ActionSpec, Block, PolicyNeeds
from rtcore.spaces.payload import AGES, CONTEXT_WORDS, MAX_BLOCK_BYTES, WORD_AT, age_of, stamps_of

#: The segment.
PAYLOAD = "payload"
_TICK, _EPISODE, _IS_FIRST, _DELAY_TICKS, _STATE_TICK, _FEATURES_TICK = (
    WORD_AT[name] for name in ("tick", "episode", "is_first", "delay_ticks", "state_tick", "features_tick")
)


def require_room(needs: PolicyNeeds, action: ActionSpec) -> None:
    """PolicyError if a job's context or an answer's payload is too large to be copied within a tick."""
    for what, block in (("takes a context", needs.context(action)), ("gives a payload", needs.payload)):
        if block.nbytes > MAX_BLOCK_BYTES:
            name, shape, dtype = max(block.fields, key=lambda field: Block((field,)).nbytes)
            raise PolicyError(
                f"the policy {what} of {block.nbytes / 1e6:.1f} MB, most of it {name} {shape} {dtype}; expected "
                f"{MAX_BLOCK_BYTES / 1e6:.1f} MB at most, as it is copied within a tick. Hand over less: pool or "
                "project the features"
            )


class PayloadMemory:
    """Views of the blocks, and what is in them. One object per process; `join` puts them to use.

    `buffer`: of the segment, or private memory of `layout.num_bytes` with a manifest in it.
    """

    def __init__(self, buffer: memoryview, layout: PayloadLayout) -> None:
        self.layout = layout
        self._buffer = buffer
        manifest = json.loads(bytes(buffer[layout.manifest_at : layout.manifest_at + layout.manifest_bytes]))
        #: What the policy takes and gives.
        self.needs = PolicyNeeds.from_json(manifest["needs"])
        #: In what `committed` consists of.
        self.action = ActionSpec.from_json(manifest["action"])
        #: Tasks on their way to the env process; None: the run has none.
        self.tasks = Tasks(buffer, layout) if layout.task_bytes else None

    @cached_property
    def context(self) -> Block:
        """What a job carries."""
        return self.needs.context(self.action)

    def join(self, jobs: JobSlots, slots: ActionSlots, ring: FrameRing) -> None:
        """From now on these write and read the blocks with their records."""
        layout, buffer, workers = self.layout, self._buffer, range(self.layout.max_workers)
        if layout.context_bytes:
            jobs.carry(buffer, [layout.context_at(worker) for worker in workers], layout.context_bytes)
        if layout.payload_bytes:
            places = [(layout.payload_at(worker, 0), layout.payload_at(worker, 1)) for worker in workers]
            slots.carry(buffer, places, layout.payload_bytes)
        if layout.kept_bytes:
            ring.keep(self.needs.kept, buffer[layout.kept_at :], layout.kept_stride_bytes)


class Tasks:
    """Tasks on their way to the env process: two blocks, of which the newest is valid. The supervisor writes the other
    one, so that what is read is whole; whoever reads waits for nobody.

    The first task of a run is none of these: version 2 is the first that was set.
    """

    def __init__(self, buffer: memoryview, layout: PayloadLayout) -> None:
        self._sequence = SequenceRing.over(buffer, layout.task_control_at, 2)
        self._places = [buffer[at : at + layout.task_bytes] for at in map(layout.task_at, range(2))]
        self._seen = -1

    def format(self) -> None:
        """By its creator, before anybody attaches."""
        self._sequence.format()

    def put(self, task: bytes) -> int:
        """Writer: a newer task. Returns its version."""
        seq = self._sequence.newest() + 1
        self._places[self._sequence.begin(seq)][:] = task
        self._sequence.commit(seq)
        return seq + 2

    @property
    def has_news(self) -> bool:
        """Reader: whether there is a task that this object has not taken."""
        return self._sequence.newest() != self._seen

    def take(self) -> tuple[int, bytes]:
        """Reader, where there is news: version and block of the newest task."""
        while True:
            self._seen = seq = self._sequence.newest()
            task = bytes(self._places[seq & 1])
            if not self._sequence.was_lapped(seq):
                return seq + 2, task

    def newest(self) -> tuple[int, bytes] | None:
        """Reader: the same whether there is news or not, for an onlooker; None: the run's first task is its newest."""
        return self.take() if self._sequence.newest() >= 0 else None


class ContextStage:
    """Puts a job's context into a policy's memory, and makes it right where another frame was read than was booked.

    Used by one thread. Allocates nothing.
    """

    def __init__(self, memory: memoryview, block: Block) -> None:
        """`memory`: the policy's, (block.nbytes,)."""
        self._memory = memory
        self._words = memory[: 8 * len(CONTEXT_WORDS)].cast("q")
        arrays = block.views(memory)
        self._committed, self._mask = arrays.get("committed"), arrays.get("committed_mask")
        self._ages_ms = arrays.get(AGES)

    def fill(self, context: bytes, *, booked_tick: int, header: FrameHeader, stamps: bytes = b"") -> None:
        """Before an inference.

        Args:
            context: The job's.
            booked_tick: Of the frame that it was written for.
            header: Of the frame that was read.
            stamps: When the parts of that frame were measured (`FrameRing.read_stamps`).
        """
        self._memory[:] = context
        words, tick, episode = self._words, header.tick, header.episode
        if self._ages_ms is not None:
            for at, stamp_ns in enumerate(stamps_of(stamps)):
                self._ages_ms[at] = age_of(stamp_ns, header.publish_ns) / NS_PER_MS
        if episode != words[_EPISODE]:
            # The frame is of another episode: what the context says of the old one does not hold.
            words[_IS_FIRST], words[_STATE_TICK], words[_FEATURES_TICK] = 1, -1, -1
            if self._mask is not None:
                self._mask[:] = Known.UNKNOWN
        elif tick != booked_tick:
            words[_IS_FIRST] = 0
            self._forget_before(tick - booked_tick)
        words[_DELAY_TICKS] -= tick - booked_tick
        words[_TICK], words[_EPISODE] = tick, episode

    def _forget_before(self, ticks: int) -> None:
        """The actions that led to a newer frame are in it."""
        if self._mask is None or self._committed is None:
            return
        left = max(0, len(self._mask) - ticks)
        for array in (self._committed, self._mask):
            array[:left] = array[len(array) - left :]
        self._mask[left:] = Known.UNKNOWN


def layout_of_payload(needs: PolicyNeeds, action: ActionSpec, run: Layout) -> PayloadLayout:
    """The segment for what a policy needs, in a run of that layout."""
    blocks = (needs.context(action), needs.payload, needs.kept, needs.task_of_world)
    return PayloadLayout(run.max_workers, run.ring_slots, len(_manifest(needs, action)), *(b.nbytes for b in blocks))


def format_payload(buffer: memoryview, layout: PayloadLayout, needs: PolicyNeeds, action: ActionSpec) -> None:
    """Its creator, before anybody attaches: sizes and manifest into memory of `layout.num_bytes`."""
    words = Words(PAYLOAD_SIZES, buffer, layout.sizes_at)
    for field, size in layout.sizes._asdict().items():
        words[field] = size
    buffer[layout.manifest_at : layout.manifest_at + layout.manifest_bytes] = _manifest(needs, action)
    if layout.task_bytes:
        Tasks(buffer, layout).format()


def create_payload(run_id: str, run: Layout, needs: PolicyNeeds, action: ActionSpec) -> None:
    """Supervisor: make the segment.

    Args:
        run_id: Of the run.
        run: Its layout.
        needs: What its policy takes and gives.
        action: Its world's.

    Raises:
        PolicyError: A block is too large.
        SharedMemoryError: There is no room.
    """
    require_room(needs, action)
    layout = layout_of_payload(needs, action, run)

    def prepare(buffer: memoryview) -> None:
        format_payload(buffer, layout, needs, action)

    create_segment(run_id, PAYLOAD, run, prepare, num_bytes=layout.num_bytes).close()


def attach_payload(run_id: str, run: Layout, *, readonly: bool = False) -> tuple[Segment, PayloadMemory]:
    """Anybody, once it is made (`run control` says so): the segment, and views of it that are valid until it is closed.

    Raises:
        LayoutMismatchError: There is none, or it is not what the manifest in it says.
    """
    segment = attach_segment(run_id, PAYLOAD, readonly=readonly)
    sizes = Words(PAYLOAD_SIZES, segment.buf, PayloadLayout(*[0] * 7).sizes_at).to_dict()
    layout = PayloadLayout(run.max_workers, run.ring_slots, **sizes)
    if layout.num_bytes != len(segment.buf):
        raise LayoutMismatchError(f"{segment.name} has {len(segment.buf)} bytes; expected {layout.num_bytes}")
    try:
        memory = PayloadMemory(segment.buf, layout)
    except (ConfigError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise LayoutMismatchError(f"{segment.name} has no manifest that can be read ({error})") from error
    expected = layout_of_payload(memory.needs, memory.action, run)
    if layout != expected:
        raise LayoutMismatchError(f"{segment.name} has blocks of {layout.sizes}; by its manifest {expected.sizes}")
    return segment, memory


def _manifest(needs: PolicyNeeds, action: ActionSpec) -> bytes:
    return json.dumps({"needs": needs.to_json(), "action": action.to_json()}).encode()
