"""Official file → store: checked first, then streamed, shard by shard, so that an interrupted conversion continues."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import splits
from harness.data.store import Description, Store, rows_of_shard
from harness.data.writer import Writer
from harness.formats import dsprites
from harness.formats.card import card, preview
from harness.formats.catalog import CATALOG
from harness.formats.croissant import of_store
from harness.formats.proof import NONE, proof_of
from harness.formats.readers import Images, Reader, open_reader
from harness.io.progress import progress_bar
from splits import SplitSpec
from splits.arrays import BadFile
from splits.errors import InputError

logger = logging.getLogger(__name__)

HASH_BYTES = 2**22


def convert(
    path: str | Path,
    dataset: str | None,
    root: str | Path,
    spec_file: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Store:
    """Make (or go on making) `<root>/<dataset>.zarr` from an official file (`harness.formats.readers`).

    Args:
        path: the file, or a folder.
        dataset: its name; that of the spec if None.
        root: folder of the stores.
        spec_file: grid and splits of a dataset that is not shipped, TOML.
        overwrite: remove a store that is there first.
        progress: show how far it is, on stderr.

    Raises:
        ValueError: in one sentence: for a file that is damaged (`BadFile`) or of another dataset; for a bad spec; for a store that
            is there and was made from something else. No store is left then.
        OSError: if a file cannot be read or the store not be written; what was written is continued by the next call.
    """
    spec = _spec(dataset, spec_file)
    reader = open_reader(path, spec)
    sha256, proof = _identify(spec.name, reader, progress)
    source = {"file": Path(path).name, "sha256": sha256}
    description = _describe(spec, reader, source)
    with Writer(root, description, overwrite=overwrite) as writer:
        if not writer.complete:
            try:
                _write(writer, reader, progress)
            except BadFile:
                writer.discard()  # what was read before the damage was found may be wrong too
                raise
        writer.finish(partial(card, proof=proof), preview, partial(of_store, proof=proof))
    return Store(root, spec.name)


def _spec(dataset: str | None, spec_file: str | Path | None) -> SplitSpec:
    if dataset is None and spec_file is None:
        raise InputError("which dataset is it? name it by `dataset`, or give the `spec_file` of your own")
    spec = splits.load_spec(Path(spec_file) if spec_file else dataset or "")
    if dataset not in (None, spec.name):
        raise InputError(f"{spec_file} is the spec of {spec.name}, not of {dataset}")
    return spec


def _describe(spec: SplitSpec, reader: Reader, source: dict[str, str]) -> Description:
    info, part = CATALOG.get(spec.name), None
    rows = math.prod(spec.grid.sizes[1:]) if info is not None and info.by_first_factor else rows_of_shard(reader.shape)
    if info is not None:
        compress, part = info.compress, info.part
    else:
        first = next(iter(reader.blocks([range(min(rows, len(spec.grid)))])))
        sizes = [len(Description(spec.name, reader.shape, rows, compress, {}).encode(first)) for compress in (False, True)]
        compress = 2 * sizes[1] <= sizes[0]
    return Description(spec.name, reader.shape, rows, compress, spec.to_dict(), source, part)


def _write(writer: Writer, reader: Reader, progress: bool) -> None:
    missing = writer.missing
    total = writer.description.shape[0]
    left = sum(len(writer.rows(shard)) for shard in missing)
    compared = writer.description.name == dsprites.NAME and writer.description.shape == dsprites.describe().shape
    differing = 0
    with progress_bar(writer.description.name, "img", total, total - left, progress) as bar:
        # strict, so that the reader is asked once more after the last block, and checks what it can only then
        for shard, images in zip(missing, reader.blocks([writer.rows(shard) for shard in missing]), strict=True):
            writer.publish(shard, images)
            differing += _differing(images, writer.rows(shard)) if compared else 0
            bar.update(len(images))
    if compared:
        logger.info("%s of %s images differ from `generate dsprites`", f"{differing:,}", f"{left:,}")


def _differing(images: Images, rows: range) -> int:
    rendered = dsprites.render(rows.start, rows.stop)
    return int((images != rendered).reshape(len(images), -1).any(axis=1).sum())


def _identify(name: str, reader: Reader, progress: bool) -> tuple[str, str]:
    """The sha256 of what is read: of the file, or of a line "sha256  name" for each of several; and how it is known to be official.

    Of a dataset that has no official files, the latter is "".

    Raises:
        BadFile: if it is, by its checksum, another dataset's official file.
    """
    total = sum(path.stat().st_size for path in reader.files)
    lines, proofs = [], []
    with progress_bar("checksum", "B", total, shown=progress) as bar:
        for path in reader.files:
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            with path.open("rb") as file:
                while block := file.read(HASH_BYTES):
                    sha256.update(block)
                    md5.update(block)
                    bar.update(len(block))
            found = {f"sha256:{sha256.hexdigest()}", f"md5:{md5.hexdigest()}"}
            of = {known for known, info in CATALOG.items() for file in info.files if found & set(file.checksums)}
            if of and name not in of:
                raise BadFile(f"{path} is {min(of)}'s official file, not {name}'s: give `dataset` {min(of)}")
            if not of and name in CATALOG and path.name in [file.name for file in CATALOG[name].files]:
                logger.info("%s has none of the checksums known of %s's official files: sha256 %s", path, name, sha256.hexdigest())
            lines.append(f"{sha256.hexdigest()}  {path.name}\n")
            proofs.append(proof_of(found))
    together = lines[0].split()[0] if len(lines) == 1 else hashlib.sha256("".join(lines).encode()).hexdigest()
    return together, _together(proofs) if name in CATALOG else ""


def _together(proofs: Sequence[str]) -> str:
    """The proof of several files: of each one, where all have one."""
    return NONE if NONE in proofs else "; ".join(dict.fromkeys(proofs))
