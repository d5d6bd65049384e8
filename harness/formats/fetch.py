"""Official files from their addresses into the cache, each with a proof that it is the right one, or accepted by the user.

A proof is a checksum that is known of the file, or that its host lists; the latter together with its content, as a host lists the
checksum of a damaged file, too. `harness.formats.proof` remembers which it was.
"""

from __future__ import annotations

import zipfile
import zlib
from functools import partial
from pathlib import Path

import splits
from harness.formats.catalog import File, info_of, published
from harness.formats.content import check_content
from harness.formats.listing import Listed, ask
from harness.formats.proof import accept, accepted, remember
from harness.formats.readers import open_reader
from harness.io.atomic import home
from harness.io.download import Unproven, digests, fetch
from harness.io.progress import move, progress_bar
from splits.arrays import BadFile, zip_rows


def fetch_dataset(name: str, accept: bool = False, progress: bool = False) -> Path:
    """Download the official files of a dataset, unless they are there.

    Args:
        name: of the dataset, as in `harness.formats.catalog.CATALOG`.
        accept: keep a file of whose checksum nothing is known, once its archive's own checksums, its shape and its content are right;
            its checksum is remembered.
        progress: show how far it is, on stderr.

    Returns:
        the file to give to `harness.formats.convert.convert`.

    Raises:
        ValueError: for an unknown dataset; for a file that is damaged (`BadFile`), which is removed.
        DownloadError: an OSError; if a file cannot be downloaded, or (`Unproven`) its checksum is neither known nor accepted.
    """
    info = info_of(name)
    for file in info.files:
        _fetch(name, file, accept, progress)
    return home() / name / info.convert


def fetch_published(name: str, kind: str, images: bool = True, accept: bool = False, progress: bool = False) -> Path:
    """Download the benchmark's files of a dataset's split, or their labels only; as `fetch_dataset`.

    Returns:
        the folder that they are in.
    """
    for file in published(name, kind):
        if images or file.name.endswith("_labels.npz"):
            _fetch(name, file, accept, progress)
    return home() / name


def _fetch(name: str, file: File, accept: bool, progress: bool) -> None:
    with progress_bar(file.name, "B", file.size, shown=progress) as bar:
        check = partial(_check, name, file, accepting=accept)
        fetch(file.urls, home() / name / file.name, check, file.size, partial(move, bar), file.most)


def _check(name: str, file: File, part: Path, accepting: bool) -> None:
    found = digests(part)
    if {*file.checksums, *accepted(f"{name}/{file.name}")} & set(found):
        return
    listed = ask(file.listing, file.name) if file.listing else None
    seen = _prove(name, part)
    if listed is not None and listed.checksum in found:
        remember(found[1], f"{listed.checksum}, as {listed.host} lists it; {seen}")
    elif accepting:
        accept(f"{name}/{file.name}", found[1], f"{found[1]} was accepted, though not known; {seen}")
    else:
        raise Unproven(
            f"{file.name} has {found[1]}, {_expected(file, listed)}; {seen}, so it may have been uploaded anew: "
            f"`accept` keeps it and remembers that, or delete {part} to download it again"
        )


def _expected(file: File, listed: Listed | None) -> str:
    """What the checksum should have been."""
    ours = f"not the known {' or '.join(file.checksums)}" if file.checksums else ""
    theirs = f"not the {listed.checksum} that {listed.host} lists" if listed else ""
    return " and ".join(filter(None, (ours, theirs))) or "and no checksum is known"


def _prove(name: str, part: Path) -> str:
    """What was seen to be right of the archive's own checksums, and of the shape and the content of what is in it; BadFile if one is not."""
    single = False
    if zipfile.is_zipfile(part):
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
            return "its archive is whole"
    spec = splits.load_spec(name)
    reader = open_reader(part, spec)
    if not zipfile.is_zipfile(part):
        for _ in reader.blocks([range(start, min(start + 1024, reader.shape[0])) for start in range(0, reader.shape[0], 1024)]):
            pass
    check_content(part, reader, spec.grid)
    return "its archive is whole, its shape is right, and neighbouring images are alike"
