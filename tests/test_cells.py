"""Single cells from a server that keeps the whole file: the same pixels, or a line that says why not."""

from __future__ import annotations

import io
import json
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

import splits
from harness.formats import catalog
from harness.formats.catalog import File
from harness.formats.cells import CONNECTIONS, fetch_cells
from harness.io import retries
from helpers import official
from helpers.commands import assert_one_clear_line, invoke
from helpers.server import Server
from splits import Factor, FactorGrid, derive_spec

IMAGES, SIDE = 4000, 16


def rendered() -> np.ndarray:
    return official.pictures(IMAGES, side=SIDE)


def stored(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Has mpi3d's file of 4,000 images, 3 MB, of a grid of 4 × 25 × 40 cells."""
    monkeypatch.setattr(retries, "WAIT", 0.001)
    factors = (Factor("color", 4, "categorical", ("red", "green", "blue", "white")), Factor("size", 25), Factor("x", 40))
    spec = derive_spec("mpi3d", factors, 0.2, never_held_out=("color",), composition_q=0.4, source="a test")
    monkeypatch.setattr(splits, "load_spec", lambda name: spec)
    server = Server()
    server.content = stored(images=rendered())
    offer(monkeypatch, server.url)
    yield server
    server.close()


def offer(monkeypatch: pytest.MonkeyPatch, *urls: str, name: str = "mpi3d_real.npz") -> None:
    info = replace(catalog.CATALOG["mpi3d"], files=(File(name, urls, most=10_000_000),))
    monkeypatch.setitem(catalog.CATALOG, "mpi3d", info)


def fetch(out: Path, cells: object, *more: object) -> dict[str, np.ndarray]:
    result = invoke("data", "fetch", "mpi3d", "--cells", cells, "--out", out, *more)
    assert result.returncode == 0, result.stderr
    with np.load(out / "mpi3d.cells.npz", allow_pickle=False) as file:
        return dict(file)


def test_a_seeded_sample_is_the_images_of_the_whole_file_and_costs_little(server: Server, tmp_path: Path) -> None:
    found = fetch(tmp_path, 50)
    assert len(set(found["indices"].tolist())) == 50
    np.testing.assert_array_equal(found["images"], rendered()[found["indices"]])
    np.testing.assert_array_equal(found["factors"], np.stack(np.unravel_index(found["indices"], (4, 25, 40)), axis=1))
    assert found["names"].tolist() == ["color", "size", "x"]
    source = json.loads(str(found["source"]))
    assert source == {"url": server.url, "version": '"1"', "bytes": len(server.content)}
    assert server.sent < 50 * SIDE * SIDE * 3 + 50_000 < len(server.content) / 20
    before = (tmp_path / "mpi3d.cells.npz").read_bytes()
    fetch(tmp_path, 50, "--overwrite")
    assert (tmp_path / "mpi3d.cells.npz").read_bytes() == before
    assert (fetch(tmp_path, 50, "--overwrite", "--seed", 1)["indices"] != found["indices"]).any()


@pytest.mark.parametrize(
    "cells, expected",
    [
        ("color=blue,size=3,x=39", [2 * 1000 + 3 * 40 + 39]),
        ("color=3,size=24", [*range(3960, 4000)]),
        ("size=0,x=0", [0, 1000, 2000, 3000]),
        ("color=red", [*range(1000)]),
    ],
)
def test_cells_by_the_values_of_their_factors(server: Server, tmp_path: Path, cells: str, expected: list[int]) -> None:
    found = fetch(tmp_path, cells)
    assert found["indices"].tolist() == expected
    np.testing.assert_array_equal(found["images"], rendered()[expected])
    assert server.requests < 8 + len(expected) / 10 + 4  # neighbours come together


def test_a_dimension_per_factor(server: Server, tmp_path: Path) -> None:
    server.content = stored(labels=np.arange(7), images=rendered().reshape(4, 25, 40, SIDE, SIDE, 3))
    found = fetch(tmp_path, 20)
    np.testing.assert_array_equal(found["images"], rendered()[found["indices"]])


def test_a_busy_server_that_drops_connections_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.script = ["503", 0, "ok", 100, "503", 700, "ok", 5, "503", 1, "ok"]
    found = fetch(tmp_path, 30)
    np.testing.assert_array_equal(found["images"], rendered()[found["indices"]])


def test_the_next_address_is_tried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["/packed"] = "404"
    offer(monkeypatch, f"{server.root}/packed", "http://127.0.0.1:9/nobody", server.url)
    assert len(fetch(tmp_path, 5)["images"]) == 5


def refused(out: Path, *words: str, cells: object = 30) -> None:
    result = invoke("data", "fetch", "mpi3d", "--cells", cells, "--out", out)
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("MPI3D", "cite:"))]
    result.stderr = "\n".join(lines)
    assert_one_clear_line(result, 1, *words)
    assert not out.exists() or not list(out.iterdir())


