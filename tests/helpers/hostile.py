"""Files that lie: headers that claim what isn't there, archives that unpack to far more than they are."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def npy_header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """The beginning of an .npy file of such an array."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zeros(size: int) -> Iterable[bytes]:
    """So many zero bytes, in pieces."""
    piece = bytes(2**20)
    for start in range(0, size, len(piece)):
        yield piece[: size - start]


def npz(path: Path, members: Mapping[str, Iterable[bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of such members, each given in pieces."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, pieces in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)
    return path


def png(width: int, height: int) -> bytes:
    """A black picture of any size, one bit per pixel, in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def peak_of(call: Callable[..., Any], *arguments: Any) -> int:
    """The most bytes that Python and numpy held while it ran, whatever ValueError or OSError it raises."""
    tracemalloc.start()
    try:
        call(*arguments)
    except (ValueError, OSError):
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak
