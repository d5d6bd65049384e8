"""What the machine has: cores for this process, its processor; the C library's allocator, told what tensors need."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MOST = 2**30
BEFORE_GLIBC_2_35 = 2**25  # the most that M_MMAP_THRESHOLD took there; refused, it would stay at 128 KiB


def cores() -> int:
    """That this process may use; all, where the system doesn't say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpuinfo(name: str) -> str:
    """What Linux says of the first processor under that name, as "model name" or "flags"; "" where the system doesn't say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")


def device_name(device: torch.device) -> str:
    """Of a GPU its own; "cpu (AMD EPYC)"; else the kind of device alone."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name(device))
    name = cpuinfo("model name") if device.type == "cpu" else ""
    return f"{device.type} ({name})" if name else device.type


def has_bf16(device: torch.device) -> bool:
    """Whether the device calculates in bfloat16 itself; emulated, it is many times slower than float32."""
    if device.type == "cuda":
        import torch

        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpuinfo("flags").split())


def keep_freed_memory() -> None:
    """Tell glibc to reuse the memory of freed tensors instead of returning it to the system; elsewhere, nothing.

    Fresh pages for every activation took 15 % of a flow's decoding, and up to a third of a small network's training. It is for the whole
    process: for programs to call, not for libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if libc.mallopt(M_MMAP_THRESHOLD, MOST) or libc.mallopt(M_MMAP_THRESHOLD, BEFORE_GLIBC_2_35):
            libc.mallopt(M_TRIM_THRESHOLD, MOST)
