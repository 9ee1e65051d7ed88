"""What glibc's allocator does with memory that was freed; other allocators are left alone."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, as the workers that train do (`harness.engines.local`).

    Otherwise blocks are given back and mapped again page by page, in some cases and not in others: in how many is
    decided by what lies beside them. Threads wait for each other meanwhile.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change is not None:
        for threshold in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            change(threshold, _NEVER)


def return_freed_memory() -> None:
    """Hand back what is kept of what was freed before."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
