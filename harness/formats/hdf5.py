"""Datasets of an HDF5 file, and of that file alone: what it says of them is looked at before anything is read.

HDF5 follows links into other files, reads raw data from them and composes arrays of theirs, as the file says. And it unpacks whatever a
chunk holds, however much it is.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import h5py

from splits.arrays import MOST_DEFLATED, BadFile, require_regular
from splits.errors import shown

CHUNK_CACHE = 2**28  # bytes; chunks go across thousands of images, and are unpacked once then. No chunk may be larger
DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000  # filters, by their registered numbers
MOST_LINKS = 10  # soft ones, one after the other


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, for reading.

    Raises:
        BadFile: for whatever h5py finds wrong with it while it is open.
    """
    require_regular(path)
    try:
        with h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE, rdcc_nslots=100_003) as file:
            yield file
    except BadFile:
        raise
    # h5py's for truncated files, damaged chunks and damaged descriptions of an array
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, zlib.error) as error:
        raise BadFile(f"{path} is truncated or damaged: {' '.join(str(error).split())}; get it anew") from None


def dataset(file: Any, key: str) -> Any:
    """The dataset at the path `key` of an open file, or None if there is none.

    Raises:
        BadFile: naming it, if it lies in another file, or its chunks hold more than they may.
    """
    found = _own(file, key)
    if not isinstance(found, h5py.Dataset):
        return None
    if found.is_virtual or found.external:
        what = "a virtual dataset" if found.is_virtual else f"stored in {shown(PurePath(found.external[0][0]).name)}"
        raise BadFile(f"{file.filename}: {key} is {what}; arrays of the file itself are expected")
    if found.shape is None:
        raise BadFile(f"{file.filename}: {key} holds nothing where an array is expected")
    if found.nbytes > found.id.get_storage_size() * MOST_DEFLATED:
        raise BadFile(f"{file.filename}: {key} claims {found.nbytes:,} bytes, more than the file can hold")
    if found.chunks is not None:
        _check_chunks(file, key, found)
    return found


def _own(file: Any, key: str) -> Any:
    """What lies at a path, by links within the file; None if there is nothing."""
    node, left, soft = file, key.split("/"), 0
    while left:
        link = node.get(left[0], getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.SoftLink) and soft < MOST_LINKS:
            soft += 1
            node = file if link.path.startswith("/") else node
            left = [part for part in link.path.split("/") if part not in ("", ".")] + left[1:]
        elif isinstance(link, h5py.HardLink):
            node, left = node[left[0]], left[1:]
        elif link is None:
            return None
        else:
            where = (
                f"a link into {shown(PurePath(link.filename).name)}"
                if isinstance(link, h5py.ExternalLink)
                else "a link that ends nowhere"
            )
            raise BadFile(f"{file.filename}: {key} is {where}; arrays of the file itself are expected")
    return node


def _check_chunks(file: Any, key: str, found: Any) -> None:
    """Raise if the chunks are larger than there is room for, packed by a plugin, or, unpacked, more than they say."""
    size = math.prod(found.chunks) * found.dtype.itemsize
    if size > CHUNK_CACHE:
        raise BadFile(f"{file.filename}: {key} is in chunks of {size:,} bytes; at most {CHUNK_CACHE:,} are expected")
    settings = found.id.get_create_plist()
    filters = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
    if unknown := set(filters) - {DEFLATE, SHUFFLE, FLETCHER32, LZF}:
        raise BadFile(f"{file.filename}: {key} is packed by the HDF5 filter {min(unknown)}; gzip is expected")
    if DEFLATE not in filters:
        return
    suspects: list[tuple[int, ...]] = []  # that could be more, by their size in the file: zlib says
    found.id.chunk_iter(lambda chunk: suspects.append(chunk.chunk_offset) if chunk.size * MOST_DEFLATED > CHUNK_CACHE else None)
    for offset in suspects:
        skipped, packed = found.id.read_direct_chunk(offset)
        if not skipped and len(zlib.decompressobj().decompress(packed, size + 1)) > size:
            raise BadFile(f"{file.filename}: a chunk of {key} holds more than the {size:,} bytes that it may: damaged?")
