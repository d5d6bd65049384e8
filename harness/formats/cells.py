"""Some cells of a dataset from its official file, without the rest: by ranges of a zip archive that holds the images as they are.

No checksum covers them. What is checked is that the archive's directory, the array's header and the file's length agree with the grid, and
that all parts came from the same version of the file: by what the server calls it, or, if it calls it nothing, by a second look at the end at
the archive's directory, which has the CRC-32 of all images, and at the first part.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import ArrayLike, NDArray

import splits
from harness.formats.catalog import File, info_of
from harness.formats.readers import image_shape
from harness.io.atomic import write_atomically
from harness.io.download import MOST
from harness.io.progress import Bar, progress_bar, size
from harness.io.ranges import RangeFile, Ranges
from harness.io.web import DownloadError
from splits import FactorGrid
from splits.arrays import BadFile, Rows, reading
from splits.errors import InputError

MOST_CELLS = 10_000  # more are better had with the whole file
MEMBER = "images.npy"
CONNECTIONS = 8  # at a time
TOGETHER = 64  # neighbouring images in a request, at most
STRUCTURE = 2**20  # bytes of an archive that are not images
BUFFER = 2**12


@dataclass(frozen=True)
class Cells:
    """Some cells of a dataset.

    Attributes:
        images: (n, R, R, C) uint8.
        indices: (n,) int64, ascending: where they are in the grid.
        factors: (n, F) int64: the indices of their factors' values.
        names: of the factors.
        source: the address, the version as the server calls it, the bytes of the whole file and of what was received.
    """

    images: NDArray[np.uint8]
    indices: NDArray[np.int64]
    factors: NDArray[np.int64]
    names: Sequence[str]
    source: dict[str, str | int | None]

    def save(self, path: Path) -> None:
        """Write them as an .npz file that numpy reads without pickle: images, indices, factors, names, and source as JSON."""
        file = io.BytesIO()
        source = {key: value for key, value in self.source.items() if key != "received"}  # that differs with the connection
        arrays = {"indices": self.indices, "factors": self.factors, "names": np.array(self.names), "source": json.dumps(source)}
        np.savez(file, images=self.images, **arrays)  # type: ignore[arg-type]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())


@dataclass(frozen=True)
class _Place:
    """Where in the file the first image begins, the shape of one, and the CRC-32 of all, as the archive has it."""

    first: int
    shape: tuple[int, int, int]
    crc: int


def check_cells(name: str) -> File:
    """The file from which single cells of a dataset can perhaps be had.

    Raises:
        InputError: for a dataset whose official files are known to have none.
    """
    info = info_of(name)
    if len(info.files) > 1:
        raise InputError(f"{info.title}'s official files are of splits, so that single cells can't be had: leave out `cells`")
    (file,) = info.files
    if not file.name.endswith(".npz"):
        whole = f" ({size(file.size)})" if file.size else ""
        raise InputError(
            f"{file.name} holds its images compressed, so that single cells can't be had: leave out `cells` to get all{whole}"
        )
    return file


def sample_cells(grid: FactorGrid, count: int, seed: int = 0) -> NDArray[np.int64]:
    """The indices of a seeded sample of the grid's cells, (count,) ascending.

    Raises:
        InputError: if there are not so many.
    """
    if not 1 <= count <= len(grid):
        raise InputError(f"{count:,} cells of {len(grid):,}: a number from 1 to {len(grid):,} is expected")
    return np.sort(np.random.default_rng(seed).choice(len(grid), count, replace=False)).astype(np.int64)


def fetch_cells(name: str, indices: ArrayLike, progress: bool = False) -> Cells:
    """Get single cells of a dataset from the address of its official file: some kilobytes for each, instead of all of it.

    Args:
        name: of the dataset, as in `harness.formats.catalog.CATALOG`.
        indices: of the cells in the row-major grid, at most `MOST_CELLS` different ones.
        progress: show how far it is, on stderr.

    Raises:
        ValueError: for an unknown dataset, one whose files are compressed, or too many cells.
        IndexError: for a number that is no cell.
        DownloadError: an OSError; saying of each address why the cells can't be had there: it isn't reached, answers no ranges, has the
            images compressed, or the file changed meanwhile.
    """
    file = check_cells(name)
    grid = splits.load_spec(name).grid
    wanted = np.unique(np.asarray(indices, np.int64))
    factors = grid.factors(wanted)  # or an error, for a number that is no cell
    if not 1 <= len(wanted) <= MOST_CELLS:
        raise InputError(
            f"{len(wanted):,} cells: 1 to {MOST_CELLS:,} are expected; to get more, leave out `cells` and get all of them"
        )
    failures = []
    with progress_bar(f"cells of {name}", "img", len(wanted), shown=progress) as bar:
        for url in file.urls:
            try:
                ranges = Ranges(url, file.most or file.size or MOST)
                place = _locate(ranges, file.name, grid)
                images = _read(ranges, place, wanted, bar)
                if ranges.version is None:
                    _check_unchanged(ranges, file.name, grid, place, wanted, images)
            except (DownloadError, BadFile) as error:
                failures.append(str(error))
                continue
            source = {"url": url, "version": ranges.version, "bytes": ranges.total, "received": ranges.received}
            return Cells(images, wanted, factors, grid.names, source)
    raise DownloadError(f"no cells of {file.name} were had: {'; '.join(failures)}")


def _locate(ranges: Ranges, name: str, grid: FactorGrid) -> _Place:
    """Where in the file the images are."""
    path, raw = Path(name), RangeFile(ranges, STRUCTURE)
    try:
        with reading(path), io.BufferedReader(raw, BUFFER) as file:
            entry = _entry(ranges, file)
            file.seek(entry.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")  # of name and extra field, after which the member begins
            start = entry.header_offset + 30 + int(lengths.sum())
            file.seek(start)
            rows = Rows(file, path)
            rows.require_rows()
            shape = image_shape(path, rows.shape, rows.dtype, grid)
            first = file.tell()
    except BadFile as error:
        raise (raw.failure or error) from None  # zipfile takes any error for the sign of no zip file
    end = start + entry.file_size
    if entry.file_size != entry.compress_size or first + rows.bytes != end or end > ranges.total:
        raise BadFile(f"{ranges.url} is truncated or damaged: {MEMBER} in it is not as long as its header says")
    return _Place(first, shape[1:], entry.CRC)


def _entry(ranges: Ranges, file: IO[bytes]) -> zipfile.ZipInfo:
    """What the archive's directory says of the images."""
    with zipfile.ZipFile(file) as archive:
        if MEMBER not in archive.namelist():
            raise BadFile(f"{ranges.url} has no array images: another kind of file?")
        entry = archive.getinfo(MEMBER)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise DownloadError(
                f"{ranges.url} holds its images compressed, so that single cells can't be had: leave out `cells` to get all of "
                f"it ({size(ranges.total)})"
            )
        archive.open(entry).close()  # looks at the header before the member, whose name has to be the same
    return entry


