"""What a host says of a file that it has: its checksum, from the APIs of the Hugging Face Hub and of Zenodo.

That is no proof that the file is right: who uploads a damaged file has its checksum listed. It proves that nothing happened to it since.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
import urllib.error
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from harness.io import download
from harness.io.web import DownloadError, answered, in_one_line

logger = logging.getLogger(__name__)

MOST = 2**20  # bytes of an answer
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Listed:
    """What a host says of a file: its checksum as "md5:…" or "sha256:…", and who says so."""

    checksum: str
    host: str


def ask(api: str, name: str) -> Listed | None:
    """What the answer at an address of an API says of the file of that name; None, and a line of log, if that says nothing.

    Args:
        api: of Hugging Face, `https://huggingface.co/api/datasets/{repository}/tree/{revision}`, which gives a list of files with the
            sha256 of those in LFS; or of Zenodo, `https://zenodo.org/api/records/{record}`, an object with `files` and their md5.
        name: the file's there.
    """
    host = urlsplit(api).hostname or api
    try:
        with answered(api, {"User-Agent": "ood-data", "Accept": "application/json"}, download.TIMEOUT, download.SLOWEST) as answer:
            text = b""
            while block := answer.read():
                text += block
                if len(text) > MOST:
                    raise ValueError(f"it answers more than {MOST:,} bytes")
        checksum = _checksum(json.loads(text), name)
    except (DownloadError, urllib.error.URLError, http.client.HTTPException, OSError, ValueError, RecursionError) as error:
        logger.info("%s can't be asked for the checksum of %s (%s)", host, name, in_one_line(error))
        return None
    if checksum is None:
        logger.info("%s lists no checksum of %s", host, name)
        return None
    return Listed(checksum, host)


def _checksum(answer: Any, name: str) -> str | None:
    """The checksum of a file in an answer of either API; None if there is none."""
    files = answer.get("files") if isinstance(answer, dict) else answer
    for file in files if isinstance(files, list) else ():
        if not isinstance(file, dict) or name not in (file.get("path"), file.get("key")):
            continue
        in_lfs = file.get("lfs")
        found = f"sha256:{in_lfs.get('oid')}" if isinstance(in_lfs, dict) else file.get("checksum")
        if isinstance(found, str) and _CHECKSUM.fullmatch(found):
            return found
    return None
