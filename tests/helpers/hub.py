"""A server on this machine that plays the Hugging Face Hub, as its own client speaks to it: repositories, LFS uploads, commits.

It keeps what it is sent, checks what the real one checks (the hash of an upload, that a commit's files are there), and refuses as told.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_ours"
COMMIT = "c" * 40
REGULAR = (".md", ".json", ".toml", ".csv")  # kept in git; everything else in LFS, as a dataset's .gitattributes has it


class Hub:
    """Attributes:
    repositories: by USER/NAME: private or not, and the bytes of each file.
    refuse: the HTTP status of every answer to a path that fits a pattern.
    uploads: the names of the files whose bytes came; `commits`, how many.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.refuse: dict[str, int] = {}
        self.uploads: list[str] = []
        self.requests: list[str] = []
        self.commits = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            do_POST = do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.split("?")[0]
        self.requests.append(f"{request.command} {path}")
        refused = next((status for pattern, status in self.refuse.items() if re.search(pattern, path)), None)
        of_storage = path.startswith("/storage/")  # its addresses are signed, and come without a token
        if refused is None and not of_storage and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            refused = 401
        if refused is not None:
            error = {401: "Invalid credentials in Authorization header"}.get(refused, "no")
            self.give(request, {"error": error}, refused, {"X-Error-Message": error})
            return
        if of_storage:
            self.keep(request, path, body)
            return
        for pattern, what in ROUTES.items():
            if match := re.fullmatch(pattern, path):
                lines = [json.loads(line) for line in body.splitlines() if line] if "commit" in path else json.loads(body or "{}")
                answer = what(self, lines, *match.groups())
                self.give(request, answer[1], answer[0]) if isinstance(answer, tuple) else self.give(request, answer)
                return
        self.give(request, {"error": f"no route {path}"}, 404)

    def give(self, request: BaseHTTPRequestHandler, what: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(what).encode()
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    def keep(self, request: BaseHTTPRequestHandler, path: str, body: bytes) -> None:
        oid = path.rsplit("/", 1)[1]
        fits = hashlib.sha256(body).hexdigest() == oid
        if fits:
            self.objects[oid] = body
            self.uploads.append(oid)
        self.give(request, {}, 200 if fits else 400)

    def create(self, body: Any) -> Any:
        name = f"{body['organization']}/{body['name']}"
        if name in self.repositories:
            return 409, {"error": "You already created this dataset repo", "url": f"{self.url}/datasets/{name}"}
        self.repositories[name] = {"private": body.get("visibility") == "private", "files": {}}
        return {"url": f"{self.url}/datasets/{name}"}

    def info(self, body: Any, name: str) -> Any:
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        return {"id": name, "private": self.repositories[name]["private"], "sha": COMMIT, "tags": [], "siblings": []}

    def preupload(self, body: Any, name: str) -> Any:
        files = []
        for file in body["files"]:
            mode = "regular" if file["path"].endswith(REGULAR) and file["size"] < 10_000_000 else "lfs"
            there = self.repositories[name]["files"].get(file["path"])
            oid = None
            if there is not None:
                git = hashlib.sha1(b"blob %d\0" % len(there) + there, usedforsecurity=False)
                oid = git.hexdigest() if mode == "regular" else hashlib.sha256(there).hexdigest()
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def batch(self, body: Any, name: str) -> Any:
        objects = []
        for each in body["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.url}/storage/{each['oid']}"}}}
            objects.append({"oid": each["oid"], "size": each["size"], **({} if each["oid"] in self.objects else upload)})
        return {"transfer": "basic", "objects": objects}

    def tree(self, body: Any, name: str) -> Any:
        files = self.repositories[name]["files"]
        return [{"type": "file", "path": path, "size": len(data), "oid": COMMIT} for path, data in files.items()]

    def commit(self, lines: Any, name: str) -> Any:
        files, there = {}, self.repositories[name]["files"]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"LFS object {value['oid']} does not exist"}
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                if value["path"] not in there:
                    return 400, {"error": f"{value['path']} does not exist"}
                del there[value["path"]]
            elif line["key"] != "header":
                return 400, {"error": f"unknown operation {line['key']}"}
        there |= files
        self.commits += 1
        return {"commitUrl": f"{self.url}/datasets/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


ROUTES: dict[str, Any] = {
    "/api/repos/create": Hub.create,
    "/api/validate-yaml": lambda hub, body: {"errors": [], "warnings": []},
    "/api/datasets/([^/]+/[^/]+)(?:/revision/main)?": Hub.info,
    "/api/datasets/([^/]+/[^/]+)/tree/main": Hub.tree,
    "/api/datasets/([^/]+/[^/]+)/preupload/main": Hub.preupload,
    r"/datasets/([^/]+/[^/]+)\.git/info/lfs/objects/batch": Hub.batch,
    "/api/datasets/([^/]+/[^/]+)/commit/main": Hub.commit,
}
