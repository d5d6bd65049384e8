"""A server on this machine that answers as it is told to."""

from __future__ import annotations

import contextlib
import json
import random
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CONTENT = random.Random(0).randbytes(300_000)


class Server:
    """Serves `content` at `url`; each request takes one behaviour from `script`, the last one for good.

    Behaviours: "ok"; a number n: drop the connection after n bytes; "503"; "404"; "html"; "short": claim more than is sent;
    "no range": answer ranges with everything; "ignore if-range": serve ranges of whatever it has; or a function of the request.
    A path that is in `routes` has its own bytes, JSON or behaviour instead.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self.content, self.sent, self.requests = CONTENT, 0, 0
        self.etag: str | None = '"1"'
        self.script: list[Any] = ["ok"]
        self.routes: dict[str, Any] = {}
        self.pause = 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # who has heard enough hangs up
                    server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.root = f"http{'s' if certificate else ''}://127.0.0.1:{self.http.server_port}"
        self.url = f"{self.root}/file"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        path = request.path.split("?")[0]
        if path in self.routes and not isinstance(self.routes[path], str):
            self.give(request, self.routes[path])
            return
        how = self.routes[path] if path in self.routes else self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(how):
            how(request)
            return
        if how in ("503", "404"):
            request.send_response(int(how))
            request.send_header("Retry-After", "0")
            request.end_headers()
            return
        if how == "html":
            request.send_response(200)
            request.send_header("Content-Type", "text/html; charset=utf-8")
            request.end_headers()
            request.wfile.write(b"<html>come back later</html>")
            return
        start, stop, asked = 0, len(self.content), request.headers.get("Range")
        same = request.headers.get("If-Range") in (None, self.etag) or how == "ignore if-range"
        if asked and same and how != "no range":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(self.content)) + 1, len(self.content))
            if start >= len(self.content):
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(self.content)}")
        else:
            request.send_response(200)
        body = self.content[start:stop]
        request.send_header("Content-Type", "application/octet-stream")
        if self.etag:
            request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(body) + (100 if how == "short" else 0)))
        request.end_headers()
        if isinstance(how, int):
            body = body[:how]
        for position in range(0, len(body), 10_000):
            block = body[position : position + 10_000]
            request.wfile.write(block)
            self.sent += len(block)
            time.sleep(self.pause)

    def give(self, request: BaseHTTPRequestHandler, what: Any) -> None:
        """Answer with bytes, or with an object as JSON."""
        kind, data = ("octet-stream", what) if isinstance(what, bytes) else ("json", json.dumps(what).encode())
        request.send_response(200)
        request.send_header("Content-Type", f"application/{kind}")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def pour(self, request: BaseHTTPRequestHandler, block: bytes) -> None:
        """Send it again and again, until nobody listens."""
        with contextlib.suppress(ConnectionError):
            while True:
                request.wfile.write(block)
                self.sent += len(block)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
