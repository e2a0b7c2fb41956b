"""The layout as a C header: structs with their sizes asserted, enums with names, and every offset as a function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from rtcore.memory import layout
from rtcore.memory.layout import CACHE_LINE_BYTES, WORD_BYTES, Record


class Offset(NamedTuple):
    """An offset or a size as a C expression: the document shows it, the header compiles it, a test compares it with
    `layout.Layout`'s attribute or method of the same name."""

    name: str
    formula: str
    parameters: tuple[str, ...] = ()

    @property
    def shown_parameters(self) -> str:
        return f"({', '.join(self.parameters)})" if self.parameters else ""


_W = ("worker",)
OFFSETS = (
    Offset("run_control_at", "SEGMENT_HEADER"),
    Offset("env_status_at", "run_control_at + RUN_CONTROL"),
    Offset("env_counters_at", "env_status_at + ENV_STATUS"),
    Offset("env_histogram_at", "env_counters_at + ENV_COUNTERS + index * HISTOGRAM", ("index",)),
    Offset("workers_at", "round_up(env_histogram_at(ENV_HISTOGRAMS))"),
    Offset("worker_block_bytes", "round_up(WORKER_CONTROL + WORKER_STATUS + JOB + WORKER_HISTOGRAMS * HISTOGRAM)"),
    Offset("worker_control_at", "workers_at + worker * worker_block_bytes", _W),
    Offset("worker_status_at", "worker_control_at(worker) + WORKER_CONTROL", _W),
    Offset("job_at", "worker_status_at(worker) + WORKER_STATUS", _W),
    Offset("worker_histogram_at", "job_at(worker) + JOB + index * HISTOGRAM", ("worker", "index")),
    Offset("num_groups", f"(h->max_workers + {layout.WORKERS_PER_GROUP - 1}) / {layout.WORKERS_PER_GROUP}"),
    Offset("posted_at", "worker_control_at(h->max_workers) + group * POSTED_JOBS", ("group",)),
    Offset("control_bytes", "posted_at(num_groups)"),
    Offset("entry_bytes", "round_up(SLOT_ENTRY + h->chunk * h->action_bytes)"),
    Offset("slot_control_at", "SEGMENT_HEADER + worker * (SLOT_CONTROL + 2 * entry_bytes)", _W),
    Offset(
        "slot_entry_at", "slot_control_at(worker) + SLOT_CONTROL + entry_seq % 2 * entry_bytes", ("worker", "entry_seq")
    ),
    Offset("slots_bytes", "slot_control_at(h->max_workers + 1)"),  # the operator has one too
    Offset("ring_control_at", "SEGMENT_HEADER"),
    Offset("header_stride_bytes", "round_up(FRAME_HEADER + h->action_bytes)"),
    Offset("headers_at", "ring_control_at + RING_CONTROL"),
    Offset("frame_stride_bytes", "round_up(h->frame_bytes)"),
    Offset("frames_at", "headers_at + h->ring_slots * header_stride_bytes"),
    Offset("ring_bytes", "frames_at + h->ring_slots * frame_stride_bytes"),
    Offset("log_records_at", "ring_control_at + RING_CONTROL"),
    Offset("log_bytes", "log_records_at + h->log_slots * LOG_RECORD"),
    Offset("description_stride_bytes", "round_up(DESCRIPTION_HEAD + h->description_bytes)"),
    Offset("description_at", "ring_control_at + RING_CONTROL + seq % 2 * description_stride_bytes", ("seq",)),
    Offset("description_segment_bytes", "description_at(0) + 2 * description_stride_bytes"),
    Offset(
        "trace_control_at", "SEGMENT_HEADER + process * (RING_CONTROL + h->trace_slots * TRACE_EVENT)", ("process",)
    ),
    Offset("trace_events_at", "trace_control_at(process) + RING_CONTROL", ("process",)),
    Offset("trace_bytes", "trace_control_at(2 + h->max_workers)"),
)

_HEAD = """\
/* Made from rtcore/memory/layout/ by `python -m tools.layoutdoc --write`. Do not edit: a test compares.
 *
 * The shared memory of a run of rtcore: little endian, every field 8 bytes. docs/layout.md says how to attach
 * and in which order to read. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef RTCORE_LAYOUT_H
#define RTCORE_LAYOUT_H

#include <stdint.h>
"""


def c_header(
    records: Mapping[str, Record[Any]],
    enums: tuple[type[IntEnum], ...],
    meanings: Mapping[type[IntEnum], Mapping[str, str]],
) -> str:
    """The text of rtcore_layout.h. `records` by constant name; `meanings` of each enum's values."""
    constants = {
        "MAGIC": f"INT64_C({layout.MAGIC:#x})",
        "LAYOUT_VERSION": layout.LAYOUT_VERSION,
        "ENV_HISTOGRAMS": len(layout.ENV_HISTOGRAMS),
        "WORKER_HISTOGRAMS": len(layout.WORKER_HISTOGRAMS),
        "HISTOGRAM_BUCKETS": layout.HISTOGRAM_BUCKETS,
        "TRACE_ENV": layout.TRACE_ENV,
        "TRACE_SUPERVISOR": layout.TRACE_SUPERVISOR,
        "TRACE_FIRST_WORKER": layout.TRACE_FIRST_WORKER,
    }
    parts = [_HEAD, *(f"#define RTCORE_{name} {value}" for name, value in constants.items()), ""]
    parts += [_struct(record) for record in records.values()]
    parts += [_RING_CONTROL, _HISTOGRAM]
    parts += [_enum(kind, meanings[kind]) for kind in enums]
    parts += [_histogram_indices("env", layout.ENV_HISTOGRAM_DOCS)]
    parts += [_histogram_indices("worker", layout.WORKER_HISTOGRAM_DOCS)]
    parts += [_ROUND_UP, *(_function(offset) for offset in OFFSETS), "#endif\n"]
    return "\n".join(parts)


