"""Makes docs/layout.md and the C reader's rtcore_layout.h out of `rtcore/memory/layout/`: neither says something else.

And docs/tables.md, out of `rtcore/results/rows.py` (tools/tabledoc.py).

    python -m tools.layoutdoc            say whether the files are up to date (exit code 1 if not)
    python -m tools.layoutdoc --write    write them

Records, writers and fields come from `rtcore/memory/layout/`, values from the enums, ordering rules from the comments
marked (W1), (R1) and so on in `ring.py`, `slots.py`, `weights.py` and `waiting.py`. Works in a checkout only.
"""

from __future__ import annotations

import argparse
import inspect
import io
import sys
import tokenize
from enum import IntEnum
from pathlib import Path
from typing import Any

from rtcore.errors import ConfigError
from rtcore.memory import layout, ring, slots, waiting
from rtcore.memory import weights as params
from rtcore.memory.layout import Record
from rtcore.memory.segments import SegmentPart
from rtcore.memory.shared import Phase
from rtcore.memory.trace import TraceKind
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.spaces.payload import CONTEXT_WORDS
from rtcore.torture.points import Rule, rules_of
from tools.layoutheader import OFFSETS, c_header
from tools.tabledoc import tables_document

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "layout.md"
HEADER = ROOT / "examples" / "c_reader" / "rtcore_layout.h"
TABLES = ROOT / "docs" / "tables.md"
ENUMS: tuple[type[IntEnum], ...] = (Phase, TickKind, Source, Outcome, TraceKind)
#: Every record, in the order of the document.
_SOURCES = (layout.records, layout.weights, layout.payload)
RECORDS = {name: value for module in _SOURCES for name, value in vars(module).items() if isinstance(value, Record)}


def rules() -> list[Rule]:
    """The lettered points of the protocols that other programs may use."""
    return rules_of((ring, slots, params, waiting))


def remarks(text: str) -> dict[str, str]:
    """The `#:` comments of a source: by the name they stand above or behind."""
    found: dict[str, str] = {}
    above: list[str] = []
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and not name:
            name = token.string
        elif token.type == tokenize.COMMENT and token.string.startswith("#:"):
            remark = token.string.removeprefix("#:").strip()
            if name:
                found[name] = remark
            else:
                above.append(remark)
        elif token.type == tokenize.NEWLINE:
            if above:
                found.setdefault(name, " ".join(above))
            above, name = [], ""
    return found


def enum_remarks(kind: type[IntEnum]) -> dict[str, str]:
    """What each value of an enum means, as it says itself or its source does."""
    said = remarks(inspect.cleandoc(inspect.getsource(kind)))
    meanings = {member.name: getattr(member, "meaning", "") for member in kind}
    return {name: "; ".join(filter(None, (meaning, said.get(name)))) for name, meaning in meanings.items()}


# -- the document ----------------------------------------------------------------------------------------------


def document() -> str:
    """The text of docs/layout.md."""
    parts = [
        _INTRODUCTION.format(version=layout.LAYOUT_VERSION, magic=layout.MAGIC),
        _segments(),
        _OFFSETS_TEXT + _offsets(),
        _PARAMS_TEXT.format(words=len(CONTEXT_WORDS), word_names=", ".join(CONTEXT_WORDS)) + _store_offsets(),
        _RULES_TEXT + _rules(),
        _records(),
        _histograms(),
        _enums(),
    ]
    return "\n".join(parts)


def _table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    def line(cells: tuple[object, ...]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(columns), line(tuple("---" for _ in columns)), *map(line, rows)]) + "\n"


