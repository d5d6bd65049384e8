"""One file from a server that may do anything: resumed across connections and processes, checked, then renamed into place.

Beside the file, while it is unfinished: ``<name>.part``, its first bytes, and ``<name>.part.json``, what the server said it is. A
server that has another file by now (another ETag, date or length) is asked for all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.io.atomic import write_atomically
from splits.errors import BusyError, OodDataError

logger = logging.getLogger(__name__)

BLOCK = 2**20
TIMEOUT = 60.0  # seconds without a byte
RETRIES = 8  # in a row without a new byte
WAIT = 1.0  # seconds before the first retry, doubled each time
LONGEST_WAIT = 60.0
BUSY = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(OodDataError, OSError):
    """A file could not be had: one sentence that says from where, why, and what to do."""


class Unproven(DownloadError):
    """A complete file is not known to be right, nor to be wrong: it is kept aside for the user to decide."""


@dataclass(frozen=True)
class _Remote:
    """What a server says of the file: it is still the same if all of it is the same."""

    url: str
    validator: str | None  # a strong ETag, else the date of the last change
    total: int | None  # bytes


Progress = Callable[[int, int | None], None]


def fetch(
    urls: Sequence[str],
    path: Path,
    check: Callable[[Path], None] = lambda path: None,
    size: int | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Download to `path`, from the first of the addresses that has the file. Does nothing if `path` is there.

    Args:
        urls: addresses of the same file.
        path: where it goes; its folder is made.
        check: called with the complete file before it is put in place; what it raises ends the download and
            removes the file, unless it is `Unproven`: then it stays as ``.part``, and the next call checks it again.
        size: expected bytes, if known.
        progress: called with bytes had and their total, if known.

    Raises:
        DownloadError: if no address has it, saying for each why not. What was had of it is kept, and the next call continues.
        BlockingIOError: if another process is downloading it.
        OSError: if there is no space for it, or it cannot be written.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _only_one(part):
        if path.exists():  # another process was faster
            return
        failures = []
        for url in urls:
            try:
                _download(url, part, size, progress)
                break
            except DownloadError as error:
                failures.append(str(error))
        else:
            kept = "; what came of it is kept, run it again to continue" if _length(part) else ""
            raise DownloadError(f"{path.name} was not downloaded: {'; '.join(failures)}{kept}")
        try:
            check(part)
        except Unproven:
            raise
        except Exception:
            _forget(part)
            raise
        part.replace(path)
        _record(part).unlink(missing_ok=True)


def digests(path: Path) -> tuple[str, str]:
    """("md5:…", "sha256:…") of a file."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            md5.update(block)
            sha256.update(block)
    return f"md5:{md5.hexdigest()}", f"sha256:{sha256.hexdigest()}"


