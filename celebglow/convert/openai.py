"""OpenAI's Glow of CelebA-HQ (Kingma & Dhariwal 2018), fetched, converted and kept: the flow that CelebGlow's authors walked in.

OpenAI published no checksums, and we had not seen the files when we wrote this. What is downloaded is recorded, and
verified by running it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from celebglow.convert.checkpoints import convert, save
from celebglow.convert.graph_compiler import NotKnownHere
from harness.io.atomic import home, sha256, write_atomically
from harness.io.download import fetch
from harness.io.locks import locked
from harness.io.progress import move, progress_bar
from harness.io.web import DownloadError
from splits.errors import DamagedError

logger = logging.getLogger(__name__)

BASES = (
    "https://openaipublic.azureedge.net/glow-demo/",  # demo/script.sh of openai/glow
    # A guess, seen nowhere: other files of OpenAI's are served from there, and azureedge.net was to end in January 2025.
    "https://openaipublic.blob.core.windows.net/glow-demo/",
)
GRAPH_FILE, TABLE_FILE = "large3/graph_unoptimized.pb", "z_manipulate.npy"
BY_HAND = "ood-data flow convert graph_unoptimized.pb --z-manipulate z_manipulate.npy --out FOLDER"
MOST = {  # bytes
    GRAPH_FILE: 2**31,  # of any protocol buffer
    TABLE_FILE: 64_000_000,  # 40 x 196,608 numbers, if of 8 bytes; float32 is what is known of them
}


def openai_flow() -> Path:
    """The folder of the published flow; the first time, it is downloaded and converted.

    `OOD_DATA_OPENAI_URL` names another server with the same files. A file that can't be converted is set aside, as `….rejected`, and
    the next call downloads it anew.

    Raises:
        DownloadError: if it cannot be fetched.
        DamagedError: if what was fetched cannot be converted, saying why.
        OSError: if the folder cannot be written.
    """
    root = home() / "openai"
    folder = root / "flow"
    if (folder / "model_index.json").is_file():
        return folder
    named = os.environ.get("OOD_DATA_OPENAI_URL")
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / ".lock"):
        if (folder / "model_index.json").is_file():  # another process has made it meanwhile
            return folder
        graph, table = (_have(name, (named,) if named else BASES, root) for name in (GRAPH_FILE, TABLE_FILE))
        logger.info("converting the published graph; the first time only")
        with _set_aside_if_wrong(graph):
            conversion = convert(graph)
        logger.info(conversion.summary)
        shutil.rmtree(folder, ignore_errors=True)
        with _set_aside_if_wrong(table):
            save(conversion, folder, table)
        for path in (graph, table):
            _rejected(path).unlink(missing_ok=True)
    return folder


def _have(name: str, bases: tuple[str, ...], root: Path) -> Path:
    """One file, downloaded unless it is there, and its line in downloads.json."""
    path, records = root / Path(name).name, root / "downloads.json"
    with progress_bar(path.name, "B") as bar:
        try:
            url = fetch([base.rstrip("/") + "/" + name for base in bases], path, progress=partial(move, bar), most=MOST[name])
        except DownloadError as error:
            raise DownloadError(f"{error}; who has both files runs {BY_HAND}") from error
    if url is not None:
        done = {"url": url, "bytes": path.stat().st_size, "sha256": sha256(path)}
        logger.info("%s: %s bytes, sha256 %s", url, f"{done['bytes']:,}", done["sha256"])
        done["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        known = [entry for entry in _recorded(records) if entry["url"] != url]
        write_atomically(records, json.dumps([*known, done], indent=1).encode() + b"\n")
    return path


def _recorded(records: Path) -> list[dict[str, Any]]:
    """What downloads.json says; nothing if it is damaged, as it is a record for people."""
    try:
        known = json.loads(records.read_bytes())
        return [entry for entry in known if "url" in entry]
    except (FileNotFoundError, ValueError, TypeError):
        return []


@contextlib.contextmanager
def _set_aside_if_wrong(path: Path) -> Iterator[None]:
    """Set a downloaded file aside if it cannot be converted: that is the download's fault, or ours, and not the user's."""
    try:
        yield
    except NotKnownHere as error:
        raise NotKnownHere(f"{error}. The file stays where it is: ood-data flow doctor {path}") from error
    except ValueError as error:
        aside = _rejected(path)
        again = aside.is_file() and sha256(aside) == sha256(path)
        path.replace(aside)
        what_to_do = (
            "the server has sent the same bytes again, so please report it" if again else "the same command downloads it anew"
        )
        raise DamagedError(f"{error}. It was set aside as {aside}: {what_to_do}") from error


def _rejected(path: Path) -> Path:
    return path.with_name(path.name + ".rejected")
