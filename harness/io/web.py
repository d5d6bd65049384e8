"""One answer of a web server that may do anything: http or https and nothing else, https to the end, cut off if next to nothing comes."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from splits.errors import OodDataError

BLOCK = 2**20
STALLS = 3  # in a row, after which a server that is too slow is left


class DownloadError(OodDataError, OSError):
    """A file was not downloaded: one sentence that says from where, why, and what to do."""


class Passing(DownloadError):
    """What may be over the next time.

    Attributes:
        attempts: how many are worth making.
    """

    def __init__(self, message: str, attempts: int) -> None:
        self.attempts = attempts
        super().__init__(message)


class Answer:
    """What a server sends.

    Attributes:
        status: of HTTP.
        headers: its.
        broken: whether the connection ended before the answer did, as far as that can be seen.
    """

    def __init__(self, url: str, response: http.client.HTTPResponse, watch: _Watch) -> None:
        self.status, self.headers = response.status, response.headers
        self.broken = False
        self._url, self._response, self._watch = url, response, watch

    def read(self) -> bytes:
        """What comes next, at most `BLOCK` bytes; empty at the end, however the connection ended.

        Raises:
            Passing: if next to nothing came for too long.
        """
        try:
            block = self._response.read1(BLOCK)
        except (http.client.HTTPException, OSError):  # timeouts, TLS and routing errors are all OSErrors
            block, self.broken = b"", True
        self._watch.received += len(block)
        self._watch.check(self._url)
        return block


@contextlib.contextmanager
def answered(url: str, headers: Mapping[str, str], timeout: float, slowest: int) -> Iterator[Answer]:
    """Ask for an address.

    Args:
        url: http:// or https://.
        headers: of the request.
        timeout: seconds that a server may send nothing, or so little that it is less than `slowest`.
        slowest: bytes a second.

    Raises:
        DownloadError: for an address that isn't one, a redirection away from https; `Passing`, if next to nothing comes.
        urllib.error.URLError, http.client.HTTPException, OSError: for what else can go wrong.
    """
    if not re.match("https?://[^/]", url, re.IGNORECASE):
        raise DownloadError(f"{url!r} is no address of a file: one that begins with https:// or http:// is expected")
    with _Watch(timeout, slowest) as watch:
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            _Http(watch),
            _Https(watch),
            _Redirects(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        try:
            response = opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=timeout)
        except ValueError as error:
            raise DownloadError(f"{url!r} is no address of a file ({error})") from None
        except (OSError, http.client.HTTPException):
            watch.check(url)
            raise
        with response:
            yield Answer(url, response, watch)


def seconds_to_wait(header: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date; None if it says neither."""
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", header.strip()):
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def in_one_line(text: object) -> str:
    """What a server says, fit to be shown: it may hold anything."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())[:200]


class _Watch:
    """Shuts a connection when, over some seconds, fewer bytes came than there should.

    The time-out of a socket starts anew with every byte, so a server that drips could hold us for ever, in its headers too.
    """

    def __init__(self, seconds: float, slowest: int) -> None:
        self.seconds, self.slowest = seconds, slowest
        self.received = 0
        self._slow = False
        self._over = threading.Event()

    def follow(self, connection: socket.socket) -> None:
        """Watch a new connection, and no longer the one that led there."""
        self._over.set()
        self._over = threading.Event()
        threading.Thread(target=self._run, args=(connection, self._over), daemon=True).start()

    def check(self, url: str) -> None:
        """Raise Passing if it was too slow."""
        if self._slow:
            raise Passing(f"{url}: fewer than {self.slowest:,} bytes a second came for {self.seconds:g} seconds", STALLS)

    def _run(self, connection: socket.socket, over: threading.Event) -> None:
        before = self.received
        while not over.wait(self.seconds):
            if self.received - before < self.slowest * self.seconds:
                self._slow = True
                with contextlib.suppress(OSError):  # it ended by itself
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # not TLS's own, which another thread may be in
                return
            before = self.received

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._connection = _watched(http.client.HTTPConnection, watch)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._connection = _watched(http.client.HTTPSConnection, watch)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


def _watched(kind: type[http.client.HTTPConnection], watch: _Watch) -> Any:
    """A kind of connection that the watch knows of."""

    class Watched(kind):  # type: ignore[misc,valid-type]
        def connect(self) -> None:
            super().connect()
            watch.follow(self.sock)

    return Watched


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and (scheme, urlsplit(req.full_url).scheme) != ("http", "http"):
            raise DownloadError(
                f"{req.full_url}: the server redirects to {in_one_line(newurl)}, which is not https and not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
