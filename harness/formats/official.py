"""A store in the layout of its dataset's official file, for other code that reads that: disentanglement_lib, TFDS, disent and many more.

The keys, types, shapes and order are the official file's, its bytes are not: it was packed by other programs.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, BinaryIO

import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.data.dataset import spec_of
from harness.data.store import Store
from splits import DATASETS, FactorGrid, load_spec
from splits.errors import InputError
from splits.vocabulary import VARIANTS

Images = NDArray[np.uint8]

CHUNK = 256  # images in a chunk of HDF5
# What the indices of each factor stand for. Of dSprites: README of google-deepmind/dsprites-dataset. Of 3D Shapes: as the readers of the
# file have them (three that are independent agree); the README of google-deepmind/3d-shapes says [0, 1] for hues and scale.
DSPRITES_VALUES = {
    "color": np.ones(1),
    "shape": np.arange(1.0, 4.0),
    "scale": np.linspace(0.5, 1, 6),
    "orientation": np.linspace(0, 2 * math.pi, 40),
    "posX": np.linspace(0, 1, 32),
    "posY": np.linspace(0, 1, 32),
}
_HUES = np.arange(10) / 10
SHAPES3D_VALUES = (_HUES, _HUES, _HUES, np.linspace(0.75, 1.25, 8), np.arange(4.0), np.linspace(-30, 30, 15))
_DSPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"


def files_of(store: Store) -> list[str]:
    """The official files' names.

    Raises:
        InputError: for a dataset without one, or of another grid.
    """
    family = VARIANTS.get(store.name, store.name)
    if family not in _FILES:
        raise InputError(f"{store.name} has no official layout; dsprites, shapes3d and mpi3d have: choose another layout")
    if store.name not in DATASETS or spec_of(store).grid.sizes != load_spec(store.name).grid.sizes:
        sizes = " × ".join(map(str, load_spec(family).grid.sizes))
        raise InputError(f"{store.name} is of another grid than the official {family} ({sizes}): choose another layout")
    return [name.format(variant=store.name.removeprefix("mpi3d").removeprefix("_") or "real") for name in _FILES[family]]


def write(store: Store, blocks: Iterator[tuple[int, Images]], files: Sequence[BinaryIO]) -> Iterator[int]:
    """Write the images, a block at a time, into the files of `files_of`; yields the images of each block that is written."""
    grid = spec_of(store).grid
    yield from _WRITERS[VARIANTS.get(store.name, store.name)](store, grid, blocks, files)


def dsprites_labels(grid: FactorGrid) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N, 6) classes and values, with the one colour before the factors."""
    classes = grid.factors(np.arange(len(grid)))
    classes = np.concatenate([np.zeros((len(grid), 1), np.int64), classes], axis=1)
    values = np.stack([known[column] for known, column in zip(DSPRITES_VALUES.values(), classes.T, strict=True)], axis=1)
    return classes, values


@contextlib.contextmanager
def member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """The array `name` of an .npz, to write its .npy to."""
    info = zipfile.ZipInfo(f"{name}.npy")  # without the time, so that the same images are the same file
    info.compress_type = archive.compression
    with archive.open(info, "w", force_zip64=True) as stream:
        yield stream


def _write_dsprites(
    store: Store, grid: FactorGrid, blocks: Iterator[tuple[int, Images]], files: Sequence[BinaryIO]
) -> Iterator[int]:
    npz, hdf5 = files
    classes, values = dsprites_labels(grid)
    metadata: dict[str, Any] = {
        "title": "dSprites dataset",
        "description": "The images of a store of ood-data, in the layout of dSprites.",
        "latents_names": tuple(DSPRITES_VALUES),
        "latents_possible_values": DSPRITES_VALUES,
        "latents_sizes": np.array([len(known) for known in DSPRITES_VALUES.values()]),
    }
    shape = (len(store), *store.images.shape[1:3])
    with zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED) as archive, _h5(hdf5) as file:
        with member(archive, "metadata") as stream:
            npy.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
            stream.write(_pickled(np.array(metadata, dtype=object)))
        for name, labels in (("classes", classes), ("values", values)):
            with member(archive, f"latents_{name}") as stream:
                npy.write_array(stream, labels)
            file.create_dataset(f"latents/{name}", data=labels, compression="gzip", chunks=_chunks(labels.shape))
        images = file.create_dataset("imgs", shape, np.uint8, chunks=_chunks(shape), compression="gzip", compression_opts=4)
        with member(archive, "imgs") as stream:
            _header(stream, shape)
            for start, block in blocks:
                bits = (block // 255).squeeze(3)
                stream.write(bits.tobytes())
                images[start : start + len(bits)] = bits
                yield len(bits)


def _pickled(array: NDArray[Any]) -> bytes:
    """A pickle that older numpy reads, too: it has no numpy._core, and numpy 2 knows its former name."""
    return pickle.dumps(array, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def _write_shapes3d(
    store: Store, grid: FactorGrid, blocks: Iterator[tuple[int, Images]], files: Sequence[BinaryIO]
) -> Iterator[int]:
    factors = grid.factors(np.arange(len(grid)))
    labels = np.stack([known[column] for known, column in zip(SHAPES3D_VALUES, factors.T, strict=True)], axis=1)
    with _h5(files[0]) as file:
        file.create_dataset("labels", data=labels)
        shape = store.images.shape
        images = file.create_dataset("images", shape, np.uint8, chunks=_chunks(shape), compression="gzip", compression_opts=4)
        for start, block in blocks:
            images[start : start + len(block)] = block
            yield len(block)


def _write_mpi3d(store: Store, grid: FactorGrid, blocks: Iterator[tuple[int, Images]], files: Sequence[BinaryIO]) -> Iterator[int]:
    method = zipfile.ZIP_DEFLATED if store.compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(files[0], "w", method) as archive, member(archive, "images") as stream:
        _header(stream, store.images.shape)
        for _, block in blocks:
            stream.write(block.tobytes())
            yield len(block)


def _h5(file: BinaryIO) -> Any:
    return h5py.File(file, "w", libver="earliest")  # without times: the same images are the same file


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (min(CHUNK, shape[0]), *shape[1:])


def _header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))})


_FILES = {
    "dsprites": (f"{_DSPRITES}.npz", f"{_DSPRITES}.hdf5"),
    "shapes3d": ("3dshapes.h5",),
    "mpi3d": ("mpi3d_{variant}.npz",),
    "mpi3d_complex": ("mpi3d_real_complex.npz",),
}
_WRITERS = {"dsprites": _write_dsprites, "shapes3d": _write_shapes3d, "mpi3d": _write_mpi3d, "mpi3d_complex": _write_mpi3d}
