"""Every shared struct, with explicit offsets. Nothing else knows an offset.

Five POSIX shared-memory segments per run, `/rtcore-<run id>-<part>`, little endian, x86-64, one more if it is
traced, one more if its policy has a network, one more per GPU whose workers share that network's weights, and one more
if its policy takes or gives more than frame and action:

    control      header | run control | env status | env stats | per worker: control, status, job, stats
    slots        per worker: publication word | two entries, each a SLOT_ENTRY and `chunk` actions
    ring         RING_CONTROL | frame headers (FRAME_HEADER + applied action) | frames
    log          RING_CONTROL | LOG_RECORDs: one per resolved job
    description  RING_CONTROL | two texts (DESCRIPTION_HEAD and JSON): what the run consists of, for those that attach
    trace        per process (env, supervisor, workers): RING_CONTROL | TRACE_EVENTs
    params       header | sizes | newest | counts | buffer heads | claims | manifest (JSON) | weight buffers
    holder0      the same without manifest and buffers, which are in the memory of the first GPU; and so on per GPU
    payload      header | sizes | manifest (JSON) | per worker: context, two payloads | per ring slot: kept block

and one POSIX semaphore per worker, `/rtcore-<run id>-w<index>`, as a wake-up counter only.
Each field has one writer, each cache line one writing process. Fields are 8 bytes wide and 8-byte aligned, so
that every load and store is atomic. A test pins every offset; changing one bumps `LAYOUT_VERSION`.
"""

from __future__ import annotations

from rtcore.memory.layout.offsets import Layout
from rtcore.memory.layout.payload import PAYLOAD_SIZES, PayloadLayout
from rtcore.memory.layout.record_type import CACHE_LINE_BYTES, LAYOUT_VERSION, MAGIC, WORD_BYTES, Record
from rtcore.memory.layout.records import (
    DESCRIPTION_HEAD,
    ENV_COUNTERS,
    ENV_HISTOGRAM_DOCS,
    ENV_HISTOGRAMS,
    ENV_STATUS,
    FRAME_HEADER,
    HISTOGRAM_BUCKETS,
    HISTOGRAM_BYTES,
    HISTOGRAM_HEAD_WORDS,
    HISTOGRAM_MAX_BITS,
    HISTOGRAM_SUB_BITS,
    JOB,
    LOG_RECORD,
    RING_BEGUN,
    RING_CONTROL,
    RING_DONE,
    RUN_CONTROL,
    SEGMENT_HEADER,
    SLOT_CONTROL,
    SLOT_ENTRY,
    TRACE_ENV,
    TRACE_EVENT,
    TRACE_FIRST_WORKER,
    TRACE_SUPERVISOR,
    WORKER_CONTROL,
    WORKER_HISTOGRAM_DOCS,
    WORKER_HISTOGRAMS,
    WORKER_STATUS,
    FrameHeader,
)
from rtcore.memory.layout.weights import (
    LEARNER_CONTROL,
    LEARNER_PACE,
    LEARNER_SIZES,
    LEARNER_STATUS,
    MASTER_COMMIT,
    MAX_HOLDERS,
    PAGE_BYTES,
    PARAM_BUFFER,
    PARAM_BUFFER_BITS,
    PARAM_CLAIM,
    PARAM_COUNTS,
    PARAM_NEWEST,
    PARAM_SIZES,
    MasterLayout,
    ParamLayout,
)

__all__ = [
    "DESCRIPTION_HEAD",
    "CACHE_LINE_BYTES",
    "ENV_COUNTERS",
    "ENV_HISTOGRAMS",
    "ENV_HISTOGRAM_DOCS",
    "ENV_STATUS",
    "FRAME_HEADER",
    "FrameHeader",
    "HISTOGRAM_BUCKETS",
    "HISTOGRAM_BYTES",
    "HISTOGRAM_HEAD_WORDS",
    "HISTOGRAM_MAX_BITS",
    "HISTOGRAM_SUB_BITS",
    "JOB",
    "LAYOUT_VERSION",
    "LEARNER_CONTROL",
    "LEARNER_PACE",
    "LEARNER_SIZES",
    "LEARNER_STATUS",
    "LOG_RECORD",
    "Layout",
    "MAGIC",
    "MASTER_COMMIT",
    "MAX_HOLDERS",
    "MasterLayout",
    "PAGE_BYTES",
    "PARAM_BUFFER",
    "PARAM_BUFFER_BITS",
    "PARAM_CLAIM",
    "PARAM_COUNTS",
    "PARAM_NEWEST",
    "PARAM_SIZES",
    "PAYLOAD_SIZES",
    "ParamLayout",
    "PayloadLayout",
    "RING_BEGUN",
    "RING_CONTROL",
    "RING_DONE",
    "RUN_CONTROL",
    "Record",
    "SEGMENT_HEADER",
    "SLOT_CONTROL",
    "SLOT_ENTRY",
    "TRACE_ENV",
    "TRACE_EVENT",
    "TRACE_FIRST_WORKER",
    "TRACE_SUPERVISOR",
    "WORD_BYTES",
    "WORKER_CONTROL",
    "WORKER_HISTOGRAMS",
    "WORKER_HISTOGRAM_DOCS",
    "WORKER_STATUS",
]
