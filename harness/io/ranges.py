"""Parts of a file on a server, by HTTP range requests, all of the same version of it, as far as the server tells versions apart."""

from __future__ import annotations

import http.client
import io
import threading
import urllib.error
from typing import Any

from harness.io import download
from harness.io.part import Remote, remote_of
from harness.io.retries import Waits, reason_of
from harness.io.web import Answer, DownloadError, Passing, answered

ATTEMPTS = 5  # at a part, each a connection of its own


class Ranges:
    """A file on a server, read in parts; several threads may ask at a time, once the first part is there.

    Args:
        url: its address.
        most: bytes that it can have.

    Attributes:
        received: how many bytes have come.

    Raises:
        DownloadError: saying why, if the server has no such file, or gives it only whole.
    """

    def __init__(self, url: str, most: int) -> None:
        self.url = url
        self._remote: Remote | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.received = 0
        self.read(0, 1)
        if self.total > most:
            raise DownloadError(f"{url}: the server has {self.total:,} bytes, and at most {most:,} are expected: another file?")

    @property
    def total(self) -> int:
        """The bytes of the whole file."""
        return (self._remote.total if self._remote else None) or 0

    @property
    def version(self) -> str | None:
        """What the server calls this version of the file, an ETag or a date; if it is None, only a change of its length is noticed."""
        return self._remote.validator if self._remote else None

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`.

        Raises:
            DownloadError: if they can't be had, or the file is another one than when the first part came.
        """
        waits = Waits(self.url, self._over)
        for attempt in range(1, ATTEMPTS + 1):
            self._check_stopped()
            asked: float | None = None
            try:
                return self._ask(start, stop)
            except Passing as error:
                reason = str(error).removeprefix(f"{self.url}: ")
            except DownloadError:
                raise
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason, asked = reason_of(self.url, error, self._remote is not None)
            if attempt < ATTEMPTS:
                waits.wait(reason, asked)
        raise DownloadError(f"{self.url}: {reason}, {ATTEMPTS} times in a row")

    def stop(self) -> None:
        """Let all that is being read, in whatever thread, fail soon."""
        self._over.set()

    def _check_stopped(self) -> None:
        if self._over.is_set():
            raise DownloadError(f"{self.url}: it was stopped")

    def _ask(self, start: int, stop: int) -> bytes:
        headers = {"User-Agent": "ood-data", "Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}
        if self._remote is not None and self._remote.validator:
            headers["If-Range"] = self._remote.validator
        with answered(self.url, headers, download.TIMEOUT, download.SLOWEST) as answer:
            self._check(answer, start)
            found = b""
            while len(found) < stop - start and (block := answer.read()):
                found += block
                self._check_stopped()
        with self._lock:
            self.received += len(found)
        if len(found) < stop - start:
            raise Passing(f"{self.url}: the connection was dropped", ATTEMPTS)
        if len(found) > stop - start:
            raise DownloadError(f"{self.url}: {stop - start:,} bytes are expected, and the server sends more")
        return found

    def _check(self, answer: Answer, start: int) -> None:
        """Raise DownloadError unless it is the part that was asked for, of the file that it was before."""
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise DownloadError(f"{self.url}: the server answers with a web page instead of the file")
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise DownloadError(f"{self.url}: the server sends the file packed, unasked")
        if answer.status != 206:
            if self._remote is None:
                raise DownloadError(f"{self.url}: the server gives the file only whole: it answers no range requests")
            raise self.changed()
        remote = remote_of(self.url, answer, start)
        if remote.total is None:
            raise DownloadError(f"{self.url}: the server answers with another part of the file than was asked for")
        if self._remote is None:
            self._remote = remote
        elif remote != self._remote:
            raise self.changed()

    def changed(self) -> DownloadError:
        """The error that says that it is another file by now."""
        return DownloadError(f"{self.url}: the file at the server changed meanwhile: run it again")


class RangeFile(io.RawIOBase):
    """A file on a server as one to read and to seek in, for a look at how it is built.

    Args:
        ranges: of the file.
        most: bytes that may be read so: what a file claims of itself may be anything.

    Attributes:
        failure: what reading raised last, which some readers take for a sign of damage.
    """

    def __init__(self, ranges: Ranges, most: int) -> None:
        self._ranges, self._left, self._position = ranges, most, 0
        self.failure: DownloadError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ranges.total}[whence] + offset
        if position < 0:
            raise ValueError(f"negative seek position {position}")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        stop = min(self._position + len(buffer), self._ranges.total)
        if stop <= self._position:
            return 0
        self._left -= stop - self._position
        try:
            if self._left < 0:
                raise DownloadError(f"{self._ranges.url}: its directory is larger than that of any official file: another file?")
            found = self._ranges.read(self._position, stop)
        except DownloadError as error:
            self.failure = error
            raise
        buffer[: len(found)] = found
        self._position = stop
        return len(found)
