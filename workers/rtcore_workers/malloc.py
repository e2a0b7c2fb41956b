"""Makes glibc keep freed memory for the tensors that each inference and each update allocates."""

from __future__ import annotations

import ctypes

#: From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The largest value that glibc accepts on a 64-bit machine.
_LARGEST_BYTES = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Allocate blocks of up to 32 MB from the heap, and never shrink it. False if the C library cannot do so.

    By default glibc maps new memory for each block of more than 128 kB and unmaps it when it is freed: the kernel then
    clears every intermediate tensor of a network, page by page, each time. Without that an update of a small network
    takes a third less time (docs/performance.md). The price: the process keeps its peak memory.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
