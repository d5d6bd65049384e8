"""Downloads from servers that drop, lie, change the file, answer web pages and 503: the file is right or absent."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import http.client
import json
import logging
import os
import random
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import splits
from cli import main
from harness.data.store import Store
from harness.data.verify import verify
from harness.formats import catalog as sources
from harness.formats import dsprites
from harness.formats.catalog import File
from harness.formats.content import check_content
from harness.formats.convert import convert
from harness.formats.fetch import fetch_dataset
from harness.formats.readers import open_reader
from harness.io import download, part, retries
from harness.io.download import fetch
from harness.io.web import DownloadError
from helpers import official
from helpers.commands import ROOT
from helpers.files import no_file_above
from helpers.server import CONTENT, Server
from splits.arrays import BadFile


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(retries, "WAIT", 0.001)
    server = Server()
    yield server
    server.close()


def head(request: BaseHTTPRequestHandler, status: int = 200, **headers: object) -> None:
    """The head of an answer; an underscore for a hyphen."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check(part: Path) -> None:
    if part.read_bytes() != CONTENT:
        raise BadFile("wrong bytes")


def test_a_full_disk_is_named_and_the_download_continues(server: Server, tmp_path: Path) -> None:
    with no_file_above(120_000), pytest.raises(OSError, match=r"File too large.*run it again") as caught:
        fetch([server.url], tmp_path / "f", check, len(CONTENT))
    assert caught.value.filename == str(tmp_path / "f.part")
    assert 100_000 <= (tmp_path / "f.part").stat().st_size <= 120_000
    server.sent = 0
    fetch([server.url], tmp_path / "f", check, len(CONTENT))
    assert server.sent <= len(CONTENT) - 100_000
    assert left(tmp_path) == ["f"]


