"""Which failures of a server are worth another request, and how long to wait before it."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import urllib.error
from urllib.parse import urlsplit

from harness.io.web import DownloadError, in_one_line, seconds_to_wait

logger = logging.getLogger(__name__)

BUSY = (408, 425, 429, 500, 502, 503, 504)
WAIT = 1.0  # seconds before the first retry, doubled each time
LONGEST_WAIT = 60.0
LONGEST_ASKED = 300.0  # seconds that a server may ask to wait
WORTH_SAYING = 5.0
FAILURES = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)  # of a request, not of a disk


def reason_of(url: str, error: Exception, begun: bool) -> tuple[str, float | None]:
    """Why a request failed, in words, and the seconds that the server asks to wait, if it says so.

    Args:
        url: that was asked for.
        error: one of `FAILURES`.
        begun: whether the server was reached before.

    Raises:
        DownloadError: if it won't be better within minutes.
    """
    if isinstance(error, urllib.error.HTTPError):
        with error:
            reason, asked = f"the server answers {error.code}", seconds_to_wait(error.headers.get("Retry-After"))
            if error.code not in BUSY:
                raise DownloadError(f"{url}: {reason} {in_one_line(error.reason)}") from None
        if asked is not None and asked > LONGEST_ASKED:
            raise DownloadError(f"{url}: {reason} and asks to come back in {asked:,.0f} seconds: run it again then") from None
        return reason, asked
    cause = getattr(error, "reason", None) or error
    reason = in_one_line(cause) or type(error).__name__
    if not begun and isinstance(cause, ConnectionRefusedError | socket.gaierror):  # this won't change within seconds
        raise DownloadError(f"{url} cannot be reached ({reason}): is there a network?") from None
    return reason, None


class Waits:
    """The waits before the next request, each twice as long as the one before.

    Args:
        url: that is asked for.
        over: which once set ends a wait.
    """

    def __init__(self, url: str, over: threading.Event | None = None) -> None:
        self._host = urlsplit(url).hostname
        self._over = over or threading.Event()
        self._next = WAIT

    def begin_anew(self) -> None:
        """Let the next wait be a short one."""
        self._next = WAIT

    def wait(self, reason: str, asked: float | None) -> None:
        """Wait as long as the server asks, if it does."""
        seconds = min(self._next, LONGEST_WAIT) if asked is None else asked
        level = logging.INFO if seconds >= WORTH_SAYING else logging.DEBUG
        logger.log(level, "%s: %s; trying again in %.0f seconds", self._host, reason, seconds)
        self._over.wait(seconds)
        self._next *= 2
