"""What is known about pictures, from a table: CelebA's list of attributes as it is downloaded, or any CSV with a header."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.io.tables import csv_rows, lines
from splits.arrays import require_regular
from splits.errors import InputError, did_you_mean, how_many, shown

Columns = dict[str, NDArray[Any]]
FILE_COLUMNS = ("image_id", "file")  # of CelebA's CSV, and of what `data export` writes
MOST_ENTRIES = 20_000_000  # of a table: CelebA's has 8.3 million
SIGNS = ({-1.0, 1.0}, {0.0, 1.0})  # no and yes


def read_labels(path: Path, files: Sequence[str], count: int) -> Columns:
    """The columns of a table, a value per image: numbers (empty: NaN) where every entry is one, else text.

    Rows are found by the names of the images' files where the table has them, else they are in the images' order.

    Args:
        path: CelebA's `list_attr_celeba.txt` or `.csv`, where every value is -1 or 1 (or 0 or 1), or another CSV. Names of files
            are in its column `file` or `image_id`.
        files: the images' files, relative to their folder; none for an array file.
        count: of the images.

    Raises:
        ValueError: if it is damaged, or not of these images.
    """
    table = dict(_read_list(path) if path.suffix.lower() == ".txt" else _read_csv(path))
    key = next((name for name in FILE_COLUMNS if name in table), None) if files else None
    rows = len(next(iter(table.values()), ()))
    if key is None and rows != count:
        raise InputError(f"{path} has {how_many(rows, 'row')} for {how_many(count, 'image')}")
    order = None if key is None else _rows(path, table.pop(key), files)
    columns = {}
    for name, entries in table.items():
        values = _values(entries)
        if key == "image_id" and (values.dtype.kind != "f" or not any(sign.issuperset(values) for sign in SIGNS)):
            odd = next((entry for entry in entries if entry not in ("-1", "0", "1")), "0 beside -1")
            raise InputError(f"{path}: {name} is {odd!r} somewhere, where CelebA's attributes are -1 or 1 (or 0 or 1)")
        columns[name] = values if order is None else values[order]
    return columns


def column(columns: Columns, name: str) -> NDArray[Any]:
    """The column of that name.

    Raises:
        ValueError: if there is none; names the close matches.
    """
    if name not in columns:
        raise InputError(f"no column {name!r}{did_you_mean(name, list(columns)) or '; there is none at all, without `labels`'}")
    return columns[name]


def _read_list(path: Path) -> Iterator[tuple[str, list[str]]]:
    """CelebA's own format: the number of images, the attributes' names, a row per image with its file's name."""
    require_regular(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        text = lines(file, path)
        first, names = next(text, "").strip(), next(text, "").split()
        if not first.isdecimal() or len(first) > 20 or not names:
            raise InputError(
                f"{path} is not CelebA's list of attributes: it has to begin with a number of images and a line of names"
            )
        header = [FILE_COLUMNS[0], *names]
        columns = _columns(path, header, (line.split() for line in text if line.strip()), first_line=3)
    if len(columns[0]) != int(first):
        raise InputError(
            f"{path} announces {how_many(int(first), 'image')} and has {how_many(len(columns[0]), 'row')}: it is cut off or damaged"
        )
    yield from zip(header, columns, strict=True)


def _read_csv(path: Path) -> Iterator[tuple[str, list[str]]]:
    rows = csv_rows(path)
    header = next(rows, [])
    yield from zip(header, _columns(path, header, rows, first_line=2), strict=True)


def _columns(path: Path, header: Sequence[str], rows: Iterator[list[str]], first_line: int) -> list[list[str]]:
    if twice := [name for name, times in Counter(header).items() if times > 1]:
        raise InputError(f"{path} has two columns {shown(min(twice))}")
    columns: list[list[str]] = [[] for _ in header]
    for number, row in enumerate(rows, first_line):
        if (number - first_line + 1) * len(header) > MOST_ENTRIES:
            raise InputError(f"{path} has more than {MOST_ENTRIES:,} entries: too many for what is known about pictures")
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}, has {len(row)} entries for {len(header)} columns: it is cut off or damaged")
        for entries, entry in zip(columns, row, strict=True):
            entries.append(sys.intern(entry))  # eight million entries of CelebA are two different ones
    return columns


def _rows(path: Path, names: list[str], files: Sequence[str]) -> NDArray[np.int64]:
    """The row of each file; a table may name files without the folder that they lie in."""
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) < len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise InputError(f"{path} has two rows for {twice}")
    keys = list(files) if rows.keys() & set(files) else [file.rpartition("/")[2] for file in files]
    there = set(keys)
    if missing := [name for name in names if name not in there]:
        raise InputError(
            f"{len(missing)} of the {len(names)} images in {path} are not in the folder, {missing[0]} among them: "
            "unpack it whole, or take their rows out"
        )
    if unknown := [key for key in keys if key not in rows]:
        raise InputError(f"{len(unknown)} of {len(keys)} images have no row in {path}, {unknown[0]} among them")
    return np.array([rows[key] for key in keys])


def _values(entries: list[str]) -> NDArray[Any]:
    try:
        return np.array([float(entry) if entry else np.nan for entry in entries])
    except ValueError:
        return np.array(entries)