@pytest.mark.parametrize("error", [ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), OSError(113, "No route to host")])
def test_however_a_connection_ends_it_is_tried_again(
    server: Server, tmp_path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = http.client.HTTPResponse.read1, 0

    def broken(answer: http.client.HTTPResponse, n: int = -1) -> bytes:
        nonlocal reads
        reads += 1
        if reads == 2:
            raise error
        return read(answer, n)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", broken)
    fetch([server.url], tmp_path / "f", check, len(CONTENT))
    assert left(tmp_path) == ["f"]


def test_a_plain_download_happens_once(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch([server.url], tmp_path / "new" / "f", check, len(CONTENT), lambda done, total: seen.append((done, total)))
    fetch([server.url], tmp_path / "new" / "f", check)
    assert (tmp_path / "new/f").read_bytes() == CONTENT
    assert left(tmp_path / "new") == ["f"]
    assert server.requests == 1
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("etag", ['"1"', None], ids=["with a validator", "without"])
def test_dropped_connections_are_resumed(server: Server, tmp_path: Path, etag: str | None) -> None:
    server.etag = etag
    server.script = [50_000, 1, 20_000, 0, 100_000, "503", 0, 3, "ok"]
    fetch([server.url], tmp_path / "f", check)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.sent <= 1.05 * len(CONTENT)


def test_random_drops(server: Server, tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(20):
        server.script = [*(chance.randrange(60_000) for _ in range(chance.randrange(12))), "ok"]
        before = server.sent
        fetch([server.url], tmp_path / f"f{number}", check)
        assert (tmp_path / f"f{number}").read_bytes() == CONTENT
        assert server.sent - before <= 1.05 * len(CONTENT)


def test_a_killed_process_is_continued(server: Server, tmp_path: Path) -> None:
    program = "import sys, pathlib; from harness.io.download import fetch; fetch([sys.argv[1]], pathlib.Path(sys.argv[2]))"
    command = [sys.executable, "-c", program, server.url, str(tmp_path / "f")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    server.pause = 0.02
    for round_ in range(3):
        process = subprocess.Popen(command, env=environment)
        target = 60_000 * (round_ + 1)
        while server.sent < target:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert not (tmp_path / "f").exists()
    server.pause = 0
    subprocess.run(command, env=environment, check=True)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert left(tmp_path) == ["f"]
    assert server.sent < 1.5 * len(CONTENT)  # what a killed process had received and not written is sent again


@pytest.mark.parametrize("how", ["ok", "no range", "ignore if-range"])
def test_a_file_that_changes_is_never_mixed(server: Server, tmp_path: Path, how: str) -> None:
    server.content = bytes(300_000)
    server.script = [100_000, "404"]
    with pytest.raises(DownloadError, match="the part that arrived is kept: run the command again to continue"):
        fetch([server.url], tmp_path / "f", check)
    assert (tmp_path / "f.part").stat().st_size == 100_000
    server.content, server.etag, server.script = CONTENT, '"2"', [how]
    fetch([server.url], tmp_path / "f", check)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_file_that_got_shorter(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + CONTENT
    server.script = [400_000, "404"]
    with pytest.raises(DownloadError):
        fetch([server.url], tmp_path / "f", check)
    server.content, server.etag, server.script = CONTENT, None, ["ok"]  # asked for bytes after its end, it answers 416
    fetch([server.url], tmp_path / "f", check)
    assert (tmp_path / "f").read_bytes() == CONTENT


BAD: dict[str, tuple[list[object], str]] = {
    "html": (["html"], "web page instead of the file"),
    "404": (["404"], "404"),
    "always busy": (["503"], "503, 8 times in a row"),
    "lies about the length": (["short"], "start anew"),
    "always drops": ([0], "8 times in a row"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_had_is_one_sentence_and_absent(server: Server, tmp_path: Path, case: str) -> None:
    server.script, words = BAD[case]
    with pytest.raises(DownloadError, match=words) as caught:
        fetch([server.url], tmp_path / "f", check)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "f").exists()


def test_wrong_sizes_are_refused_before_the_download(server: Server, tmp_path: Path) -> None:
    server.content = 100 * CONTENT  # more than sockets buffer
    with pytest.raises(DownloadError, match="30,000,000 bytes, and 5 are expected"):
        fetch([server.url], tmp_path / "f", check, size=5)
    assert server.sent <= len(server.content) // 2
    assert left(tmp_path) == []


def test_nobody_there_and_mirrors(server: Server, tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9/file"
    with pytest.raises(DownloadError, match="refused") as caught:
        fetch([nobody], tmp_path / "f", check)
    assert "kept" not in str(caught.value)  # nothing came
    assert left(tmp_path) == []
    fetch([nobody, server.url], tmp_path / "f", check)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_wrong_bytes_are_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = bytes(300_000)
    with pytest.raises(BadFile, match="wrong bytes"):
        fetch([server.url], tmp_path / "f", check)
    assert left(tmp_path) == []


def test_two_downloads_of_one_file(server: Server, tmp_path: Path) -> None:
    server.pause = 0.02
    first = threading.Thread(target=fetch, args=([server.url], tmp_path / "f", check))
    first.start()
    while not server.requests:
        time.sleep(0.005)
    with pytest.raises(BlockingIOError, match="another process is downloading"):
        fetch([server.url], tmp_path / "f", check)
    first.join()
    assert (tmp_path / "f").read_bytes() == CONTENT


# Limits


def endless(server: Server, chunked: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        head(request, 200, **({"Transfer_Encoding": "chunked"} if chunked else {}))
        server.pour(request, b"10000\r\n" + bytes(65536) + b"\r\n" if chunked else bytes(65536))

    return answer


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "not known"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "without a length"])
def test_an_answer_without_end_is_cut_off(server: Server, tmp_path: Path, size: int | None, chunked: bool) -> None:
    server.script = [endless(server, chunked)]
    with pytest.raises(DownloadError, match=r": (at most )?300,000 bytes are expected, and the server sends more"):
        fetch([server.url], tmp_path / "f", check, size, most=300_000)
    assert server.sent < 20_000_000  # of which most is in the buffers of the connection
    assert left(tmp_path) == []


def test_more_than_a_file_can_have_is_not_begun(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="the server has 300,000 bytes, and at most 299,999 are expected"):
        fetch([server.url], tmp_path / "f", check, most=299_999)
    assert left(tmp_path) == []


def test_a_range_without_end_is_cut_off(server: Server, tmp_path: Path) -> None:
    def more(request: BaseHTTPRequestHandler) -> None:
        head(request, 206, Content_Range=f"bytes 100000-299999/{len(CONTENT)}", ETag=server.etag)
        server.pour(request, bytes(65536))

    server.script = [100_000, more, "404"]
    with pytest.raises(DownloadError, match="the server sends more"):
        fetch([server.url], tmp_path / "f", check)
    assert left(tmp_path) == []


@pytest.mark.parametrize("length", [True, False], ids=["length known", "not known"])
def test_a_disk_that_fills_up_is_noticed_before_it_is_full(
    server: Server, tmp_path: Path, length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = content = random.Random(1).randbytes(5_000_000)
    monkeypatch.setattr(part, "SPARE", 1_000_000)
    start = 6_000_000 if length else 3_500_000

    def free(folder: Path) -> Any:
        there = sum(path.stat().st_size for path in Path(folder).iterdir())
        taken = 3_000_000 if there > 2_000_000 and length else 0  # by another program, meanwhile
        return types.SimpleNamespace(free=max(0, start - there - taken))  # between two looks, blocks of a fast server are more

    def no_length(request: BaseHTTPRequestHandler) -> None:
        head(request)
        request.wfile.write(content)

    server.script = ["ok"] if length else [no_length]
    monkeypatch.setattr(shutil, "disk_usage", free)
    with pytest.raises(OSError, match=r"bytes are needed, [\d,]+ are free \(run it again to continue\)") as caught:
        fetch([server.url], tmp_path / "f")
    assert caught.value.filename == str(tmp_path / "f.part")
    assert 1_000_000 < (tmp_path / "f.part").stat().st_size < 4_500_000
    monkeypatch.undo()
    fetch([server.url], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == content


def drip_body(request: BaseHTTPRequestHandler) -> None:
    head(request, Content_Length=len(CONTENT))
    drip(request, CONTENT)


def drip_head(request: BaseHTTPRequestHandler) -> None:
    drip(request, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000)


def drip_chunk(request: BaseHTTPRequestHandler) -> None:
    request.protocol_version = "HTTP/1.1"
    head(request, Transfer_Encoding="chunked")
    drip(request, b"1000;" + b"x" * 10_000)


def drip(request: BaseHTTPRequestHandler, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for byte in data:
            request.wfile.write(bytes([byte]))
            time.sleep(0.05)


@pytest.mark.parametrize("how", [drip_body, drip_head, drip_chunk])
def test_a_server_that_drips_is_left(
    server: Server, tmp_path: Path, how: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.4)
    server.script = [how]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"fewer than 4,096 bytes a second came for 0\.4 seconds"):
        fetch([server.url], tmp_path / "f", check)
    assert time.monotonic() - start < 10
    assert server.requests == 3
    server.script = [how, "ok"]
    fetch([server.url], tmp_path / "f", check)
    assert left(tmp_path) == ["f"]


def test_a_server_that_gives_a_byte_each_time_is_left(server: Server, tmp_path: Path) -> None:
    server.script = [1]
    with pytest.raises(DownloadError, match="dropped, 8 times in a row"):
        fetch([server.url], tmp_path / "f", check)
    assert server.requests == 8


@pytest.mark.parametrize("asked", ["86400", "date"])
def test_a_server_that_asks_for_a_day_is_told_and_left(server: Server, tmp_path: Path, asked: str) -> None:
    def later(request: BaseHTTPRequestHandler) -> None:
        head(request, 503, Retry_After=email.utils.formatdate(time.time() + 86_400, usegmt=True) if asked == "date" else asked)

    server.script = [later, "ok"]
    with pytest.raises(DownloadError, match=r"answers 503 and asks to come back in 86,\d{3} seconds: run it again then"):
        fetch([server.url], tmp_path / "f", check)
    fetch([server.url], tmp_path / "f", check)


def test_a_server_that_asks_for_some_seconds_is_heard(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []
    wait = threading.Event.wait

    def noted(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout == 200:
            waited.append(timeout)
            return False
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", noted)
    server.script = [lambda request: head(request, 429, Retry_After=200), "ok"]
    with caplog.at_level(logging.INFO):
        fetch([server.url], tmp_path / "f", check)
    assert waited == [200]
    assert "127.0.0.1: the server answers 429; trying again in 200 seconds" in caplog.text


# Lies


def to(url: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda request: head(request, 302, Location=url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:text/plain,hello", "gopher://127.0.0.1:9/x"])
def test_redirections_lead_nowhere_but_to_servers(server: Server, tmp_path: Path, url: str) -> None:
    server.script = [to(url)]
    with pytest.raises(DownloadError, match=re.escape(url)) as caught:
        fetch([server.url], tmp_path / "f")
    assert "\n" not in str(caught.value)
    with pytest.raises(DownloadError, match="no address of a file"):
        fetch([url], tmp_path / "f")
    assert left(tmp_path) == []


def test_https_is_not_left(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = Path(__file__).with_name("localhost.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure = Server(certificate)
    secure.script = [to(server.url), to(secure.url), "ok"]
    with pytest.raises(DownloadError, match="which is not https and not followed"):
        fetch([secure.url], tmp_path / "f", check)
    assert server.requests == 0
    server.script = [to(secure.url)]
    fetch([server.url], tmp_path / "f", check)
    assert (tmp_path / "f").read_bytes() == CONTENT
    secure.close()


@pytest.mark.parametrize("name", ["f.npz", "f.npy", "f.h5", "f.hdf5", "f.pb"])
def test_a_page_that_is_not_said_to_be_one_is_known_by_its_first_bytes(server: Server, tmp_path: Path, name: str) -> None:
    server.content, server.pause = b"\n<!DOCTYPE html><html>sorry</html>" * 100_000, 0.001
    with pytest.raises(DownloadError, match=f"begins with .*so it is no {name}: a web page"):
        fetch([server.url], tmp_path / name)
    assert server.sent < len(server.content)
    assert server.requests == 2
    assert left(tmp_path) == []
    server.content = b""
    with pytest.raises(DownloadError, match="begins with b''"):
        fetch([server.url], tmp_path / name)


def packed(request: BaseHTTPRequestHandler) -> None:
    content = gzip.compress(CONTENT)
    head(request, Content_Encoding="gzip", Content_Length=len(content))
    request.wfile.write(content)


@pytest.mark.parametrize(
    "how, words",
    [
        (packed, "packed as gzip, unasked"),
        (lambda request: head(request, 204), "answers 204, without the file"),
        (lambda request: request.wfile.write(b"HTTP/1.1 404 \x1b[2J oh\r\n\r\n"), r"answers 404 \[2J oh$"),
    ],
    ids=["packed", "nothing", "a control sequence"],
)
def test_other_answers_are_refused(server: Server, tmp_path: Path, how: Callable[..., None], words: str) -> None:
    server.script = [how]
    with pytest.raises(DownloadError, match=words):
        fetch([server.url], tmp_path / "f")
    assert left(tmp_path) == []


def test_chunks_that_stop_in_the_middle_are_not_the_end(server: Server, tmp_path: Path) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        head(request, Transfer_Encoding="chunked")
        request.wfile.write(b"10000\r\n" + CONTENT[:65536] + b"\r\n10000\r\n")

    server.script = [cut, "ok"]
    fetch([server.url], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["link", "second name", "fifo", "folder"])
@pytest.mark.parametrize("name", ["f.part", "f.part.json.partial"])
def test_what_lies_in_the_way_is_not_written_to(server: Server, tmp_path: Path, kind: str, name: str) -> None:
    victim, there = tmp_path / "victim", tmp_path / name
    victim.write_text("precious")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: there.symlink_to(victim),
        "second name": lambda: there.hardlink_to(victim),
        "fifo": lambda: os.mkfifo(there),
        "folder": there.mkdir,
    }
    make[kind]()
    if name == "f.part" or kind == "folder":
        with pytest.raises(OSError, match=r"f\.part"):
            fetch([server.url], tmp_path / "f", check)
        there.rmdir() if kind == "folder" else there.unlink()
    fetch([server.url], tmp_path / "f", check)
    assert victim.read_text() == "precious"
    assert left(tmp_path) == ["f", "victim"]


# Datasets

Known = Callable[..., None]


@pytest.fixture
def toy(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """mpi3d, of which an official file of 60 images is on the server; its known checksum is the argument."""
    spec = splits.load_spec(official.small_spec(tmp_path, "mpi3d"))
    path = official.mpi3d_npz(tmp_path / "official.npz", official.smooth_pictures())
    server.content = path.read_bytes()
    monkeypatch.setenv("OOD_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(splits, "load_spec", lambda name: spec)

    def known(*checksums: str) -> None:
        file = File("real.npz", (server.url,), checksums)
        info = replace(sources.CATALOG["mpi3d"], files=(file,), license="CC BY 4.0", citation="Gondal et al.")
        monkeypatch.setitem(sources.CATALOG, "mpi3d", info)

    known()
    return known


def test_a_dataset_is_fetched_and_converted(toy: Known, server: Server, tmp_path: Path) -> None:
    toy("md5:" + hashlib.md5(server.content).hexdigest())
    server.script = [5000, "503", "ok"]
    arguments = ["data", "fetch", "mpi3d", "--out", str(tmp_path / "data"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert "CC BY 4.0" in result.stderr
    assert "Gondal et al." in result.stderr
    np.testing.assert_array_equal(Store(tmp_path / "data", "mpi3d").read(0, 60), official.smooth_pictures())
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert server.requests == 3  # nothing the second time
    shutil.rmtree(tmp_path / "home")  # as the command advises once the store is complete
    again = CliRunner().invoke(main, arguments[:-1])
    assert (again.exit_code, server.requests) == (0, 3)
    assert "is complete already: 60 images; --overwrite makes it again" in again.stdout
    next((tmp_path / "data/mpi3d.zarr/images").glob("c.*")).unlink()
    again = CliRunner().invoke(main, arguments)  # as `data verify` advises
    assert again.exit_code == 0, again.stderr
    assert verify(tmp_path / "data", "mpi3d") == []


def test_a_store_of_something_else_is_not_taken_for_the_official_one(
    toy: Known, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(official.mpi3d_npz(tmp_path / "mine.npz", official.smooth_pictures()), "mpi3d", tmp_path / "data")
    told = CliRunner().invoke(main, ["data", "fetch", "mpi3d", "--out", str(tmp_path / "data")])
    assert (told.exit_code, server.requests) == (2, 0)
    assert "was made with other parameters (file is mine.npz there, real.npz here)" in told.stderr
    monkeypatch.undo()
    dsprites.generate(tmp_path / "data", orientations=1)
    (tmp_path / "data/dsprites1.zarr").rename(tmp_path / "data/dsprites.zarr")
    told = CliRunner().invoke(main, ["data", "fetch", "dsprites", "--out", str(tmp_path / "data")])
    assert told.exit_code == 2
    assert "was made by `generate dsprites`, and not from dsprites_ndarray" in told.stderr


def test_an_unknown_checksum_is_proven_accepted_and_remembered(toy: Known, server: Server, tmp_path: Path) -> None:
    toy("md5:0f33")
    with pytest.raises(DownloadError, match=r"not the known md5:0f33; its archive is whole.*`accept` keeps it"):
        fetch_dataset("mpi3d")
    path = fetch_dataset("mpi3d", accept=True)
    assert path.read_bytes() == server.content
    assert server.requests == 1  # 12.7 GB are not downloaded twice for that
    path.unlink()
    assert fetch_dataset("mpi3d").read_bytes() == server.content


@pytest.mark.parametrize("damage", ["flipped", "cut", "other"])
def test_damaged_archives_are_not_accepted(toy: Known, server: Server, tmp_path: Path, damage: str) -> None:
    if damage == "flipped":
        server.content = server.content[:5000] + bytes([server.content[5000] ^ 1]) + server.content[5001:]
    elif damage == "cut":
        server.content = server.content[:-500]
    else:
        server.content = official.mpi3d_npz(tmp_path / "other.npz", official.pictures(59)).read_bytes()
    with pytest.raises(BadFile):
        fetch_dataset("mpi3d", accept=True)
    assert left(tmp_path / "home/mpi3d") == []


# What hosts say of their files


def hugging_face(name: str, data: bytes) -> list[dict[str, Any]]:
    """As its API lists a folder: files in LFS have their sha256."""
    pointer = {"type": "file", "oid": "1" * 40, "size": len(data), "path": name}
    others = [{"type": "directory", "oid": "2" * 40, "size": 0, "path": "data"}, {"type": "file", "path": "README.md", "size": 1}]
    return [*others, pointer | {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}}]


def zenodo(files: dict[str, bytes]) -> dict[str, Any]:
    """As its API tells of a record."""
    return {
        "id": 1,
        "files": [
            {"key": name, "size": len(data), "checksum": f"md5:{hashlib.md5(data).hexdigest()}", "links": {"self": "x"}}
            for name, data in files.items()
        ],
    }


@pytest.fixture
def hosted(toy: Known, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """The same, from a moved address first, with a host whose answer about it is the argument."""

    def tell(answer: Any) -> None:
        server.routes = {"/gone": "404", "/api": answer}
        file = File("real.npz", (f"{server.root}/gone", server.url), ("md5:0f33",), listing=f"{server.root}/api")
        monkeypatch.setitem(sources.CATALOG, "mpi3d", replace(sources.CATALOG["mpi3d"], files=(file,)))

    return tell


@pytest.mark.parametrize("host", ["hugging face", "zenodo"])
def test_a_host_proves_its_file_and_the_store_says_so(
    hosted: Callable[[Any], None], server: Server, tmp_path: Path, host: str
) -> None:
    data = server.content
    hosted(hugging_face("real.npz", data) if host == "hugging face" else zenodo({"real.npz": data}))
    result = CliRunner().invoke(main, ["data", "fetch", "mpi3d", "--out", str(tmp_path / "data")])
    assert result.exit_code == 0, result.stderr
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}" if host == "hugging face" else f"md5:{hashlib.md5(data).hexdigest()}"
    proof = f"{checksum}, as 127.0.0.1 lists it; its archive is whole, its shape is right, and neighbouring images are alike"
    assert f"- proof that the file is the official one: {proof}\n" in (tmp_path / "data/mpi3d.md").read_text()
    assert json.loads((tmp_path / "data/mpi3d.croissant.json").read_bytes())["prov:wasDerivedFrom"].endswith(proof)
    assert not (tmp_path / "home/accepted.json").exists()


LISTINGS: dict[str, tuple[Any, str]] = {
    "another checksum": (hugging_face("real.npz", b"another"), "not the known md5:0f33 and not the sha256:[0-9a-f]{64} that 127"),
    "another file": (hugging_face("toy.npz", b""), "not the known md5:0f33;"),
    "no listing": ("404", "not the known md5:0f33;"),
    "a web page": ("html", "not the known md5:0f33;"),
    "no JSON": (b"{", "not the known md5:0f33;"),
    "no list": ({"files": 5}, "not the known md5:0f33;"),
    "no checksum": ([{"path": "real.npz", "lfs": {"oid": "x"}}, {"key": "real.npz", "checksum": 5}, 7], "not the known md5:0f33;"),
    "very much": (b"[" * 3_000_000, "not the known md5:0f33;"),
    "very deep": (b"[" * 900_000, "not the known md5:0f33;"),
}


@pytest.mark.parametrize("what", LISTINGS)
def test_a_host_that_says_nothing_of_use_proves_nothing(
    hosted: Callable[[Any], None], server: Server, tmp_path: Path, what: str
) -> None:
    answer, words = LISTINGS[what]
    hosted(answer)
    with pytest.raises(DownloadError, match=words) as caught:
        fetch_dataset("mpi3d")
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "home/mpi3d") == ["real.npz.part", "real.npz.part.json"]
    fetch_dataset("mpi3d", accept=True)
    assert left(tmp_path / "home/mpi3d") == ["real.npz"]


def noise(path: Path) -> Path:
    return official.mpi3d_npz(path, official.pictures())


def all_the_same(path: Path) -> Path:
    return official.mpi3d_npz(path, np.full((60, 8, 8, 3), 7, np.uint8))


def shuffled(path: Path) -> Path:
    return official.mpi3d_npz(path, official.smooth_pictures()[np.random.default_rng(0).permutation(60)])


@pytest.mark.parametrize(
    "garbled, words", [(noise, "differ as much"), (shuffled, "differ as much"), (all_the_same, "are the same")]
)
def test_a_garbled_file_is_not_believed_whatever_its_host_lists(
    hosted: Callable[[Any], None], server: Server, tmp_path: Path, garbled: Callable[[Path], Path], words: str
) -> None:
    server.content = garbled(tmp_path / "garbled.npz").read_bytes()
    hosted(hugging_face("real.npz", server.content))
    with pytest.raises(BadFile, match=words) as caught:
        fetch_dataset("mpi3d", accept=True)
    assert "\n" not in str(caught.value)
    assert left(tmp_path / "home/mpi3d") == []


def test_real_pictures_are_taken_for_what_they_are(tmp_path: Path) -> None:
    """All poses of one square, each the neighbours of others: those of dSprites, whose shapes are small."""
    grid = splits.FactorGrid((splits.Factor("orientation", 8), splits.Factor("x", 32), splits.Factor("y", 32)))
    spec = splits.derive_spec("few", grid, 0.2)
    np.save(tmp_path / "few.npy", dsprites.render(0, len(grid)))
    check_content(tmp_path / "few.npy", open_reader(tmp_path / "few.npy", spec), grid)
    np.save(tmp_path / "few.npy", np.random.default_rng(0).permutation(dsprites.render(0, len(grid))))
    with pytest.raises(BadFile, match="differ as much as any two"):
        check_content(tmp_path / "few.npy", open_reader(tmp_path / "few.npy", spec), grid)


# The benchmark's split files


@pytest.fixture
def record(toy: Known, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with the record of mpi3d's split files."""
    (tmp_path / "record").mkdir()
    official.published(tmp_path / "record", splits.load_spec("mpi3d"), "composition", official.smooth_pictures(), "mpi3d")
    files = {path.name: path.read_bytes() for path in (tmp_path / "record").iterdir()}
    server.routes = {f"/{name}": data for name, data in files.items()} | {"/api": zenodo(files)}
    real = sources.published

    def here(dataset: str, kind: str) -> tuple[File, ...]:
        return tuple(
            replace(file, urls=(f"{server.root}/{file.name}?download=1",), listing=f"{server.root}/api")
            for file in real(dataset, kind)
        )

    monkeypatch.setattr("harness.formats.fetch.published", here)
    return server


def test_a_published_split_is_fetched_proven_and_converted(record: Server, tmp_path: Path) -> None:
    arguments = ["data", "fetch", "mpi3d", "--published", "composition", "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    store = Store(tmp_path / "data", "mpi3d")
    np.testing.assert_array_equal(store.read(0, 60), official.smooth_pictures())
    assert len(re.findall("md5:[0-9a-f]{32}, as 127.0.0.1 lists it", store.paths.card.read_text())) == 4
    before = record.requests
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert record.requests == before


def test_a_split_is_compared_with_the_record(record: Server, tmp_path: Path) -> None:
    arguments = ["split", "mpi3d", "--kind", "composition", "--check", "zenodo"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert "equal to the published labels" in result.stdout
    assert left(tmp_path / "home/mpi3d") == [f"mpi3d_composition_{side}_labels.npz" for side in ("test", "train")]
    (tmp_path / "home/mpi3d/mpi3d_composition_test_labels.npz").unlink()
    train = record.routes["/mpi3d_composition_train_labels.npz"]
    record.routes["/mpi3d_composition_test_labels.npz"] = train
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "differs from the published labels" in result.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["data", "fetch", "mpi3d", "--variant", "toy", "--published", "random"], "no split files of 'mpi3d_toy' are published"),
        (["split", "mpi3d", "--check", "nowhere"], "--check: there is no folder nowhere"),
    ],
)
def test_what_is_not_published_is_told(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_facts_are_well_formed() -> None:
    assert set(sources.CATALOG) == set(splits.DATASETS)
    for name, info in sources.CATALOG.items():
        assert all((info.name == name, info.title, info.license, info.citation, info.homepage, info.files))
        assert info.command.startswith(("ood-data generate ", "ood-data data fetch "))
        for file in info.files:
            assert all(url.startswith("https://") for url in file.urls)
            for checksum in file.checksums:
                kind, digits = checksum.split(":")
                assert len(digits) == {"md5": 32, "sha256": 64}[kind]
                assert int(digits, 16)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("mpi3b",), "did you mean 'mpi3d'"),
        (("dsprites", "--variant", "toy"), "dsprites has no variant 'toy': mpi3d has real, realistic, toy, complex"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(main, ["data", "fetch", *arguments])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
