"""What the machine has: cores for this process; the C library's allocator, told what tensors need."""

from __future__ import annotations

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MOST = 2**30
BEFORE_GLIBC_2_35 = 2**25  # the most that M_MMAP_THRESHOLD took there; refused, it would stay at 128 KiB


def cores() -> int:
    """That this process may use; all, where the system doesn't say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Tell glibc to reuse the memory of freed tensors instead of returning it to the system; elsewhere, nothing.

    Fresh pages for every activation took 15 % of a flow's decoding, and up to a third of a small network's training. It is for the whole
    process: for programs to call, not for libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if libc.mallopt(M_MMAP_THRESHOLD, MOST) or libc.mallopt(M_MMAP_THRESHOLD, BEFORE_GLIBC_2_35):
            libc.mallopt(M_TRIM_THRESHOLD, MOST)
