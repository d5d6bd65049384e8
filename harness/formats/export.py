"""A store and a split for other code: the benchmark's published .npz layout, or pictures and a table."""

from __future__ import annotations

import contextlib
import csv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from harness.data.store import Store
from harness.io.progress import Bar, progress_bar
from splits import Split, spec_from_dict
from splits.errors import InputError, did_you_mean
from splits.export import replacing
from splits.published import labels_file


def export(root: str | Path, dataset: str, kind: str, layout: str, out: str | Path, progress: bool = False) -> list[Path]:
    """Write a store's images and labels by its split of that kind.

    Args:
        root: folder of the stores.
        dataset: its name.
        kind: random, composition, interpolation or extrapolation.
        layout: "benchmark": ``{dataset}_{kind}_{train,test}_{images,labels}.npz``, one array ``arr_0`` each, images (n, C, R, R)
            uint8 and labels (n, F) int64 factor indices, in the order of the grid. "png": a picture per image in ``train/`` and
            ``test/``, and labels.csv with ``file``, ``side`` and a column of indices per factor, which `convert` reads.
        out: folder of the files; made if it isn't there.
        progress: show how far it is, on stderr.

    Returns:
        the files for users to load; of pictures, the table.

    Raises:
        ValueError: for an unknown layout or kind, or a kind that the dataset can't have; for pictures, if some are there already.
        FileNotFoundError: if there is no such store.
        OSError: if they cannot be written; the .npz files are there whole or not at all, the table only after all pictures.
    """
    if layout not in _LAYOUTS:
        raise InputError(f"unknown layout {layout!r}{did_you_mean(layout, _LAYOUTS)}")
    store = Store(root, dataset)
    split = spec_from_dict(store.spec).split(kind)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar(f"export {dataset}", "img", len(store), shown=progress) as bar:
        return _LAYOUTS[layout](store, split, out, bar)


def _benchmark(store: Store, split: Split, out: Path, bar: Bar) -> list[Path]:
    _, side_length, _, channels = store.images.shape
    written = []
    # Deflating photographs takes minutes and saves little; numpy.load reads both.
    method = zipfile.ZIP_DEFLATED if store.compressed else zipfile.ZIP_STORED
    with contextlib.ExitStack() as stack:
        files: dict[bool, IO[bytes]] = {}
        for side, is_test in (("train", False), ("test", True)):
            labels = split.grid.factors(split.test if is_test else split.train)
            path = out / labels_file(split, side)
            np.savez_compressed(stack.enter_context(replacing(path)), labels)  # in place with the images, or not at all
            images = path.with_name(path.name.replace("_labels.npz", "_images.npz"))
            member = stack.enter_context(_member(images, method))
            npy.write_array_header_1_0(
                member,
                {"descr": "|u1", "fortran_order": False, "shape": (len(labels), channels, side_length, side_length)},
            )
            files[is_test] = member
            written += [images, path]
        for start, images_of_block in _blocks(store):
            mask = split.mask[start : start + len(images_of_block)]
            for is_test, member in files.items():
                member.write(images_of_block[mask == is_test].transpose(0, 3, 1, 2).tobytes())
            bar.update(len(images_of_block))
    return written


@contextlib.contextmanager
def _member(path: Path, method: int) -> Iterator[IO[bytes]]:
    """The array ``arr_0`` of an .npz, to write to."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", method, compresslevel=1) as archive:
        info = zipfile.ZipInfo("arr_0.npy")  # without the time, so that the same images are the same file
        info.compress_type = method
        with archive.open(info, "w", force_zip64=True) as member:
            yield member


def _png(store: Store, split: Split, out: Path, bar: Bar) -> list[Path]:
    clash = {"file", "side"} & set(split.grid.names)
    if clash:
        raise InputError(f"in labels.csv, {', '.join(sorted(clash))} is a column of its own and can't be a factor's")
    table, digits = out / "labels.csv", len(str(len(store) - 1))
    for folder in (out / "train", out / "test"):
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):  # of another split, they would put test images among those of train
            raise InputError(f"{folder} holds pictures already: choose another folder, or delete it")
    with replacing(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "side", *split.grid.names])
        for start, images in _blocks(store):
            factors = split.grid.factors(np.arange(start, start + len(images)))
            for offset, (image, row) in enumerate(zip(images, factors, strict=True)):
                side = "test" if split.mask[start + offset] else "train"
                name = f"{side}/{start + offset:0{digits}d}.png"
                Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(out / name)
                writer.writerow([name, side, *row.tolist()])
            bar.update(len(images))
    return [table]


def _blocks(store: Store) -> Iterator[tuple[int, np.ndarray]]:
    """The images, a shard at a time, and where each begins."""
    for start in range(0, len(store), store.rows):
        yield start, store.read(start, min(start + store.rows, len(store)))


_LAYOUTS = {"benchmark": _benchmark, "png": _png}
