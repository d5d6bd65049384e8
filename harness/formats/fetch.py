"""Official files from their addresses into the cache, each known by its checksum, or proven by its own and accepted by the user."""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from functools import partial
from pathlib import Path

import splits
from harness.formats.catalog import File, info_of
from harness.formats.readers import open_reader
from harness.io.atomic import home, write_atomically
from harness.io.download import Unproven, digests, fetch
from harness.io.progress import move, progress_bar
from splits.arrays import BadFile, zip_rows

logger = logging.getLogger(__name__)


def fetch_dataset(name: str, accept: bool = False, progress: bool = False) -> Path:
    """Download the official files of a dataset, unless they are there.

    Args:
        name: of the dataset, as in `harness.formats.catalog.CATALOG`.
        accept: keep a file whose checksum is not the known one, or where none is known, once its archive's own checksums and its
            shape are right; its checksum is remembered.
        progress: show how far it is, on stderr.

    Returns:
        the file to give to `harness.formats.convert.convert`.

    Raises:
        ValueError: for an unknown dataset; for a file that is damaged (`BadFile`), which is removed.
        DownloadError: an OSError; if a file cannot be downloaded, or (`Unproven`) its checksum is neither known nor accepted.
    """
    info = info_of(name)
    for file in info.files:
        with progress_bar(file.name, "B", file.size, shown=progress) as bar:

            def check(part: Path, file: File = file) -> None:
                _check(name, file, part, accept)

            fetch(file.urls, home() / name / file.name, check, file.size, partial(move, bar), file.most)
    return home() / name / info.convert


def _check(name: str, file: File, part: Path, accept: bool) -> None:
    found = digests(part)
    known = {*file.checksums, *_accepted().get(f"{name}/{file.name}", [])}
    if known & set(found):
        return
    _prove(name, part)
    if not accept:
        expected = f"not the known {' or '.join(file.checksums)}" if file.checksums else "and no checksum is known"
        raise Unproven(
            f"{file.name} has {found[1]}, {expected}; its archive is whole and its shape right, so it may have been uploaded anew: "
            f"`accept` keeps it and remembers that, or delete {part} to download it again"
        )
    logger.info("%s: accepted %s", file.name, found[1])
    write_atomically(_remembered(), json.dumps(_accepted() | {f"{name}/{file.name}": [found[1]]}, indent=1).encode())


def _prove(name: str, part: Path) -> None:
    """Raise BadFile unless the archive's own checksums and the shape of what is in it are right."""
    if not zipfile.is_zipfile(part):
        reader = open_reader(part, splits.load_spec(name))
        for _ in reader.blocks([range(start, min(start + 1024, reader.shape[0])) for start in range(0, reader.shape[0], 1024)]):
            pass
        return
    try:
        with zipfile.ZipFile(part) as archive:
            broken = archive.testzip()
            single = "arr_0.npy" in archive.namelist()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadFile(f"{part} is damaged: {error}") from None
    if broken:
        raise BadFile(f"{part} is damaged: {broken} in it fails its checksum")
    if single:  # one file of a published split: its shape is checked with its siblings, when they are converted
        with zip_rows(part, "arr_0"):
            pass
    else:
        open_reader(part, splits.load_spec(name))


def _remembered() -> Path:
    return home() / "accepted.json"


def _accepted() -> dict[str, list[str]]:
    try:
        return dict(json.loads(_remembered().read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise OSError(f"{_remembered()} is damaged ({error}): delete it, and accept checksums anew") from None
