"""Every shared struct, with explicit offsets. Nothing else knows an offset.

Five POSIX shared-memory segments per run, `/rtcore-<run id>-<part>`, little endian, one more if it is
traced, one more if its policy has a network, one more per GPU whose workers share that network's weights, and one more
if its policy takes or gives more than frame and action:

    control      header | run control | env status | env stats | per worker: control, status, job, stats | per 32
                 workers: posted jobs
    slots        per worker, and of who may step in: publication word | two entries, each a SLOT_ENTRY and `chunk`
                 actions
    ring         RING_CONTROL | frame headers (FRAME_HEADER + applied action) | frames
    log          RING_CONTROL | LOG_RECORDs: one per resolved job
    description  RING_CONTROL | two texts (DESCRIPTION_HEAD and JSON): what the run consists of, for those that attach
    trace        per process (env, supervisor, workers): RING_CONTROL | TRACE_EVENTs
    params       header | sizes | newest | counts | buffer heads | claims | manifest (JSON) | weight buffers
    holder0      the same without manifest and buffers, which are in the memory of the first GPU; and so on per GPU
    payload      header | sizes | manifest (JSON) | per worker: context, two payloads | per ring slot: kept block |
                 RING_CONTROL, two tasks

Each field has one writer, each cache line one writing process. Fields are 8 bytes wide and 8-byte aligned, so
that every load and store is atomic. A test pins every offset; changing one bumps `LAYOUT_VERSION`.
"""

from __future__ import annotations

# Whatever these define belongs to the layout.
from rtcore.memory.layout.offsets import *  # noqa: F403
from rtcore.memory.layout.payload import *  # noqa: F403
from rtcore.memory.layout.record_type import *  # noqa: F403
from rtcore.memory.layout.records import *  # noqa: F403
from rtcore.memory.layout.weights import *  # noqa: F403
