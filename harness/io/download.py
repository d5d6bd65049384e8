"""One file from a server that may do anything: resumed across connections and processes, checked, then renamed into place.

Beside the file, while it is unfinished: `<name>.part`, its first bytes, and `<name>.part.json`, what the server said it is. A
server that has another file by now (another ETag, date or length) is asked for all of it.
"""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.io.part import LOOKED_AT, Part, remote_of
from harness.io.retries import FAILURES, Waits, reason_of
from harness.io.web import BLOCK, Answer, DownloadError, Passing, answered, in_one_line

MOST = 16 * 2**30  # bytes of a file of which nothing else is known: the largest that we fetch, MPI3D, has 12.7e9
TIMEOUT = 60.0  # seconds without a byte, or with next to none:
SLOWEST = 4096  # bytes a second
RETRIES = 8  # in a row without as many new bytes


class Unproven(DownloadError):
    """A complete file is not known to be right, nor to be wrong: it is kept aside for the user to decide."""


Progress = Callable[[int, int | None], None]


def fetch(
    urls: Sequence[str],
    path: Path,
    check: Callable[[Path], None] = lambda path: None,
    size: int | None = None,
    progress: Progress = lambda done, total: None,
    most: int | None = None,
) -> str | None:
    """Download to `path`, from the first of the addresses that has the file. Does nothing if `path` is there.

    Args:
        urls: addresses of the same file.
        path: where it goes; its folder is made. If its name ends as one of `BEGINNINGS`, the file begins like that.
        check: called with the complete file before it is put in place; what it raises ends the download and
            removes the file, unless it is `Unproven`: then it stays as `.part`, and the next call checks it again.
        size: expected bytes, if known.
        progress: called with the bytes that have arrived and their total, if known.
        most: bytes that the file can have, where `size` is unknown; `MOST` if None.

    Returns:
        the address that had it; None if `path` was there.

    Raises:
        DownloadError: if no address has it, saying for each why not. What has arrived is kept, and the next call continues.
        BusyError: if another process is downloading it.
        DamagedError: if what lies there as `.part` is a link, or no file.
        OSError: if there is no space for it, or it cannot be written.
    """
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    with Part(path) as part:
        if path.exists():  # another process was faster
            return None
        failures = []
        for url in urls:
            try:
                _download(url, part, _Expected(size, MOST if most is None else most), progress)
                break
            except DownloadError as error:
                failures.append(str(error))
        else:
            kept = "; the part that arrived is kept: run the command again to continue" if part.length else ""
            raise DownloadError(f"{path.name} was not downloaded: {'; '.join(failures)}{kept}")
        try:
            check(part.path)
        except Unproven:
            raise
        except Exception:
            part.forget()
            raise
        part.finish(path)
        return url


def digests(path: Path) -> tuple[str, str]:
    """("md5:…", "sha256:…") of a file."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            md5.update(block)
            sha256.update(block)
    return f"md5:{md5.hexdigest()}", f"sha256:{sha256.hexdigest()}"


@dataclass(frozen=True)
class _Expected:
    """How long the file is, or at most can be."""

    size: int | None
    most: int

    def check(self, url: str, total: int | None) -> None:
        """Raise DownloadError if a server that has so many bytes has another file."""
        if total is not None and (total > self.most if self.size is None else total != self.size):
            raise DownloadError(f"{url}: the server has {total:,} bytes, and {self} are expected: another file?")

    def __str__(self) -> str:
        return f"at most {self.most:,}" if self.size is None else f"{self.size:,}"


def _download(url: str, part: Part, expected: _Expected, progress: Progress) -> None:
    """Fill `part` from one address, with retries while the server is busy or drops the connection."""
    idle, starts, passing, waits = 0, 0, 0, Waits(url)
    while True:
        before, asked, well = part.length, None, True
        try:
            complete, start = _receive(url, part, expected, progress)
            if complete:
                return
            reason = "the connection was dropped"
            starts += start == 0
        except Passing as error:
            passing, well, reason = passing + 1, False, str(error).removeprefix(f"{url}: ")
            if passing >= error.attempts:
                raise
        except FAILURES as error:
            reason, asked = reason_of(url, error, before > 0)
        if well and part.length - before >= SLOWEST:
            idle, passing = 0, 0
            waits.begin_anew()
        else:
            idle += 1
        if idle >= RETRIES or starts >= RETRIES:
            times = f"{idle} times in a row" if idle >= RETRIES else f"and {starts} times it had to start anew"
            raise DownloadError(f"{url}: {reason}, {times}")
        waits.wait(reason, asked)


def _receive(url: str, part: Part, expected: _Expected, progress: Progress) -> tuple[bool, int]:
    """One request for what is missing; returns whether the file is complete, and from which byte on the server sent it."""
    had, known = part.length, part.known
    headers = {"User-Agent": "ood-data", "Accept-Encoding": "identity"}
    if had > 0 and known is not None and known.url == url:
        if had == known.total:
            part.check_beginning(url)
            return True, had
        headers |= {"Range": f"bytes={had}-"} | ({"If-Range": known.validator} if known.validator else {})
    try:
        with answered(url, headers, TIMEOUT, SLOWEST) as answer:
            return _take(answer, url, part, expected, progress)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        with error:  # nothing after what we had: it is another file by now
            part.forget()
            return False, 0


def _take(answer: Answer, url: str, part: Part, expected: _Expected, progress: Progress) -> tuple[bool, int]:
    """What a server answers, if it is more of what was had, or the file anew; returns as `_receive`."""
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: the server answers with a web page instead of the file")
    if (packed := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise DownloadError(f"{url}: the server sends the file packed as {in_one_line(packed)}, unasked")
    if answer.status not in (200, 206):
        raise DownloadError(f"{url}: the server answers {answer.status}, without the file")
    had = part.length
    start = had if answer.status == 206 else 0
    remote = remote_of(url, answer, start)
    if answer.status == 206 and remote != part.known:  # it ignores If-Range, or sends no validator, and has another file by now
        part.forget()
        return False, 0
    expected.check(url, remote.total)
    total = expected.size if remote.total is None else remote.total
    part.check_space(None if total is None else total - had)
    part.remember(replace(remote, total=total))
    part.cut(start)
    done = _append(answer, url, part, expected, total, lambda done: progress(done, total))
    if total is None and not answer.broken:  # the end of the answer is all there is to tell
        part.remember(replace(remote, total=done))
        part.check_beginning(url)
        return True, start
    return done == total, start


def _append(answer: Answer, url: str, part: Part, expected: _Expected, total: int | None, progress: Callable[[int], None]) -> int:
    """Write what the server sends, until it ends or the connection breaks; returns the file's length then."""
    done = part.length
    judged, limit = False, expected.most if total is None else total
    progress(done)
    while block := answer.read():
        if done + len(block) > limit:
            part.forget()
            raise DownloadError(f"{url}: {expected} bytes are expected, and the server sends more: another file?")
        part.append(block, None if total is None else total - done)
        done += len(block)
        if not judged and done >= LOOKED_AT:
            part.check_beginning(url)
            judged = True
        progress(done)
    if done == total:
        part.check_beginning(url)
    part.sync()
    return done