def _struct(record: Record[Any]) -> str:
    name = f"rtcore_{record.name.replace(' ', '_')}"
    lines = [f"/* Writer: {record.writer}. */", f"struct {name} {{"]
    for field in record.fields:
        kind = "double" if field in record.floats else "int64_t"
        lines.append(f"    {kind} {field}; /* {record.docs[field]} */")
    if unused := record.num_bytes // WORD_BYTES - len(record.fields):
        lines.append(f"    int64_t unused[{unused}];")
    return "\n".join([*lines, "};", _size_assertion(name, record.num_bytes), ""])


def _size_assertion(name: str, num_bytes: int) -> str:
    return f'_Static_assert(sizeof(struct {name}) == {num_bytes}, "{name}");'


_LINE_WORDS = CACHE_LINE_BYTES // WORD_BYTES
_RING_CONTROL = f"""\
/* Writer: whoever writes the records. Numbers start at 0 and never wrap; -1 is none yet. */
struct rtcore_ring_control {{
    int64_t begun; /* number of the newest record that its writer has begun */
    int64_t unused_0[{_LINE_WORDS - 1}];
    int64_t done; /* number of the newest record that is whole */
    int64_t unused_1[{_LINE_WORDS - 1}];
}};
{_size_assertion("rtcore_ring_control", layout.RING_CONTROL.itemsize)}
"""
_HISTOGRAM = f"""\
struct rtcore_histogram {{
    int64_t count;
    int64_t sum;
    double sum_of_squares;
    int64_t min;
    int64_t max;
    int64_t unused[{layout.HISTOGRAM_HEAD_WORDS - 5}];
    int64_t buckets[RTCORE_HISTOGRAM_BUCKETS]; /* see docs/layout.md */
}};
{_size_assertion("rtcore_histogram", layout.HISTOGRAM_BYTES)}
"""
_ROUND_UP = f"""\
/* Offsets and sizes [bytes], from the sizes in a segment's header. */
static inline int64_t rtcore_round_up(int64_t num_bytes) {{
    return (num_bytes + {CACHE_LINE_BYTES - 1}) / {CACHE_LINE_BYTES} * {CACHE_LINE_BYTES};
}}
"""


def _enum(kind: type[IntEnum], meanings: Mapping[str, str]) -> str:
    name = "rtcore_" + re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    lines = [f"enum {name} {{"]
    for member in kind:
        remark = f" /* {meanings[member.name]} */" if member.name in meanings else ""
        lines.append(f"    {name.upper()}_{member.name} = {member.value},{remark}")
    lines += ["};", f"static inline const char *{name}_name(int64_t value) {{", "    switch (value) {"]
    lines += [f'    case {member.value}: return "{member.name.lower()}";' for member in kind]
    return "\n".join([*lines, '    default: return "?";', "    }", "}", ""])


def _histogram_indices(owner: str, docs: Mapping[str, str]) -> str:
    lines = [f"enum rtcore_{owner}_histogram {{"]
    lines += [
        f"    RTCORE_{owner.upper()}_HISTOGRAM_{name.upper()} = {index}, /* {meaning} */"
        for index, (name, meaning) in enumerate(docs.items())
    ]
    return "\n".join([*lines, "};", ""])


def _function(offset: Offset) -> str:
    """`a_at + RECORD * h->n` in terms of C: calls get the header, records become sizes."""
    names = {other.name: bool(other.parameters) for other in OFFSETS}
    counts = ("ENV_HISTOGRAMS", "WORKER_HISTOGRAMS")

    def in_c(match: re.Match[str]) -> str:
        word, opening = match[1], match[2]
        if word in counts:
            return f"RTCORE_{word}"
        if word.isupper():
            return f"(int64_t)sizeof(struct rtcore_{word.lower()})"
        if word == "round_up":
            return "rtcore_round_up("
        if word in names:
            return f"rtcore_{word}(h, " if opening else f"rtcore_{word}(h)"
        return word + opening

    expression = re.sub(r"\b([A-Za-z_]\w*)(\(?)", in_c, offset.formula)
    uses_header = re.search(r"\bh\b", expression) is not None
    parameters = "".join(f", int64_t {name}" for name in offset.parameters)
    ignore = "" if uses_header else "    (void)h;\n"
    return (
        f"static inline int64_t rtcore_{offset.name}(const struct rtcore_segment_header *h{parameters}) {{\n"
        f"{ignore}    return {expression};\n}}\n"
    )