_SEGMENTS: dict[SegmentPart, list[tuple[str, str]]] = {
    "control": [
        ("run_control_at", "run control"),
        ("env_status_at", "env status"),
        ("env_counters_at", "env counters"),
        ("env_histogram_at", "one histogram each: " + ", ".join(layout.ENV_HISTOGRAMS)),
        ("worker_control_at", "per worker: worker control"),
        ("worker_status_at", "per worker: worker status"),
        ("job_at", "per worker: job"),
        ("worker_histogram_at", "per worker, one histogram each: " + ", ".join(layout.WORKER_HISTOGRAMS)),
        ("posted_at", f"per group of {layout.WORKERS_PER_GROUP} workers: posted jobs"),
    ],
    "slots": [
        ("slot_control_at", "per worker: slot control"),
        ("slot_entry_at", "per worker, two: slot entry, then `chunk` actions of `action_bytes`"),
    ],
    "ring": [
        ("ring_control_at", "ring control"),
        ("headers_at", "per slot, every `header_stride_bytes`: frame header, then the applied action"),
        ("frames_at", "per slot, every `frame_stride_bytes`: the frame"),
    ],
    "log": [("ring_control_at", "ring control"), ("log_records_at", "per slot: log record")],
    "description": [
        ("ring_control_at", "ring control"),
        ("description_at", "two: description head, then its JSON (UTF-8)"),
    ],
    "trace": [
        ("trace_control_at", "per process (0 env, 1 supervisor, 2 + w worker w): ring control"),
        ("trace_events_at", "per process, `trace_slots`: trace event"),
    ],
}


def _segments() -> str:
    rows: list[tuple[object, ...]] = []
    for part, content in _SEGMENTS.items():
        rows.append((f"**{part}**", "0", "segment header"))
        rows += [("", f"`{at}`", what) for at, what in content]
    return "## Segments\n\n" + _table(("segment", "offset", "holds"), rows)


def _offsets() -> str:
    rows: list[tuple[object, ...]] = [(f"`{o.name}{o.shown_parameters}`", f"`{o.formula}`") for o in OFFSETS]
    return _table(("offset or size [bytes]", "is"), rows)


def _store_offsets() -> str:
    """Of the two segments whose sizes are not in the segment header."""
    first, small = layout.SEGMENT_HEADER.num_bytes, layout.ParamLayout(0, 0, 0, 0)
    heads, head, claim = small.head_at(0), layout.PARAM_BUFFER.num_bytes, layout.PARAM_CLAIM.num_bytes
    page = layout.PAGE_BYTES
    params_rows: list[tuple[object, ...]] = [
        ("**params**", "0", "segment header"),
        ("", first, "parameter sizes"),
        ("", small.newest_at, "parameter newest"),
        ("", small.counts_at, "parameter counts"),
        ("", f"{heads} + buffer * {head}", "per buffer: parameter buffer"),
        (
            "",
            f"`claims` = {heads} + num_buffers * {head}, + worker * {claim}",
            "per worker, then per holder: parameter claim",
        ),
        ("", f"`claims` + (max_workers + num_holders) * {claim}", "the manifest: JSON, `manifest_bytes`"),
        ("", f"from the next multiple of {page} on, each on a multiple of {page}", "per buffer: the weights"),
    ]
    master = layout.MasterLayout(0, 0)
    control, status = layout.LEARNER_CONTROL.num_bytes, layout.LEARNER_STATUS.num_bytes
    learner_rows: list[tuple[object, ...]] = [
        ("**learner**", "0", "segment header"),
        ("", master.sizes_at, "learner sizes"),
        ("", master.commit_at, "master commit"),
        ("", master.pace_at, "learner pace"),
        ("", f"{master.control_at(0)} + learner * {control + status}", "per learner: learner control, learner status"),
        (
            "",
            f"from the next multiple of {page} on, each on a multiple of {page}",
            "eight arrays of `trainable_bytes`: weights, exp_avg, exp_avg_sq of slot 0; of slot 1; targets 0, 1",
        ),
    ]
    payload = layout.PayloadLayout(*[0] * 7)
    payload_rows: list[tuple[object, ...]] = [
        ("**payload**", "0", "segment header"),
        ("", payload.sizes_at, "payload sizes"),
        ("", payload.manifest_at, "the manifest: JSON, `manifest_bytes`"),
        (
            "",
            f"`contexts` = round_up({payload.manifest_at} + manifest_bytes), + worker * round_up(context_bytes)",
            "per worker, beside its job: the context",
        ),
        (
            "",
            "`payloads` = `contexts` + max_workers * round_up(context_bytes), "
            "+ (2 * worker + entry_seq % 2) * round_up(payload_bytes)",
            "per worker two, beside its slot entries: the payload",
        ),
        (
            "",
            "`kept` = `payloads` + 2 * max_workers * round_up(payload_bytes), + slot * round_up(kept_bytes)",
            "per slot of the ring, beside its frame header: what stays with the tick",
        ),
        (
            "",
            f"`task` = `kept` + ring_slots * round_up(kept_bytes), if there are tasks; the blocks from `task` + "
            f"{layout.RING_CONTROL.itemsize} on, + (seq % 2) * round_up(task_bytes)",
            "ring control, then two tasks, of which the newest is valid: version seq + 2",
        ),
    ]
    return _table(("segment", "offset", "holds"), params_rows + learner_rows + payload_rows)


