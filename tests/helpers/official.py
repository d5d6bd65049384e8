"""Small files with exactly the keys, dtypes and order of the official ones, for a grid of one's own."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from harness.formats.convert import convert
from splits import SplitSpec

SIDE = 8
SPEC = """
name = "{name}"
[[factor]]
name = "color"
size = 3
kind = "categorical"
[[factor]]
name = "size"
size = 4
kind = "ordinal"
[[factor]]
name = "x"
size = 5
kind = "ordinal"
[split.extrapolation]
test_if = "any"
held_out = {{ size = [3], x = [4] }}
[split.composition]
test_if = "all"
held_out = {{ size = "2:", x = "2:" }}
[split.random]
test_count_of = "extrapolation"
"""


def small_spec(folder: Path, name: str = "toy") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(SPEC.format(name=name))
    return path


def small_store(folder: Path) -> Path:
    """The folder of a store, "toy", of 60 pictures in shards of 7."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.data.store.SHARD_BYTES", 7 * SIDE * SIDE * 3)
        convert(mpi3d_npz(folder / "real.npz", pictures()), None, folder / "data", small_spec(folder))
    return folder / "data"


def pictures(images: int = 60, channels: int = 3, binary: bool = False, side: int = SIDE) -> np.ndarray:
    """(N, side, side, C) uint8, each image its own."""
    rng = np.random.default_rng(images)
    return rng.integers(0, 2 if binary else 256, (images, side, side, channels), dtype=np.uint8)


def smooth_pictures(images: int = 60) -> np.ndarray:
    """As `pictures`, but along the last factor, of 5 values, they change little."""
    rough = pictures(images // 5).repeat(5, axis=0).astype(np.int64)
    return (rough * 0.9 + 4 * np.arange(images)[:, None, None, None] % 20).astype(np.uint8)


def dsprites_npz(path: Path, spec: SplitSpec, imgs: np.ndarray) -> Path:
    """dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz: imgs (N, R, R) of 0 and 1."""
    classes = np.concatenate([np.zeros((len(spec.grid), 1), np.int64), spec.grid.factors(np.arange(len(spec.grid)))], axis=1)
    metadata = np.array({"title": "dSprites dataset"}, dtype=object)
    np.savez_compressed(path, metadata=metadata, imgs=imgs, latents_classes=classes, latents_values=classes * 0.25)
    return path


def dsprites_hdf5(path: Path, spec: SplitSpec, imgs: np.ndarray) -> Path:
    classes = np.concatenate([np.zeros((len(spec.grid), 1), np.int64), spec.grid.factors(np.arange(len(spec.grid)))], axis=1)
    with h5py.File(path, "w") as file:
        file.create_dataset("imgs", data=imgs, compression="gzip", chunks=(min(16, len(imgs)), *imgs.shape[1:]))
        file.create_dataset("latents/classes", data=classes, compression="gzip")
        file.create_dataset("latents/values", data=classes * 0.25, compression="gzip")
    return path


def shapes3d_h5(path: Path, spec: SplitSpec, images: np.ndarray) -> Path:
    """3dshapes.h5: labels (N, F) float64, the values that the factors stand for."""
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, compression="gzip", chunks=(16, *images.shape[1:]))
        file.create_dataset("labels", data=spec.grid.targets(np.arange(len(spec.grid))) * 60.0 - 30.0)
    return path


def mpi3d_npz(path: Path, images: np.ndarray, sizes: tuple[int, ...] = (), compressed: bool = False) -> Path:
    """real.npz and the others: images alone, flat or with a dimension per factor."""
    (np.savez_compressed if compressed else np.savez)(path, images=images.reshape(*(sizes or images.shape[:1]), *images.shape[1:]))
    return path


def published(folder: Path, spec: SplitSpec, kind: str, images: np.ndarray, name: str, shuffled: bool = False) -> Path:
    """The benchmark's four files of one kind."""
    split = spec.split(kind)
    for side, index in (("train", split.train), ("test", split.test)):
        if shuffled:
            index = np.random.default_rng(1).permutation(index)
        np.savez(folder / f"{name}_{kind}_{side}_images.npz", images[index].transpose(0, 3, 1, 2))
        np.savez(folder / f"{name}_{kind}_{side}_labels.npz", spec.grid.factors(index))
    return folder / f"{name}_{kind}_train_images.npz"
