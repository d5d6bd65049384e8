"""Tables in text, of other people's making, line by line: no line is longer than one that a table has."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from splits.arrays import BadFile, require_regular

LONGEST_LINE = 2**24  # characters: 100,000 columns fit


def csv_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a CSV file, that of the columns' names first, without empty lines.

    Raises:
        BadFile: if it isn't such a table.
        FileNotFoundError: if it isn't there.
    """
    require_regular(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.reader(lines(file, path)):
                if row:
                    yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{path} is not a table in UTF-8, its columns separated by commas: {error}") from None


def lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a text file.

    Raises:
        BadFile: at one that is longer than `LONGEST_LINE`.
    """
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith(("\n", "\r")):
            raise BadFile(f"{path} is not a table: it has a line of more than {LONGEST_LINE:,} characters")
        yield line
