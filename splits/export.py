"""A split written to a file, whole or not at all."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from splits.errors import DependencyError, InputError
from splits.split import Split


@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, which takes its place once the block ends without an error.

    The folder of `path` is made if it isn't there.

    Raises:
        OSError: naming `path`, or its folder, if it can't be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a write to a full disk names no file
    finally:
        temporary.unlink(missing_ok=True)


def path_of_kind(path: str | Path, kind: str, *, of: Sequence[str]) -> Path:
    """`path`, with the kind before its suffix where it is one of several: mpi3d.npz is mpi3d-random.npz then."""
    path = Path(path)
    return path if len(of) == 1 else path.with_name(f"{path.stem}-{kind}{path.suffix}")


def write(split: Split, path: str | Path) -> None:
    """Write the split in the format of the path's suffix.

    .npz: int64 arrays `train` and `test`, `names` (F,) str and `sizes` (F,) int64. .json: the same, and the dataset and the
    kind. .parquet: a row per sample of the grid with its `index`, a column of indices per factor, and `is_test`.

    Raises:
        ValueError, DependencyError: as `check_writable`.
    """
    check_writable(split, path)
    with written_whole(path) as temporary:
        _WRITERS[Path(path).suffix.lower()](split, temporary)


def check_writable(split: Split, path: str | Path) -> None:
    """Check that `write` can write the split in the format of the path's suffix; nothing is written.

    Raises:
        ValueError: for another suffix; for parquet, if a factor is called "index" or "is_test".
        DependencyError: an ImportError; for parquet, if pyarrow is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise InputError(f"can't write {str(path)!r}: a file ending in {', '.join(_WRITERS)} is expected")
    if suffix != ".parquet":
        return
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DependencyError(
            "parquet files need pyarrow: pip install 'ood-data[parquet]', or -e '.[parquet]' in its checkout"
        ) from None
    if clash := {"index", "is_test"} & set(split.grid.names):
        raise InputError(f"in parquet, {', '.join(sorted(clash))} is a column of its own and can't be a factor's")


def _write_npz(split: Split, path: Path) -> None:
    sizes = np.array(split.grid.sizes, dtype=np.int64)
    np.savez_compressed(path, train=split.train, test=split.test, names=np.array(split.grid.names), sizes=sizes)


def _write_json(split: Split, path: Path) -> None:
    head = {"dataset": split.dataset, "kind": split.kind, "names": split.grid.names, "sizes": split.grid.sizes}
    path.write_text(json.dumps(head | {"train": split.train.tolist(), "test": split.test.tolist()}), encoding="utf-8")


def _write_parquet(split: Split, path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    index = np.arange(len(split.grid))
    columns = dict(zip(split.grid.names, split.grid.factors(index).astype(np.int32).T, strict=True))
    table = pyarrow.table({"index": index} | columns | {"is_test": split.mask})
    table = table.replace_schema_metadata({"dataset": split.dataset, "kind": split.kind})
    pyarrow.parquet.write_table(table, path)


_WRITERS: dict[str, Callable[[Split, Path], None]] = {".npz": _write_npz, ".json": _write_json, ".parquet": _write_parquet}
