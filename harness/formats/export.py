"""A store and a split for other code: the benchmark's published .npz layout, or pictures and a table.

An export that was killed, or had no room, is finished by the same command: what is there and right stays, and the end is the bytes of an
unbroken run.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

import splits
from harness.data.dataset import spec_of
from harness.data.store import Store
from harness.formats import official, parquet, webdataset
from harness.formats.beside import METADATA, SIDES, TABLE, describe, documents
from harness.formats.claim import LOCK, claimed
from harness.formats.official import member
from harness.io.atomic import check_writable
from harness.io.locks import is_held, locked
from harness.io.pictures import png
from harness.io.progress import Bar, progress_bar
from harness.io.replacing import partial_of, replacing
from splits import KINDS, Split
from splits.errors import InputError, did_you_mean
from splits.published import published_files

logger = logging.getLogger(__name__)

OFFICIAL = "official"
PICTURE = ".picture.partial"
# As `replacing` names them.
_PARTIAL = re.compile(
    r"\.(labels\.csv|metadata\.csv|(train|test)-.+\.(parquet|tar)|.+_(train|test)_(images|labels)\.npz"
    r"|dsprites_ndarray_.+\.(npz|hdf5)|3dshapes\.h5|mpi3d_\w+\.npz)\.partial"
)


def export(root: str | Path, dataset: str, kind: str | None, layout: str, out: str | Path, progress: bool = False) -> list[Path]:
    """Write a store's images and labels by its split of that kind, or all together in the official layout.

    Args:
        root: folder of the stores.
        dataset: its name.
        kind: random, composition, interpolation or extrapolation; of the official layout, which has no sides, None.
        layout: "benchmark": `{dataset}_{kind}_{train,test}_{images,labels}.npz`, one array `arr_0` each, images (n, C, R, R)
            uint8 and labels (n, F) int64 factor indices, in the order of the grid. "png": a picture per image in `train/` and
            `test/`, and labels.csv with `file`, `side` and a column of indices per factor, which `convert` reads; and in
            both folders a metadata.csv with `file_name` and the factors, as Hugging Face's imagefolder wants it. "parquet": a
            folder per kind, and README.md, for `datasets.load_dataset(out, kind)` (`harness.formats.parquet`). "webdataset": a
            folder per kind with tar files (`harness.formats.webdataset`). "official": the
            layout in which the dataset's authors publish it (`harness.formats.official`). Beside each,
            `{dataset}.toml` has grid and splits, for `convert` and `splits.load_spec`; `{dataset}.md` is the card, and
            `{dataset}.croissant.json` says to programs what there is (`harness.formats.croissant`).
        out: folder of the files; made if it isn't there.
        progress: show how far it is, on stderr.

    Returns:
        the files for users to load; of pictures, the table.

    Raises:
        ValueError: for an unknown layout or kind, or a kind that the dataset can't have; if files are there that no export of this grid wrote;
            if pictures and parquet or tar files would come into one folder.
        FileNotFoundError: if there is no such store.
        BlockingIOError: if another process is writing the same files.
        OSError: if they cannot be written; the .npz files are there whole or not at all, the table only after all pictures.
    """
    if layout not in (*_LAYOUTS, OFFICIAL):
        raise InputError(f"unknown layout {layout!r}{did_you_mean(layout, (*_LAYOUTS, OFFICIAL))}")
    if (layout == OFFICIAL) != (kind is None):
        raise InputError(
            "the official layout has no kinds of split" if kind else f"which kind of split is to be exported as {layout}?"
        )
    store = Store(root, dataset)
    split = spec_of(store).split(kind) if kind is not None else None
    if layout == "parquet":
        parquet.schema(spec_of(store).grid)  # before anything is made, as it may lack pyarrow
    out = Path(out)
    paths = [out / name for name in (official.files_of(store) if split is None else _LAYOUTS[layout][0](store, split))]
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with locked(out / LOCK):  # so that no file is taken for a left-over before its process has locked it
            _sweep(out)
            stack.enter_context(claimed(out, store, [*paths, *(out / name for name in documents(store, layout))]))
            for path in paths:
                path.parent.mkdir(exist_ok=True)
            files = [stack.enter_context(replacing(path)) for path in paths]
        with progress_bar(f"export {dataset}", "img", len(store), shown=progress) as bar:
            if split is None:
                for count in official.write(store, _blocks(store), files):
                    bar.update(count)
            else:
                _LAYOUTS[layout][1](store, split, out, files, bar)
    with locked(out / LOCK):
        describe(out, store, layout)
    if dataset in splits.DATASETS and spec_of(store).grid.sizes != splits.load_spec(dataset).grid.sizes:
        logger.warning(
            "code that was written for %s takes these files for its whole grid, and scores them wrong: the grid is in %s",
            dataset,
            out / f"{dataset}.toml",
        )
    return [path for path in paths if path.name != METADATA]


def _sweep(out: Path) -> None:
    """Remove what exports that died have left in a folder; what a process holds is that of a living one."""
    for path in (*out.iterdir(), *(path for folder in (*SIDES, *KINDS) for path in out.glob(f"{folder}/.*.partial"))):
        holder = partial_of(out / TABLE) if path.name == PICTURE else path
        if (path.name == PICTURE or _PARTIAL.fullmatch(path.name)) and not is_held(holder):
            path.unlink(missing_ok=True)


def _write_published(store: Store, split: Split, out: Path, files: Sequence[BinaryIO], bar: Bar) -> None:
    _, side_length, _, channels = store.images.shape
    # Deflating photographs takes minutes and saves little; numpy.load reads both.
    method = zipfile.ZIP_DEFLATED if store.compressed else zipfile.ZIP_STORED
    with contextlib.ExitStack() as stack:
        members: dict[bool, IO[bytes]] = {}
        for is_test, (pictures, table) in ((False, files[:2]), (True, files[2:])):
            labels = split.grid.factors(split.test if is_test else split.train)
            np.savez_compressed(table, labels)
            archive = stack.enter_context(zipfile.ZipFile(pictures, "w", method))
            members[is_test] = stack.enter_context(member(archive, "arr_0"))
            npy.write_array_header_1_0(
                members[is_test],
                {"descr": "|u1", "fortran_order": False, "shape": (len(labels), channels, side_length, side_length)},
            )
        for start, images in _blocks(store):
            mask = split.mask[start : start + len(images)]
            for is_test, stream in members.items():
                stream.write(images[mask == is_test].transpose(0, 3, 1, 2).tobytes())
            bar.update(len(images))


def _write_pictures(store: Store, split: Split, out: Path, files: Sequence[BinaryIO], bar: Bar) -> None:
    clash = {"file", "side"} & set(split.grid.names)
    if clash:
        raise InputError(f"in {TABLE}, {', '.join(sorted(clash))} is a column of its own and can't be a factor's")
    digits = len(str(len(store) - 1))
    for side, is_test in zip(SIDES, (False, True), strict=True):
        for path in (out / side).iterdir():  # of another split, they would put test images among those of train
            if path.name in (METADATA, partial_of(path.with_name(METADATA)).name):
                continue
            index = int(path.stem) if re.fullmatch(rf"\d{{{digits}}}\.png", path.name) else len(store)
            if index >= len(store) or split.mask[index] != is_test:
                raise _Others(path)
    table, *metadata = files
    table.write(_rows([["file", "side", *split.grid.names]]))
    for file in metadata:
        file.write(_rows([["file_name", *split.grid.names]]))
    for start, images in _blocks(store):
        lines: list[list[object]] = []
        indices = np.arange(start, start + len(images))
        for index, image, factors in zip(indices.tolist(), images, split.grid.factors(indices), strict=True):
            side = "test" if split.mask[index] else "train"
            name = f"{side}/{index:0{digits}d}.png"
            pixels = image.squeeze(2) if image.shape[2] == 1 else image
            if not _shows(out / name, pixels):
                (out / TABLE).unlink(missing_ok=True)  # of a finished export that lost pictures: it says that all are there
                _save(pixels, out / name, out / PICTURE)
            lines.append([name, side, *factors.tolist()])
        table.write(_rows(lines))
        for side, file in zip(SIDES, metadata, strict=True):
            file.write(_rows([Path(str(name)).name, *factors] for name, where, *factors in lines if where == side))
        bar.update(len(images))


def _write_parquet(store: Store, split: Split, out: Path, files: Sequence[BinaryIO], bar: Bar) -> None:
    for count in parquet.write(split, _blocks(store), files):
        bar.update(count)


def _write_webdataset(store: Store, split: Split, out: Path, files: Sequence[BinaryIO], bar: Bar) -> None:
    for count in webdataset.write(store, split, _blocks(store), files):
        bar.update(count)


def _rows(lines: Iterable[Iterable[object]]) -> bytes:
    """Lines of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


