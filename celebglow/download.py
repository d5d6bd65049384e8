"""Downloads that survive interruptions: one stable .part file, continued where it ended, moved into place when whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CHUNK = 1 << 20
ATTEMPTS = 5
PAUSE = 1.0  # seconds before the second attempt; doubled each time
TIMEOUT = 60.0
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Download:
    """What was downloaded, for the record: ``bytes`` and their ``sha256``, the server's ``etag``, the ``time`` (UTC)."""

    url: str
    bytes: int
    sha256: str
    etag: str
    time: str


def download(url: str, path: str | Path, progress: Progress = lambda done, total: None) -> Download:
    """Fetch ``url`` to ``path``; a download that was interrupted goes on in ``<path>.part``.

    Args:
        url: http or https.
        path: of the file; it appears only when the server's length has arrived.
        progress: called with the bytes there and the bytes in all, None while unknown.

    Raises:
        ConnectionError: if it fails for good, in one line; what has arrived is kept for the next try.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.etag")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            _continue(url, part, tag, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS - 1:
                raise ConnectionError(f"{url} cannot be fetched: the server says {error.code} {error.reason}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if attempt == ATTEMPTS - 1 or _hopeless(error):
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
                raise ConnectionError(f"{url} cannot be fetched ({reason}): is there a network? run again to go on") from error
    with part.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    etag = tag.read_text() if tag.exists() else ""
    size = part.stat().st_size
    part.replace(path)
    tag.unlink(missing_ok=True)
    return Download(url, size, digest, etag, datetime.now(UTC).isoformat(timespec="seconds"))


def _hopeless(error: Exception) -> bool:
    """Names that don't resolve and connections that are refused won't change within seconds."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, ConnectionRefusedError) or type(reason).__name__ == "gaierror"


def _continue(url: str, part: Path, tag: Path, progress: Progress) -> None:
    """Get what is missing of the part file; returns only when it is whole."""
    there = part.stat().st_size if part.exists() and tag.exists() else 0  # what can't be matched to a version starts again
    request = urllib.request.Request(url, headers={"User-Agent": "ood-data", "Accept-Encoding": "identity"})
    if there:
        request.add_header("Range", f"bytes={there}-")
        request.add_header("If-Range", tag.read_text())
    try:
        response: Any = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if error.code == 416 and whole and int(whole[1]) == there and error.headers.get("ETag", tag.read_text()) == tag.read_text():
            return
        if error.code == 416:  # the file there is another, or shorter
            tag.unlink(missing_ok=True)
            raise ConnectionResetError("the file on the server has changed") from error
        raise
    with response, contextlib.ExitStack() as stack:
        if response.headers.get_content_type() == "text/html":
            raise urllib.error.HTTPError(url, 404, "a web page instead of the file", response.headers, None)
        if response.status == 206:
            start = re.match(rf"bytes {there}-", response.headers.get("Content-Range", ""))
            if start is None:
                tag.unlink(missing_ok=True)
                raise ConnectionResetError("the server continues at another place")
        else:
            there = 0
            etag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            tag.unlink(missing_ok=True)
            part.unlink(missing_ok=True)
            if etag and not etag.startswith("W/"):
                tag.write_text(etag)
        length = response.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        file = stack.enter_context(part.open("ab"))
        progress(there, total)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            there += len(chunk)
            progress(there, total)
        if total is not None and there != total:
            raise ConnectionResetError(f"{there:,} of {total:,} bytes arrived")


def record(done: Download, path: Path) -> None:
    """Add what was downloaded to a list in JSON; an earlier download from the same address is replaced."""
    known = json.loads(path.read_text()) if path.is_file() else []
    known = [each for each in known if each["url"] != done.url] + [vars(done)]
    path.write_text(json.dumps(known, indent=2) + "\n")
