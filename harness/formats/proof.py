"""How it is known that a file is the official one, by its checksum: from the catalog, from its host, or because the user said so."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path

from harness.formats.catalog import CATALOG
from harness.io.atomic import home, write_atomically

logger = logging.getLogger(__name__)

NONE = "none: no checksum of it is known"


def proof_of(digests: Collection[str]) -> str:
    """The proof of a file, in words; `NONE` if there is none.

    Args:
        digests: its checksums, "md5:…" and "sha256:…".
    """
    if checksum := known(digests):
        return f"{checksum}, known of the official file"
    remembered = _read(_proofs())
    return next((str(remembered[digest]) for digest in digests if digest in remembered), NONE)


def known(digests: Collection[str]) -> str:
    """That of the checksums which the catalog has; "" if it has none of them."""
    listed = {checksum for info in CATALOG.values() for file in info.files for checksum in file.checksums}
    return next((digest for digest in digests if digest in listed), "")


def remember(sha256: str, proof: str) -> None:
    """Remember the proof of a file that was downloaded."""
    logger.info("%s", proof)
    write_atomically(_proofs(), json.dumps(_read(_proofs()) | {sha256: proof}, indent=1).encode())


def accept(name: str, sha256: str, proof: str) -> None:
    """Remember that the user accepts a file of this name with this checksum."""
    logger.info("%s: accepted %s", name, sha256)
    write_atomically(_accepted(), json.dumps(_read(_accepted()) | {name: [sha256]}, indent=1).encode())
    remember(sha256, proof)


def accepted(name: str) -> list[str]:
    """The checksums that the user accepts of a file of this name."""
    return list(_read(_accepted()).get(name, []))


def _proofs() -> Path:
    return home() / "proofs.json"


def _accepted() -> Path:
    return home() / "accepted.json"


def _read(path: Path) -> dict[str, list[str] | str]:
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise OSError(f"{path} is damaged ({error}): delete it, and accept checksums anew") from None