def _rules() -> str:
    rows: list[tuple[object, ...]] = [(rule.name, f"`{rule.where}`", f"`{rule.code}`", rule.why) for rule in rules()]
    return _table(("rule", "where", "code", "why"), rows)


def _records() -> str:
    parts = ["## Records\n\nEach is a whole number of cache lines; what its fields do not fill is zero.\n"]
    columns = ("offset", "field", "type", "unit", "meaning")
    for name, record in RECORDS.items():
        rows: list[tuple[object, ...]] = [
            (
                layout.WORD_BYTES * record.index[field],
                f"`{field}`",
                _type(record, field),
                record.unit(field),
                record.docs[field],
            )
            for field in record.fields
        ]
        head = f"### {record.name}\n\n`{name}`, {record.num_bytes} bytes. Writer: {record.writer}."
        remark = " ".join(inspect.cleandoc(record.kind.__doc__ or "").partition("\n\n")[0].split())
        parts.append(f"{head} {remark}".strip() + "\n\n" + _table(columns, rows))
    about = remarks(inspect.getsource(layout.records))
    control = layout.RING_CONTROL
    rows = [
        (
            layout.WORD_BYTES * layout.RING_BEGUN,
            "`begun`",
            "i8",
            "",
            "number of the newest record that its writer has begun",
        ),
        (layout.WORD_BYTES * layout.RING_DONE, "`done`", "i8", "", "number of the newest record that is whole"),
    ]
    parts.append(
        f"### ring control\n\n`RING_CONTROL`, {control.itemsize} bytes. Writer: whoever writes the records. "
        f"{about['RING_CONTROL']}\n\n" + _table(columns, rows)
    )
    return "\n".join(parts)


def _type(record: Record[Any], field: str) -> str:
    return "f8" if field in record.floats else "i8"


def _histograms() -> str:
    named = layout.ENV_HISTOGRAM_DOCS.items(), layout.WORKER_HISTOGRAM_DOCS.items()
    rows: list[tuple[object, ...]] = [
        (f"`{name}`", writer, meaning)
        for writer, docs in zip(("env process", "the worker"), named, strict=True)
        for name, meaning in docs
    ]
    sub = 1 << layout.HISTOGRAM_SUB_BITS
    text = _HISTOGRAM_TEXT.format(
        num_bytes=layout.HISTOGRAM_BYTES,
        buckets=layout.HISTOGRAM_BUCKETS,
        first=layout.WORD_BYTES * layout.HISTOGRAM_HEAD_WORDS,
        exact=2 * sub,
        sub=sub,
        bits=layout.HISTOGRAM_SUB_BITS,
        max_bits=layout.HISTOGRAM_MAX_BITS,
    )
    return text + _table(("histogram", "writer", "one sample for"), rows)