def _shows(path: Path, pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture is there; what can't be read is not, and one of something else is not ours to replace."""
    try:
        with Image.open(path) as picture:
            same = picture.size == pixels.shape[1::-1] and np.array_equal(np.asarray(picture), pixels)
    except Image.DecompressionBombError:
        same = False
    except (OSError, SyntaxError, ValueError):  # not there, or cut by a power failure: pictures are not synced one by one
        return False
    if not same:
        raise _Others(path)
    return True


def _save(pixels: NDArray[np.uint8], path: Path, partial: Path) -> None:
    """Write a picture, whole or not at all."""
    encoded = png(Image.fromarray(pixels))
    try:
        partial.write_bytes(encoded)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


class _Others(InputError):
    """Pictures that another export has written."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path.parent} holds pictures already: choose another `out`, or delete it ({path.name} is not from this export)"
        )


def _blocks(store: Store) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The images, a shard at a time, and where each begins."""
    for start in range(0, len(store), store.rows):
        yield start, store.read(start, min(start + store.rows, len(store)))


_Names = Callable[[Store, Split], Sequence[str]]
_Write = Callable[[Store, Split, Path, Sequence[BinaryIO], Bar], None]
_LAYOUTS: dict[str, tuple[_Names, _Write]] = {
    "benchmark": (lambda store, split: published_files(split), _write_published),
    "parquet": (lambda store, split: parquet.files_of(split), _write_parquet),
    "webdataset": (webdataset.files_of, _write_webdataset),
    "png": (lambda store, split: [TABLE, *(f"{side}/{METADATA}" for side in SIDES)], _write_pictures),
}
