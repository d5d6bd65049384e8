"""OpenAI's Glow of CelebA-HQ (Kingma & Dhariwal 2018), fetched, converted and kept: the flow that CelebGlow's authors walked in.

No checksums were published, and the files themselves were not at hand when this was written: what is downloaded is recorded, and
verified by running it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from celebglow.convert.checkpoints import convert, save
from harness.io.atomic import home, locked, sha256, write_atomically
from harness.io.download import fetch
from harness.io.progress import move, progress_bar
from splits.errors import InputError

logger = logging.getLogger(__name__)

BASE = "https://openaipublic.azureedge.net/glow-demo/"
GRAPH, TABLE = "large3/graph_unoptimized.pb", "z_manipulate.npy"


def openai_flow() -> Path:
    """The folder of the published flow; the first time, it is downloaded and converted.

    ``OOD_DATA_OPENAI_URL`` names another server with the same files.

    Raises:
        DownloadError: if it cannot be fetched.
        ValueError: if what was fetched cannot be converted, saying why.
        OSError: if the folder cannot be written.
    """
    root = home() / "openai"
    folder = root / "flow"
    if (folder / "model_index.json").is_file():
        return folder
    base = os.environ.get("OOD_DATA_OPENAI_URL") or BASE
    root.mkdir(parents=True, exist_ok=True)
    records = root / "downloads.json"
    with locked(root / ".lock"):
        if (folder / "model_index.json").is_file():  # another process has made it meanwhile
            return folder
        for name in (GRAPH, TABLE):
            path = root / Path(name).name
            if not path.is_file():
                done = _fetch(base.rstrip("/") + "/" + name, path)
                known = [entry for entry in _recorded(records) if entry["url"] != done["url"]] + [done]
                write_atomically(records, json.dumps(known, indent=1).encode() + b"\n")
        logger.info("converting the published graph; the first time only")
        try:
            conversion = convert(root / Path(GRAPH).name)
            logger.info(conversion.summary)
            shutil.rmtree(folder, ignore_errors=True)
            save(conversion, folder, root / TABLE)
        except ValueError as error:
            raise InputError(f"{error}. Remove {root} to download it again") from error
    return folder


def _recorded(records: Path) -> list[dict[str, Any]]:
    """What downloads.json says; nothing if it is damaged, as it is a record for people."""
    try:
        known = json.loads(records.read_bytes())
        return [entry for entry in known if "url" in entry]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def _fetch(url: str, path: Path) -> dict[str, Any]:
    """Download one file; returns what is to be recorded of it."""
    with progress_bar(path.name, "B") as bar:
        fetch([url], path, progress=partial(move, bar))
    done = {"url": url, "bytes": path.stat().st_size, "sha256": sha256(path)}
    logger.info("%s: %s bytes, sha256 %s", url, f"{done['bytes']:,}", done["sha256"])
    return done | {"time": datetime.now(UTC).isoformat(timespec="seconds")}