def _enums() -> str:
    parts = ["## Values\n"]
    for kind in ENUMS:
        meanings = enum_remarks(kind)
        rows: list[tuple[object, ...]] = [
            (member.value, member.name.lower(), meanings.get(member.name, "")) for member in kind
        ]
        first = inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
        parts.append(f"### {kind.__name__}\n\n{first}\n\n" + _table(("value", "name", "meaning"), rows))
    return "\n".join(parts)


_INTRODUCTION = """\
# Shared memory, byte by byte

<!-- Made from rtcore/memory/layout/ by `make docs` (tools/layoutdoc.py). Do not edit: a test compares. -->

Layout version {version}. For who reads a run from another program or another language; `examples/c_reader/` is such a
program, and its `rtcore_layout.h` holds all that follows as C.

- Everything is little endian. Every field is 8 bytes wide and 8-byte aligned, so that one load or store of it is
  atomic: `i8` a signed integer, `f8` an IEEE double.
- `_ns` is nanoseconds of CLOCK_MONOTONIC, `_ticks` ticks of the world, `_bytes` bytes; `_seq` only grows. Without a
  unit it is a number, a pid or a value of an enum.
- Every field has one writer, and every cache line (64 bytes) one writing process.

## Attaching, read-only

1. A run is `/dev/shm/rtcore-<run id>-<segment>`, mode 0600, one file per segment. Find runs by
   `/dev/shm/rtcore-*-control`.
2. Open with O_RDONLY and map with PROT_READ: an onlooker then can disturb nothing. Needs the user's own rights (or
   root's), no other.
3. Check the segment header at offset 0: `magic` is {magic:#x}, `layout_version` is {version}, `size_bytes` is the size
   of the file. Otherwise stop: no offset below holds. A segment that has just been made has `magic` 0 until its header
   is whole.
4. Every offset follows from the header's sizes, which are the same in all segments of a run.
5. The run is on when `phase` is `run`; frames of it have the run's `phase_seq`, those of rehearsals an earlier one. It
   is over when `finished` is 1, or `phase` is no longer `run`, or the owner (`owner_pid`, `owner_start_ticks`) is gone.
   The files are removed then; what is mapped stays readable.
6. What a frame is stands in the description, as `world.observation`: one array of that `shape` and `dtype`, in C order.
   With `parts` it is the Dict of an observation, as bytes: each part is the array of its `shape` and `dtype` that
   begins `offset` bytes into the frame, a multiple of 8. `name` is its key; of a Dict within a Dict the keys joined by
   "/". With `has_stamp` the time at which it was measured is kept with each tick, as `stamp_ns.NAME`.
"""

_OFFSETS_TEXT = """\
## Offsets

`h` is the segment header, a record's name in capitals its size; `round_up` rounds up to a multiple of 64. In C:
`rtcore_<name>(h, ...)`.

"""

_PARAMS_TEXT = """\
## Weights and payloads

Segments whose sizes depend on the policy: each holds its own, behind the segment header. `params` is there if the
policy has a network, `learner` if the run learns, `payload` if the policy takes or gives more than frame and action
(`has_payload`). The manifest of `params` says where in a buffer each tensor is:
`names`, `shape`, `strides` [elements], `dtype`, `offset` [bytes]. A buffer that was never used takes no memory.
The trainable region comes first: the arrays of `learner` are laid out like it. Publishers hold `flock` on the file.
`holder0`, `holder1`, ..., one per GPU whose workers share one copy, begin like `params` and have no manifest and no
buffers: those are in the GPU's memory.

A block of `payload` is made of named arrays in C order, one behind the other, each at a multiple of 8 bytes. Its
manifest says which: `needs` has `extras`, `state` and `features` (`name`, `shape`, `dtype` of each array),
`committed_ticks` and the `action` (shape and dtype). A context is {words} int64 ({word_names}),
`committed` (`committed_ticks` actions) and `committed_mask` (uint8 each) if `committed_ticks` is not 0, then state and
features, `task_version` and the task, and `ages_ms`, a float32 for each of `ages`, which whoever reads the frame fills
in; a payload is extras, state, features; what stays with a tick is extras, the state that its decision began from, and
what the world leaves with it, time stamps of parts and its task among that. A context is written and read with its job,
a payload with its slot entry, a kept block with its frame. A task on its way to the env process is like a record of a
ring: the supervisor writes it, and whoever reads asks afterwards whether it came round (R1, R2).

"""