def _download(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Fill `part` from one address, with retries while the server is busy or drops the connection."""
    idle, starts, wait = 0, 0, WAIT
    while True:
        before, pause = _length(part), None
        try:
            complete, start = _receive(url, part, size, progress)
            if complete:
                return
            reason = "the connection was dropped"
            starts += start == 0
        except _Busy as error:
            reason, pause = str(error), error.seconds
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            cause = getattr(error, "reason", None) or error
            reason = str(cause) or type(error).__name__
            if before == 0 and isinstance(cause, ConnectionRefusedError | socket.gaierror):  # this won't change within seconds
                raise DownloadError(f"{url} cannot be reached ({reason}): is there a network?") from None
        if _length(part) > before:
            idle, wait = 0, WAIT
        else:
            idle += 1
        if idle >= RETRIES or starts >= RETRIES:
            times = f"{idle} times in a row" if idle >= RETRIES else f"and {starts} times it had to start anew"
            raise DownloadError(f"{url}: {reason}, {times}")
        logger.debug("%s: %s; trying again", url, reason)
        time.sleep(min(wait if pause is None else pause, LONGEST_WAIT))
        wait *= 2


class _Busy(Exception):
    """The server asks to come again, perhaps after some seconds."""

    def __init__(self, code: int, seconds: float | None) -> None:
        self.seconds = seconds
        super().__init__(f"the server answers {code}")


def _receive(url: str, part: Path, size: int | None, progress: Progress) -> tuple[bool, int]:
    """One request for what is missing; returns whether the file is complete, and from which byte on the server sent it."""
    had, known = _length(part), _known(part)
    resume = had > 0 and known is not None and known.url == url
    headers = {"User-Agent": "ood-data", "Accept-Encoding": "identity"}
    if resume and known is not None:
        if had == known.total:
            return True, had
        headers |= {"Range": f"bytes={had}-"} | ({"If-Range": known.validator} if known.validator else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in BUSY:
                after = error.headers.get("Retry-After", "")
                raise _Busy(error.code, float(after) if re.fullmatch(r"\d+", after) else None) from None
            if error.code == 416:  # nothing after what we had: it is another file by now
                _forget(part)
                return False, 0
            raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from None
    except ValueError as error:
        raise DownloadError(f"{url}: not an address ({error})") from None
    with answer:
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise DownloadError(f"{url}: the server answers with a web page instead of the file")
        start = had if answer.status == 206 else 0
        remote = _remote(url, answer, start)
        if answer.status == 206 and remote != known:  # it ignores If-Range, or sends no validator, and has another file by now
            _forget(part)
            return False, 0
        if size is not None and remote.total not in (None, size):
            raise DownloadError(f"{url}: the server has {remote.total:,} bytes, and {size:,} are expected: another file?")
        _check_space(part, remote.total, start)
        write_atomically(_record(part), json.dumps(asdict(remote)).encode())
        done = _append(answer, part, start, lambda done: progress(done, remote.total))
    expected = remote.total if remote.total is not None else size
    if expected is not None and done > expected:
        _forget(part)
        raise DownloadError(f"{url}: the server sent {done:,} bytes, more than the {expected:,} that it should")
    if expected is None:  # the end of the connection is all there is to tell
        write_atomically(_record(part), json.dumps(asdict(remote) | {"total": done}).encode())
    return expected is None or done == expected, start


def _append(answer: http.client.HTTPResponse, part: Path, start: int, progress: Callable[[int], None]) -> int:
    """Write what the server sends from byte `start` on, until it ends or the connection breaks; returns the file's length then."""
    done = start
    try:
        with part.open("r+b") as file:
            file.truncate(start)
            file.seek(start)
            progress(done)
            while block := _next(answer):
                file.write(block)
                done += len(block)
                progress(done)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # a write to a full disk names no file
        raise OSError(error.errno, f"{error.strerror} (run it again to continue)", str(part)) from error
    return done


def _next(answer: http.client.HTTPResponse) -> bytes:
    """What comes next; empty at the end, however the connection ended: timeouts, TLS and routing errors are all OSErrors."""
    try:
        return answer.read1(BLOCK)
    except (http.client.HTTPException, OSError):
        return b""


def _remote(url: str, answer: Any, start: int) -> _Remote:
    tag = answer.headers.get("ETag")
    validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start:
            return _Remote(url, None, None)
        return _Remote(url, validator, int(match[2]))
    length = answer.headers.get("Content-Length", "")
    return _Remote(url, validator, int(length) if re.fullmatch(r"\d+", length) else None)


def _record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _known(part: Path) -> _Remote | None:
    try:
        return _Remote(**json.loads(_record(part).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _forget(part: Path) -> None:
    """Empty, not removed: its lock is held."""
    with contextlib.suppress(FileNotFoundError):
        os.truncate(part, 0)
    _record(part).unlink(missing_ok=True)


def _check_space(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and free < total - start:
        raise OSError(f"not enough space in {part.parent}: {total - start:,} bytes are needed, {free:,} are free")


@contextlib.contextmanager
def _only_one(part: Path) -> Iterator[None]:
    """Hold the lock of a download; an empty .part is not left behind."""
    with part.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"another process is downloading {part.with_suffix('')}: let it finish, or stop it") from None
        try:
            yield
        finally:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
                _record(part).unlink(missing_ok=True)