def _check_unchanged(
    ranges: Ranges, name: str, grid: FactorGrid, place: _Place, wanted: NDArray[np.int64], images: NDArray[np.uint8]
) -> None:
    """Raise DownloadError if the file at a server that doesn't name its version is not the one from which the images came."""
    run = next(_runs(wanted))
    try:
        same = _locate(ranges, name, grid) == place and _part(ranges, place, run) == images[: len(run)].tobytes()
    except BadFile:
        same = False
    if not same:
        raise ranges.changed()


def _read(ranges: Ranges, place: _Place, wanted: NDArray[np.int64], bar: Bar) -> NDArray[np.uint8]:
    """The images (n, R, R, C), neighbours by one request."""
    images = np.empty((len(wanted), *place.shape), np.uint8)
    done = 0
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        runs = [*_runs(wanted)]
        try:
            for run, found in zip(runs, pool.map(partial(_part, ranges, place), runs), strict=True):
                images[done : done + len(run)] = np.frombuffer(found, np.uint8).reshape(len(run), *place.shape)
                done += len(run)
                bar.update(len(run))
        except BaseException:  # Ctrl-C too: the pool's end waits for its threads
            ranges.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return images


def _part(ranges: Ranges, place: _Place, run: range) -> bytes:
    length = math.prod(place.shape)
    return ranges.read(place.first + run.start * length, place.first + run.stop * length)


def _runs(indices: NDArray[np.int64]) -> Iterator[range]:
    """Ascending indices as ranges of neighbours, of at most `TOGETHER`."""
    for _, group in itertools.groupby(enumerate(indices.tolist()), lambda each: each[1] - each[0]):
        cells = [cell for _, cell in group]
        for start in range(cells[0], cells[-1] + 1, TOGETHER):
            yield range(start, min(start + TOGETHER, cells[-1] + 1))