_RULES_TEXT = """\
## Ordering rules

Needs that stores become visible in their order, and that loads are done in theirs. x86-64 gives both to a program that
issues them in order, ARM64 only if asked: in C, load the words named here with acquire order, and do an acquire fence
before a load that has to come after a copy. Each rule pairs with the one it names; `docs/adr/0025-memory-order.md` has
all of them.

To read record `seq` of a ring with `n` slots (frames, log, trace; the two texts of `description` are a ring with 2):

1. Load `done` (R1). The record exists if `seq <= done`. It is in slot `seq % n`.
2. Copy what you need.
3. Then, never before, load `begun` (R2). If `begun - seq >= n` the writer has come round meanwhile: the copy is not to
   be used, the record is lost. Count it and go on with a newer one.

A slot entry: load the slot control's `entry_seq` (R4), copy the entry at place `entry_seq % 2`, load `entry_seq` again
(R5); the copy is whole if it has not changed. A job is for its worker only, which has none while one is being written
and sees it by its number (R3); an onlooker may get a mix of two, and finds what became of every job in the log.
Weights: load `newest` (R6), copy its buffer, load that buffer's `version` (R9); the copy is whole if that is still the
version. A worker keeps its buffer from being written meanwhile by a claim (W7, R8): that needs a full fence between
the store of the claim and the second load of `newest`, and in the publisher between its store of `newest` and its look
at the claims (W6, R7). A worker sleeps on the low half of a word, a futex: idle on its group's `posted`, booked on the
ring's `done`. The env process wakes those that are `asleep` (R12); it looks at that after the word, and a full fence
(W11, W2). Counters and histograms have no such rule: each word is whole, two words may be of different moments.

"""

_HISTOGRAM_TEXT = """\
## Histograms

{num_bytes} bytes each. Words: 0 number of samples, 1 their sum, 2 sum of their squares (f8), 3 smallest, 4 largest,
5 to 7 unused; from byte {first} on {buckets} buckets, each the number (i8) of samples that fell into it. A value below
{exact} has bucket `value`; a larger one, `shift = bit_length(value) - {bits} - 1`, has bucket
`{sub} * shift + (value >> shift)`. Values of 2**{max_bits} and more are in the last one.

"""


# -- the program -----------------------------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """What is made, and what it must hold."""
    return {
        DOCUMENT: document(),
        HEADER: c_header(RECORDS, ENUMS, {kind: enum_remarks(kind) for kind in ENUMS}),
        TABLES: tables_document(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Program entry: 0 if the files are (now) up to date, 1 if not, 2 outside a checkout."""
    parser = argparse.ArgumentParser(prog="python -m tools.layoutdoc", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the files; without it they are compared only")
    write = parser.parse_args(arguments).write
    try:
        _require_checkout()
    except ConfigError as error:
        print(f"tools.layoutdoc: {error}", file=sys.stderr)
        return 2
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if write:
            path.write_text(files()[path])
        print(f"{'wrote' if write else 'out of date:'} {path.relative_to(ROOT)}")
    if stale and not write:
        print("run: python -m tools.layoutdoc --write")
    return 1 if stale and not write else 0


def _require_checkout() -> None:
    for path in (DOCUMENT, HEADER, TABLES):
        if not path.parent.is_dir():
            raise ConfigError(f"no folder {path.parent}: this works in a checkout of rtcore, got an installed package")


if __name__ == "__main__":
    raise SystemExit(main())
