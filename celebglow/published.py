"""OpenAI's Glow of CelebA-HQ (Kingma & Dhariwal 2018), fetched, converted and kept: the flow that CelebGlow's authors walked in.

No checksums were published, and the files themselves were not at hand when this was written: what is downloaded is recorded, and
verified by running it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from celebglow.download import Download, download, record

logger = logging.getLogger(__name__)

BASE = "https://openaipublic.azureedge.net/glow-demo/"
GRAPH, TABLE = "large3/graph_unoptimized.pb", "z_manipulate.npy"


def home() -> Path:
    """Where downloads are kept: ``OOD_DATA_HOME``, by default ``~/.cache/ood-data``."""
    return Path(os.environ.get("OOD_DATA_HOME") or "~/.cache/ood-data").expanduser()


def openai_flow() -> Path:
    """The folder of the published flow; the first time, it is downloaded and converted.

    ``OOD_DATA_OPENAI_URL`` names another server with the same files.

    Raises:
        ConnectionError: if it cannot be fetched.
        ValueError: if what was fetched cannot be converted, saying why.
        OSError: if the folder cannot be written.
    """
    from celebglow.checkpoints import convert, save

    root = home() / "openai"
    folder = root / "flow"
    if (folder / "model_index.json").is_file():
        return folder
    base = os.environ.get("OOD_DATA_OPENAI_URL") or BASE
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / ".lock"):
        if (folder / "model_index.json").is_file():  # another process has made it meanwhile
            return folder
        for name in (GRAPH, TABLE):
            path = root / Path(name).name
            if not path.is_file():
                record(_fetch(base.rstrip("/") + "/" + name, path), root / "downloads.json")
        logger.info("converting the published graph; the first time only")
        try:
            conversion = convert(root / Path(GRAPH).name)
            logger.info(conversion.summary)
            shutil.rmtree(folder, ignore_errors=True)
            save(conversion, folder, root / TABLE)
        except ValueError as error:
            raise ValueError(f"{error}. Remove {root} to download it again") from error
    return folder


def _fetch(url: str, path: Path) -> Download:
    from tqdm import tqdm

    with tqdm(unit="B", unit_scale=True, desc=path.name, disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

        def progress(there: int, total: int | None) -> None:
            bar.total = total
            bar.update(there - bar.n)

        done = download(url, path, progress)
    logger.info("%s: %s bytes, sha256 %s", url, f"{done.bytes:,}", done.sha256)
    return done


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock, so that several parts started at once download once."""
    with path.open("a") as file:
        try:
            import fcntl
        except ImportError:  # Windows: two processes would do the same work twice, to the same end
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