def test_a_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.content *= 10  # more than sockets buffer
    server.script = ["no range"]
    refused(tmp_path / "out", "the server gives the file only whole")
    assert server.sent <= len(server.content) / 2


def changing(server: Server, after: int, etag: str | None, content: bytes, how: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """After so many requests, the server has another file."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        if server.requests > after:
            server.etag, server.content = etag, content
        server.script.insert(0, how)
        server.requests -= 1
        server.answer(request)

    return answer


@pytest.mark.parametrize("after", [1, 4, 12])
@pytest.mark.parametrize("how", ["ok", "ignore if-range", "length"])
def test_a_file_that_changes_meanwhile_is_never_mixed(server: Server, tmp_path: Path, how: str, after: int) -> None:
    other = stored(images=rendered()[::-1])
    if how == "length":
        server.etag, other = None, other + b"x"
    server.script = [changing(server, after, None if how == "length" else '"2"', other, "ok" if how == "length" else how)]
    refused(tmp_path / "out", "changed meanwhile: run it again")


@pytest.mark.parametrize("after", [4, 12, 30])
def test_nor_is_one_of_the_same_length_whose_version_no_server_names(server: Server, tmp_path: Path, after: int) -> None:
    server.etag = None
    server.script = [changing(server, after, None, stored(images=rendered()[::-1]), "ok")]
    refused(tmp_path / "out", "changed meanwhile: run it again")


def test_nor_one_that_is_written_over_from_its_beginning(server: Server, tmp_path: Path) -> None:
    server.etag = None
    directory = server.content[-1000:]
    server.script = [changing(server, 12, None, stored(images=rendered()[::-1])[:-1000] + directory, "ok")]
    refused(tmp_path / "out", "changed meanwhile: run it again")


def test_a_server_that_names_no_version_is_looked_at_twice(server: Server, tmp_path: Path) -> None:
    server.etag = None
    found = fetch(tmp_path, 30)
    np.testing.assert_array_equal(found["images"], rendered()[found["indices"]])
    assert json.loads(str(found["source"]))["version"] is None


def later(seconds: object) -> Callable[[BaseHTTPRequestHandler], None]:
    """Busy, and asks to wait."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(503)
        request.send_header("Retry-After", str(seconds))
        request.end_headers()

    return answer


def test_a_server_that_asks_for_a_day_is_told_and_left(server: Server, tmp_path: Path) -> None:
    server.script = ["ok", "ok", later(86_400)]
    start = time.monotonic()
    refused(tmp_path / "out", "answers 503 and asks to come back in 86,400 seconds: run it again then")
    assert time.monotonic() - start < 20


def test_a_wait_is_said_and_ctrl_c_ends_all(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    fetch_cells("mpi3d", [0])
    before = server.requests - 1
    waiting = later(30)

    def answer(request: BaseHTTPRequestHandler) -> None:
        waiting(request)
        if server.requests == 2 * before + 1 + CONNECTIONS:  # all are told to wait
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    server.script = [*["ok"] * before, answer]
    start = time.monotonic()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with caplog.at_level("INFO", "harness"), pytest.raises(KeyboardInterrupt):
            fetch_cells("mpi3d", np.arange(0, 4000, 50))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - start < 20
    assert "127.0.0.1: the server answers 503; trying again in 30 seconds" in caplog.text


def test_a_file_that_changed_since_the_last_command_is_told_by_its_version(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path, 9)
    server.etag, server.content = '"2"', stored(images=255 - rendered())
    found = fetch(tmp_path, 9, "--overwrite")
    assert json.loads(str(found["source"]))["version"] == '"2"'
    np.testing.assert_array_equal(found["images"], 255 - rendered()[found["indices"]])


def packed() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, images=rendered())
    return file.getvalue()


def short_of_its_directory() -> bytes:
    """Half of the member, but a directory that fits."""
    whole = bytearray(stored(images=rendered()))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        end = archive.start_dir
    return bytes(whole[: end - 1_000_000] + whole[end:])


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (
        packed,
        "holds its images compressed, so that single cells can't be had: leave out --cells to get all of it (3.0",
    ),
    "cut": (lambda: stored(images=rendered())[:-30_000], "is truncated or damaged"),
    "cut inside": (short_of_its_directory, "is truncated or damaged"),
    "too few images": (lambda: stored(images=rendered()[:-1]), "another dataset?"),
    "floats": (lambda: stored(images=rendered().astype(np.float32)[:, :4, :4]), "uint8 is expected"),
    "by column": (lambda: stored(images=np.asfortranarray(rendered())), "column-major"),
    "other arrays": (lambda: stored(imgs=rendered()), "no array images"),
    "no archive": (lambda: bytes(100_000), "is truncated or damaged"),
    "too long": (lambda: stored(images=rendered(), more=np.zeros(8_000_000, np.uint8)), "at most 10,000,000 are expected"),
}


