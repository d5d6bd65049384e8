"""What the machine has and lacks: cores, processor, memory; and a setting of the C library's allocator that suits tensors."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from splits.errors import InputError, shown

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

DEVICES = re.compile(r"cpu|(cuda|mps|xpu)(:\d+)?")
NVIDIA = "0x10de"  # as a vendor of PCI devices
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MOST = 2**30
BEFORE_GLIBC_2_35 = 2**25  # the most that M_MMAP_THRESHOLD took there; refused, it would stay at 128 KiB


def cores() -> int:
    """The number of CPU cores that this process may use; all of them where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpuinfo(name: str) -> str:
    """What Linux says of the first processor under that name, as "model name" or "flags"; "" where the system doesn't say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")


def jobs_of(runs: int, device: str | torch.device, jobs: int | None) -> int:
    """How many runs go at the same time, of so many: `jobs`, or one per core on a CPU, else one; at least one."""
    return min(jobs or (cores() if kind_of(device) == "cpu" else 1), max(runs, 1))


def kind_of(device: str | torch.device) -> str:
    """ "cpu" or "cuda", of "cuda:1" too."""
    return str(device).partition(":")[0]


def checked(device: str | torch.device) -> str:
    """The name of a device, if it can be one; whether this machine has it is seen when it is used.

    Raises:
        InputError: for another name.
    """
    if not DEVICES.fullmatch(str(device)):
        raise InputError(f"unknown device {shown(str(device))}; cpu, cuda, cuda:1, mps or xpu is expected")
    return str(device)


def usable(device: str | torch.device) -> torch.device:
    """The torch device, if this machine has it and torch can use it.

    Raises:
        InputError: if it can't, or there is no such device.
    """
    import torch

    try:
        found = torch.device(device)
        if found.type != "cpu":
            torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {shown(str(device))} is not usable here ({reason}): set `device` to cpu") from error
    return found


def may_have_gpu() -> bool:
    """Whether a look by torch, whose import takes seconds, is worth while: False on Linux where nothing speaks of a GPU."""
    if not sys.platform.startswith("linux"):
        return True
    files = ("nvidiactl", "nvidia0", "nvhost-gpu", "kfd", "dxg")  # NVIDIA's, of its small boards, AMD's, of Windows' Linux
    if any(Path("/dev", file).exists() for file in files) or Path("/proc/driver/nvidia").exists():
        return True
    with contextlib.suppress(OSError):  # NVIDIA's device files may be made only when a program asks for its GPU
        return any(vendor.read_text().strip() == NVIDIA for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"))
    return False


def device_name(device: torch.device) -> str:
    """The name of a GPU; for a CPU "cpu (AMD EPYC, AVX512)"; else the kind of device alone.

    Of a CPU, with the instructions that torch uses there: others add in another order, and so train to other weights. Virtual machines
    of the same name differ in them.
    """
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return device.type
    known = (cpuinfo("model name"), torch.backends.cpu.get_cpu_capability())
    return f"cpu ({', '.join(filter(None, known))})"


def has_bf16(device: str | torch.device) -> bool:
    """Whether the device calculates in bfloat16 itself; emulated, it is many times slower than float32.

    Raises:
        InputError: for a GPU, on a machine without one.
    """
    if kind_of(device) == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InputError("this machine has no GPU to ask for bf16: set train.precision=bf16 for theirs, or fp32 (`overrides`)")
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind_of(device) == "cpu" and not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpuinfo("flags").split())


def warn_if_bf16_is_slow(device: str | torch.device) -> None:
    """Say so in one line if bfloat16 is wanted of a processor that is known to have none.

    On one without it, an AMD EPYC with AVX2, CelebGlow's decoding made 26 images a second in bfloat16 and 468 in float32.
    """
    if kind_of(device) == "cpu" and cpuinfo("flags") and not has_bf16(device):
        logger.warning("bf16 is slow here: this CPU has no instructions for it; on a similar one, fp32 was 18 times as fast")


# What torch, oneDNN and the loader of libraries say, and what it means.
_LACKS = {
    r"could not create a primitive(?! descriptor)|(cannot|can't) allocate memory|(cuda )?out of memory|not enough memory|bad_alloc|"
    r"failed to map segment from shared object(?!: operation not permitted)": "there is not enough memory",
    "failed to initialize cpuinfo": "torch needs /proc and /sys, to know the processor, and does not find them",
}


def lacking(error: BaseException) -> str | None:
    """What the machine lacks, where that is what an error means, or one that led to it; None if it means something else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "there is not enough memory"
        for pattern, meaning in _LACKS.items():
            if isinstance(cause, RuntimeError | ImportError | OSError) and (found := re.search(pattern, str(cause), re.IGNORECASE)):
                return f"{meaning} ({found[0]})"
        cause = cause.__cause__ or cause.__context__
    return None


@functools.cache
def source_commit() -> str:
    """The commit of the checkout that this code runs from, with "+changes" if files differ from it; "" where it is no checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    import subprocess  # not for every command

    try:
        said = [
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "-s", "-uno"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return said[0] + ("+changes" if said[1] else "")


def keep_freed_memory() -> None:
    """Tell glibc to reuse the memory of freed tensors instead of returning it to the system; elsewhere, nothing.

    Fresh pages for every activation took 15 % of a flow's decoding, and up to a third of a small network's training. It is for the whole
    process: for programs to call, not for libraries.
    """
    import ctypes  # not for every command

    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if libc.mallopt(M_MMAP_THRESHOLD, MOST) or libc.mallopt(M_MMAP_THRESHOLD, BEFORE_GLIBC_2_35):
            libc.mallopt(M_TRIM_THRESHOLD, MOST)
