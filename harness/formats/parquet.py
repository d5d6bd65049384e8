"""A store and a split as parquet, in the layout of Hugging Face datasets: `datasets.load_dataset(folder, kind)`.

A column `image` (the PNG's bytes), and one per factor: a ClassLabel where the factor is categorical, else its index. What the columns
are is in each file's metadata, where `datasets` looks for it, and README.md's YAML says which files are a kind's train and test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.io.pictures import picture_of, png
from splits import FactorGrid, Split
from splits.errors import DependencyError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

FILE_ROWS, GROUP_ROWS = 50_000, 1_000
SIDES = ("train", "test")
Images = NDArray[np.uint8]


def files_of(split: Split) -> list[str]:
    """`{kind}/{train,test}-00000-of-00001.parquet` and so on: files of at most `FILE_ROWS` rows.

    Raises:
        ValueError: if a factor is called "image".
    """
    if "image" in split.grid.names:
        raise InputError("in parquet, image is a column of its own and can't be a factor's")
    names = []
    for side, count in zip(SIDES, split.counts, strict=True):
        number = max(1, -(-count // FILE_ROWS))
        names += [f"{split.kind}/{side}-{index:05d}-of-{number:05d}.parquet" for index in range(number)]
    return names


class Table:
    """Writes a side's rows into its files, one after the other, and holds `GROUP_ROWS` of them at most.

    Args:
        grid: of the images.
        files: that the rows fill.
    """

    def __init__(self, grid: FactorGrid, files: Sequence[BinaryIO]) -> None:
        self.grid, self.files = grid, iter(files)
        self.schema = schema(grid)
        self.waiting: list[tuple[int, Images]] = []
        self.rows = 0
        self._writer = self._next()

    def add(self, indices: NDArray[np.int64], images: Images) -> None:
        """Rows of these images."""
        for index, image in zip(indices.tolist(), images, strict=True):
            if self.rows == FILE_ROWS:
                self._flush()
                self._writer.close()
                self._writer, self.rows = self._next(), 0
            self.waiting.append((index, image))
            self.rows += 1
            if len(self.waiting) == GROUP_ROWS:
                self._flush()

    def close(self) -> None:
        """Write what waits, and empty files for what has no rows."""
        self._flush()
        self._writer.close()

    def _next(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(next(self.files), self.schema, compression="zstd")

    def _flush(self) -> None:
        import pyarrow as pa

        if not self.waiting:
            return
        indices = np.array([index for index, _ in self.waiting])
        columns: list[Any] = [[{"bytes": png(picture_of(image)), "path": f"{index}.png"} for index, image in self.waiting]]
        columns += list(self.grid.factors(indices).T)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema), row_group_size=GROUP_ROWS)
        self.waiting = []


def write(split: Split, blocks: Iterator[tuple[int, Images]], files: Sequence[BinaryIO]) -> Iterator[int]:
    """Write the images, a block at a time, into the files of `files_of`; yields the images of each block that is written."""
    trains = sum(name.startswith(f"{split.kind}/train-") for name in files_of(split))
    tables = {False: Table(split.grid, files[:trains]), True: Table(split.grid, files[trains:])}
    try:
        for start, images in blocks:
            indices = np.arange(start, start + len(images))
            is_test = split.mask[start : start + len(images)]
            for side, table in tables.items():
                table.add(indices[is_test == side], images[is_test == side])
            yield len(images)
    finally:  # if it is interrupted too: a writer that is left open writes when it is forgotten, into a closed file
        for table in tables.values():
            table.close()


def schema(grid: FactorGrid) -> pa.Schema:
    """The columns, and in the metadata what they are to Hugging Face's `datasets`.

    Raises:
        DependencyError: without pyarrow.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DependencyError(
            "parquet needs pyarrow: pip install 'ood-data[parquet]', or -e '.[parquet]' in its checkout"
        ) from error
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    for factor in grid:
        fields.append(pa.field(factor.name, pa.int64()))
        labels = [factor.label(index) for index in range(factor.size)]
        categorical = factor.kind == "categorical"
        features[factor.name] = {"names": labels, "_type": "ClassLabel"} if categorical else {"dtype": "int64", "_type": "Value"}
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})