@pytest.mark.parametrize("what", BAD)
def test_files_that_have_no_cells_to_give(server: Server, tmp_path: Path, what: str) -> None:
    content, words = BAD[what]
    server.content = content()
    refused(tmp_path / "out", words)
    assert server.sent < 100_000


@pytest.mark.parametrize(
    "script, words", [(["404"], "404"), (["html"], "web page"), ([3], "dropped, 5 times"), (["503"], "answers 503")]
)
def test_servers_that_give_none(server: Server, tmp_path: Path, script: list[object], words: str) -> None:
    server.script = script
    refused(tmp_path / "out", words)


def test_every_address_is_named_that_failed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["/gone"] = "404"
    server.content = packed()
    offer(monkeypatch, f"{server.root}/gone", server.url)
    refused(tmp_path / "out", "/gone: the server answers 404", "compressed")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("shapes3d", "--cells", 5), "3dshapes.h5 holds its images compressed"),
        (("celebglow", "--cells", 5), "leave out --cells"),
        (("mpi3d", "--cells", 0), "from 1 to 4,000"),
        (("mpi3d", "--cells", "all"), "color=0,x=1"),
        (("mpi3d", "--cells", "colour=0"), "did you mean 'color'"),
        (("mpi3d", "--cells", "color=pink"), "red, green, blue, white"),
        (("mpi3d", "--cells", "5", "--published", "random"), "leave out --published"),
        (("mpi3d", "--cells", "5", "--download-only"), "leave out --download-only"),
    ],
)
def test_wrong_use_is_told_before_anything_is_asked(
    server: Server, tmp_path: Path, arguments: tuple[object, ...], words: str
) -> None:
    result = invoke("data", "fetch", *arguments, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert words.replace("'", "") in result.stderr.replace("'", "")
    assert server.requests == 0


def test_what_is_there_is_not_replaced_unasked(server: Server, tmp_path: Path) -> None:
    fetch(tmp_path, 5)
    assert_one_clear_line(
        invoke("data", "fetch", "mpi3d", "--cells", 6, "--out", tmp_path), 2, "is there already: --overwrite replaces it"
    )


def test_very_many_cells_are_had_with_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = FactorGrid((Factor("a", 200), Factor("b", 100)))
    monkeypatch.setattr(
        splits, "load_spec", lambda name: derive_spec("mpi3d", tuple(grid), 0.2, composition_q=0.4, source="a test")
    )
    with pytest.raises(ValueError, match="20,000 cells: 1 to 10,000 are expected"):
        fetch_cells("mpi3d", np.arange(20_000))


def test_bench_tells_of_cells_where_they_can_be_had(blocks_root: Path) -> None:
    result = invoke("bench", "--model", "mlp", "--dry-run", "--data", blocks_root)
    lines = {line.partition(" ")[0]: line for line in result.stdout.splitlines() if "to get it:" in line}
    assert "--variant realistic" in lines["mpi3d_realistic"]
    assert [name for name, line in lines.items() if "--cells 64" in line] == ["mpi3d_realistic"]
