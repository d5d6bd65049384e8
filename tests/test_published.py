"""`--flow openai` against a server of our own: fetched once, continued after interruptions, recorded."""

from __future__ import annotations

import hashlib
import http.server
import io
import itertools
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from celebglow.convert import openai
from celebglow.convert.openai import openai_flow
from celebglow.convert.openai_directions import nhwc_to_nchw
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from harness.data.store import Store
from helpers.commands import assert_one_clear_line
from helpers.flows import random_glow
from helpers.graphs import GlowGraph


class Server:
    """Files by path; `cuts`: bytes after which the next answers break off; `log`: (path, Range, bytes sent)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.etags = True
        self.ranges = True
        self.type = "application/octet-stream"
        self.log: list[tuple[str, str | None, int]] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None: ...

            def do_GET(self) -> None:
                content = server.files.get(self.path)
                wanted = self.headers.get("Range")
                if content is None or server.statuses:
                    server.log.append((self.path, wanted, 0))
                    self.send_error(404 if content is None else server.statuses.pop(0))
                    return
                etag = f'"{hashlib.md5(content).hexdigest()}"'
                start = 0
                if wanted and server.ranges and self.headers.get("If-Range") == etag:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("ETag", etag)
                    self.end_headers()
                    server.log.append((self.path, wanted, 0))
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Type", server.type)
                self.send_header("Content-Length", str(len(content) - start))
                if server.etags:
                    self.send_header("ETag", etag)
                self.end_headers()
                sent = content[start:]
                if server.cuts:
                    sent = sent[: server.cuts.pop(0)]
                self.wfile.write(sent)
                server.log.append((self.path, wanted, len(sent)))

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("harness.io.retries.WAIT", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    flow = random_glow(border=True, quantize=True)
    GlowGraph(flow, folded=True).save(tmp_path / "graph.pb")
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(40, flow.num_latents)).astype(np.float32))
    server.files["/large3/graph_unoptimized.pb"] = (tmp_path / "graph.pb").read_bytes()
    server.files["/z_manipulate.npy"] = (tmp_path / "z.npy").read_bytes()
    monkeypatch.setenv("OOD_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OOD_DATA_OPENAI_URL", server.url)
    return server


def test_generate_from_the_published_flow(tmp_path: Path, published: Server) -> None:
    published.cuts = [10_000]
    arguments = ["generate", "celebglow", "--flow", "openai", "--persons", "2", "--levels", "2", "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    requests = len(published.log)
    records = json.loads((tmp_path / "home" / "openai" / "downloads.json").read_text())
    for each, (path, content) in zip(records, published.files.items(), strict=True):
        assert each["url"].endswith(path)
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert each["bytes"] == len(content)
    published.files.clear()
    assert CelebGlowPipeline.from_pretrained(openai_flow()).default_attributes == ("smile", "blond", "age")
    assert len(published.log) == requests
    assert not list((tmp_path / "home").rglob("*.part*"))


@pytest.mark.slow  # a graph of the published size: 256 x 256, six levels of 32 steps, but narrow
def test_the_whole_route_at_full_depth(tmp_path: Path, published: Server) -> None:
    torch.manual_seed(0)
    flow = Glow(resolution=256, steps=(32,) * 6, widths=4, border=True).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "conv3" in name or "prior" in name:  # no part is the identity, and 192 steps still don't blow up
                parameter.add_(0.01 * torch.randn_like(parameter))
    GlowGraph(flow, conditioned=True).save(tmp_path / "graph.pb")
    table = 0.02 * np.random.default_rng(0).normal(size=(40, flow.num_latents)).astype(np.float32)
    np.save(tmp_path / "z.npy", table)
    published.files["/large3/graph_unoptimized.pb"] = (tmp_path / "graph.pb").read_bytes()
    published.files["/z_manipulate.npy"] = (tmp_path / "z.npy").read_bytes()
    arguments = [
        "--persons",
        "1",
        "--levels",
        "2",
        "--attributes",
        "Smiling,Wearing_Hat,Eyeglasses",
        "--out",
        str(tmp_path / "data"),
    ]
    result = CliRunner().invoke(main, ["generate", "celebglow", "--flow", "openai", *arguments])
    assert result.exit_code == 0, result.output
    pipeline = CelebGlowPipeline.from_pretrained(openai_flow())
    assert isinstance(pipeline.flow, Glow)
    images = Store(tmp_path / "data", "celebglow").read(0, 8)
    rows = nhwc_to_nchw(table[[31, 35, 15]], flow.latent_shapes)
    latent = pipeline.person(0)
    for index, values in enumerate(itertools.product((-1.0, 1.0), repeat=3)):
        walked = latent + torch.tensor(values) @ torch.from_numpy(rows)
        expected = flow.postprocess(flow.decode(walked[None]))[0].permute(1, 2, 0).numpy()
        assert (np.abs(images[index].astype(int) - expected.astype(int)) > 0).mean() < 1e-4


@pytest.mark.parametrize("what", ["a page", "cut", "the table"])
@pytest.mark.parametrize("wrong", ["large3/graph_unoptimized.pb", "z_manipulate.npy"])
def test_what_cannot_be_converted_is_set_aside_and_fetched_anew(tmp_path: Path, published: Server, wrong: str, what: str) -> None:
    right = dict(published.files)
    content = right[f"/{wrong}"]
    bad = {
        "a page": b"<html>sorry</html>",
        "cut": content[:9000],
        "the table": right["/z_manipulate.npy"] if wrong.endswith(".pb") else npy(np.zeros((40, 7), np.float32)),
    }
    published.files[f"/{wrong}"] = bad[what]
    root, name = tmp_path / "home" / "openai", Path(wrong).name
    noticed_at_once = what == "a page" or (what == "the table" and wrong.endswith(".pb"))
    result = CliRunner().invoke(main, ["flow", "info", "openai"])
    assert result.exit_code == 1
    if noticed_at_once:
        assert f"so it is no {name}: a web page?" in result.stderr
    else:
        assert f"It was set aside as {root / name}.rejected: the same command downloads it anew" in result.stderr
        assert (root / f"{name}.rejected").read_bytes() == bad[what]
        again = CliRunner().invoke(main, ["flow", "info", "openai"])
        assert again.exit_code == 1
        assert "the server has sent the same bytes again, so please report it" in again.stderr
    assert not (root / name).exists()
    published.files |= right
    assert CliRunner().invoke(main, ["flow", "info", "openai"]).exit_code == 0
    assert sorted(path.name for path in root.iterdir()) == ["downloads.json", "flow", "graph_unoptimized.pb", "z_manipulate.npy"]
    assert len(json.loads((root / "downloads.json").read_bytes())) == 2


def test_a_cache_that_holds_a_page_heals(tmp_path: Path, published: Server) -> None:
    root = tmp_path / "home" / "openai"
    root.mkdir(parents=True)
    (root / "graph_unoptimized.pb").write_bytes(b"<html>kept by an older version</html>")
    with pytest.raises(OSError, match="It was set aside"):
        openai_flow()
    assert (openai_flow() / "model_index.json").is_file()


def test_the_second_address_is_tried(tmp_path: Path, published: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OOD_DATA_OPENAI_URL")
    monkeypatch.setattr(openai, "BASES", ("http://127.0.0.1:9/", published.url))
    openai_flow()
    records = json.loads((tmp_path / "home" / "openai" / "downloads.json").read_text())
    assert [entry["url"].startswith(published.url) for entry in records] == [True, True]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OOD_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OOD_DATA_OPENAI_URL", "http://127.0.0.1:9/")  # the port where nothing listens
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(main, ["generate", "celebglow", "--flow", "openai", "--out", str(tmp_path / "data")])
    assert_one_clear_line(
        subprocess.CompletedProcess([], result.exit_code, "", result.stderr),
        1,
        "graph_unoptimized.pb cannot be reached",
        "is there a network?",
        "who has both files runs ood-data flow convert graph_unoptimized.pb",
    )
