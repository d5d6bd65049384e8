"""Whose a folder of exports is: a record of the store, and of what its exports write there, so that nothing else is written over."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.data.store import Store
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
        InputError: if one of the files is there and no export of these images has recorded it; if exports of other images have.
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


def _read(record: Path) -> dict[str, object]:
    """What a record says; nothing if there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(record.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _document(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, indent=1).encode() + b"\n"
