"""Whose a folder of exports is: a record of the store, and of what its exports write there, so that nothing else is written over."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.data.store import Store
from harness.formats.beside import SIDES
from harness.io.atomic import write_atomically
from harness.io.locks import locked
from splits.errors import InputError

LOCK = ".export.lock"  # of the folder


@contextlib.contextmanager
def claimed(out: Path, store: Store, files: Iterable[Path]) -> Iterator[None]:
    """Record what an export will write, before it does. One that is refused in the block takes that back; one that is interrupted does not.

    Args:
        out: the folder of the export, whose lock is held when the block begins.
        store: that is to be exported.
        files: that will be written.

    Raises:
        InputError: if one of the files is there and no export of these images has recorded it; if exports of other images have; if
            pictures would lie beside parquet or tar files, as who loads the folder would take both for one dataset.
    """
    record = out / f".{store.name}.export.json"
    names = {path.relative_to(out).as_posix(): path for path in files}
    before = _read(record)
    images = hashlib.sha256(json.dumps([len(store), store.spec, store.source], sort_keys=True).encode()).hexdigest()
    if before and before.get("images") != images:
        raise InputError(f"{out} has exports of another {store.name}: choose another `out`")
    listed = before.get("files")
    known = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    for name, path in names.items():
        if name not in known and path.exists():
            raise InputError(
                f"{path} is there already, and no export of this {store.name} has written it: choose another `out`, or move it away"
            )
    _check_unmixed(out, names)
    mine = {"images": images, "files": sorted(known | names.keys())}
    write_atomically(record, _document(mine))
    try:
        yield
    except InputError:
        with locked(out / LOCK):
            if _read(record) == mine:  # no other export has recorded anything since
                if before:
                    write_atomically(record, _document(before))
                else:
                    record.unlink(missing_ok=True)
        raise


def _check_unmixed(out: Path, names: Iterable[str]) -> None:
    """Raise InputError if pictures, in `SIDES`, would come beside parquet or tar files, in folders called after kinds, or the other way."""
    pictures = {folder in SIDES for folder in _folders(names)}
    for record in out.glob(".*.export.json"):
        listed = _read(record).get("files")
        for folder in _folders(listed if isinstance(listed, list) else ()):
            if pictures and (folder in SIDES) not in pictures and (out / folder).is_dir() and any((out / folder).iterdir()):
                what, new = ("pictures", "parquet or tar files") if folder in SIDES else ("parquet or tar files", "pictures")
                raise InputError(f"{out / folder} has {what} of an export, and {new} beside them would mix: choose another `out`")


def _folders(names: Iterable[object]) -> set[str]:
    """The folders of those files that lie in one."""
    return {name.partition("/")[0] for name in names if isinstance(name, str) and "/" in name}


def _read(record: Path) -> dict[str, object]:
    """What a record says; nothing if there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(record.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _document(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, indent=1).encode() + b"\n"
