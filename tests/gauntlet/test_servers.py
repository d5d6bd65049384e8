"""Servers that do anything in any order: the file is right or absent, and no more than a few times its size is taken."""

from __future__ import annotations

import contextlib
import gzip
import random
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from attack import chance, many

from harness.io import download, retries
from harness.io.download import fetch
from helpers.server import CONTENT, Server
from splits.errors import DamagedError, OodDataError

__all__ = ["chance"]

pytestmark = pytest.mark.slow
Request = BaseHTTPRequestHandler
Behaviour = Callable[[Server, random.Random], object]


def answer(code: int, headers: dict[str, str], body: bytes) -> Callable[[Request], None]:
    def send(request: Request) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body)

    return send


def endless(server: Server) -> Callable[[Request], None]:
    def send(request: Request) -> None:
        answer(200, {}, b"")(request)
        server.pour(request, bytes(65536))

    return send


def lying_range(shift: int) -> Callable[[Request], None]:
    """Says that it sends what was asked for, and sends other bytes."""

    def send(request: Request) -> None:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = CONTENT[max(0, start - shift) :][: len(CONTENT) - start]
        headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"} if asked else {}
        answer(206 if asked else 200, headers | {"Content-Length": str(len(body)), "ETag": '"1"'}, body)(request)

    return send


def change(server: Server) -> Callable[[Request], None]:
    """Another file from now on, and its beginning; the true one comes back with the next request."""

    def send(request: Request) -> None:
        answer(200, {"Content-Length": str(len(CONTENT)), "ETag": '"2"'}, CONTENT[::-1][:100_000])(request)

    return send


BEHAVIOURS: dict[str, Behaviour] = {
    "right": lambda server, chance: "ok",
    "drop": lambda server, chance: chance.randrange(len(CONTENT)),
    "busy": lambda server, chance: "503",
    "page": lambda server, chance: "html",
    "missing": lambda server, chance: "404",
    "short": lambda server, chance: "short",
    "ignores ranges": lambda server, chance: "no range",
    "ignores If-Range": lambda server, chance: "ignore if-range",
    "endless": lambda server, chance: endless(server),
    "packed": lambda server, chance: answer(200, {"Content-Encoding": "gzip"}, gzip.compress(CONTENT)),
    "claims any length": lambda server, chance: answer(200, {"Content-Length": str(chance.choice([-5, 0, 10, 10**18]))}, CONTENT),
    "lies about ranges": lambda server, chance: lying_range(chance.randrange(1, 10_000)),
    "another file": lambda server, chance: change(server),
    "noise": lambda server, chance: lambda request: request.wfile.write(chance.randbytes(3000)),
    "loop": lambda server, chance: answer(302, {"Location": server.url}, b""),
    "another scheme": lambda server, chance: answer(
        302, {"Location": chance.choice(["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])}, b""
    ),
}


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server()) as server:
        yield server


def test_any_answers_in_any_order(server: Server, chance: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAIT", 0.001)
    monkeypatch.setattr(download, "TIMEOUT", 5.0)

    def check(path: Path) -> None:
        if path.read_bytes() != CONTENT:
            raise DamagedError(f"{path} is another file")

    for number in range(many(60, 1500)):
        names = [chance.choice(sorted(BEHAVIOURS)) for _ in range(chance.randint(1, 6))]
        size = chance.choice([None, len(CONTENT)])
        print(number, size, names)
        server.script = [*(BEHAVIOURS[name](server, chance) for name in names), "ok"]
        server.etag = chance.choice(['"1"', None])
        path = tmp_path / str(number) / "file"
        for _ in range(len(names) + 2):  # the same again, until it is there
            with contextlib.suppress(OodDataError):
                fetch([server.url], path, check, size, most=2 * len(CONTENT))
            part = path.with_name("file.part")
            assert not path.exists() or path.read_bytes() == CONTENT
            assert not part.exists() or part.stat().st_size <= 2 * len(CONTENT)
            if path.exists():
                break
        assert path.exists()
        assert [entry.name for entry in path.parent.iterdir()] == ["file"]
