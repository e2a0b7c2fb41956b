"""How the C library keeps memory for the tensors that every inference and every update makes anew."""

from __future__ import annotations

import ctypes

#: From <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The most that glibc takes on a 64-bit machine.
_LARGEST_BYTES = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Have blocks of up to 32 MB come from the heap, and the heap not shrink. False where the C library cannot.

    By default glibc maps a block of more than 128 kB anew and gives it back when it is freed: each intermediate
    tensor of a network is then cleared by the kernel, page by page, every time. Without that an update of a small
    network takes a third less (docs/performance.md). Costs the process the most it ever used at once.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
