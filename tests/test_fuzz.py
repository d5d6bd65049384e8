"""Readers of strangers' bytes, under bytes at random: the right result or an `OodDataError`, never anything else.

Each example is a valid file with a few bytes changed, cut, doubled or put in, or text that looks like one.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import splits
from celebglow.convert.graph_compiler import compile_graph
from celebglow.convert.graphdef import Constant, read_graph
from celebglow.fitting.images import read_images
from celebglow.fitting.labels import read_labels
from harness.data.manifest import finished, line, read_finished, read_part, salvaged, shard_path
from harness.formats.readers import open_reader
from harness.runs.networks import _weights
from helpers.flows import random_glow
from helpers.graphs import GlowGraph
from helpers.specs import GOOD
from splits.arrays import npy_rows, open_zip, rows_of
from splits.errors import OodDataError

SPEC = splits.derive_spec("toy", [splits.Factor("color", 2), splits.Factor("x", 3)], 0.4)
IMAGES = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)

fuzz = settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def saved(save: Callable[[Any], None]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A few edits: a byte replaced, a stretch taken out, doubled, or put in; rarely none."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case _:
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
    return bytes(data)


@contextlib.contextmanager
def a_file(content: bytes, suffix: str = "") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        path.write_bytes(content)
        yield path


@contextlib.contextmanager
def one_line_each() -> Iterator[None]:
    """What an error says is for people: not without end, nothing that steers their terminal."""
    try:
        yield
    except OodDataError as error:
        told = str(error)
        if len(told) > 20_000 or not told.replace("\n", "").isprintable():
            raise AssertionError(told) from None
        raise


ARRAY = np.arange(24, dtype="<i4").reshape(2, 3, 4)
DTYPES = ["<i4", "|u1", "|O", "<U3", "|V0", "<f8", "", "x", "<U999999999", "|b1", (), ("<i4", (2,)), 5, [("a", "<i4")], None]
SHAPES = st.lists(st.integers(-3, 2**70), max_size=4).map(tuple) | st.sampled_from(
    [(2, 3, 4), (6,), None, 5, "x", [2], (2.5,), (True,)]
)
ORDERS = st.sampled_from([True, False, 1, "x", None])
ENTRIES = {"descr": st.sampled_from(DTYPES), "fortran_order": ORDERS, "shape": SHAPES, "more": st.just(1)}
HEADER = st.fixed_dictionaries({}, optional=ENTRIES).map(repr) | st.text(max_size=60)


@fuzz
@given(damaged(saved(lambda file: np.save(file, ARRAY))))
def test_npy_files(content: bytes) -> None:
    with a_file(content) as path, contextlib.suppress(OodDataError), npy_rows(path) as rows:
        assert rows.whole().nbytes <= len(content)


@fuzz
@given(HEADER, st.sampled_from([b"\x01\x00", b"\x02\x00", b"\x03\x00"]), st.binary(max_size=100))
def test_npy_headers(header: str, version: bytes, rest: bytes) -> None:
    text = header.encode("utf-8", "replace")
    length = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    with a_file(b"\x93NUMPY" + version + length + text + rest) as path, contextlib.suppress(OodDataError), npy_rows(path) as rows:
        assert rows.whole().nbytes == len(rest)


@fuzz
@given(damaged(saved(lambda file: np.savez_compressed(file, images=IMAGES, a=np.arange(6), b=np.array(list("abcdef"))))))
def test_npz_files(content: bytes) -> None:
    with a_file(content, ".npz") as path:
        with contextlib.suppress(OodDataError), open_zip(path) as archive:
            for name in archive.namelist():
                with rows_of(archive, path, name.removesuffix(".npy")) as rows:
                    np.testing.assert_array_equal(rows.whole().shape, rows.shape)
        with contextlib.suppress(OodDataError):
            np.testing.assert_array_equal(read_images(path, 4).images, IMAGES)


@fuzz
@given(damaged(saved(lambda file: np.savez(file, images=IMAGES))))
def test_converted_npz_files(content: bytes) -> None:
    """What is read to its end without an error has the right checksum, and is right."""
    with a_file(content, ".npz") as path, contextlib.suppress(OodDataError):
        np.testing.assert_array_equal(np.concatenate([*open_reader(path, SPEC).blocks([range(4), range(4, 6)])]), IMAGES)


WORDS = st.sampled_from(
    [
        *[
            "name",
            "factor",
            "size",
            "kind",
            "values",
            "split",
            "held_out",
            "test_if",
            "random",
            "extrapolation",
            "lamp",
            "[[factor]]",
            "[",
            "]",
            "{",
            "}",
            "=",
            ",",
            '"',
            "'",
            "#",
            "true",
            "nan",
            "1",
            "-1",
        ],
        *('"any"', '"4:"', "\n", "1e999", "0x" + "f" * 5000, "9" * 4400, "1979-05-27", '"\\u202e"'),
    ]
)


@fuzz
@given(damaged(GOOD.encode()) | st.lists(WORDS, max_size=40).map(lambda words: " ".join(words).encode()) | st.binary(max_size=200))
def test_specs(content: bytes) -> None:
    with a_file(content, ".toml") as path, contextlib.suppress(OodDataError), one_line_each():
        spec = splits.load_spec(path)
        assert splits.spec_from_dict(spec.to_dict()) == spec
        assert all(sum(spec.split(kind).counts) == len(spec.grid) for kind in spec.kinds)


KEYS = st.sampled_from(["name", "size", "kind", "values", "test_if", "held_out", "a"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(["lamp", "any", "ordinal"])
)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner), max_leaves=12)


@fuzz
@given(st.dictionaries(st.sampled_from(["name", "factor", "split", "impossible", "source", "x"]), JSON))
def test_specs_of_stores(data: dict[str, Any]) -> None:
    with contextlib.suppress(OodDataError):
        splits.spec_from_dict({"name": "a", "factor": [{"name": "lamp", "size": 3, "kind": "ordinal"}], "split": {}} | data)


TABLE = b"file,color,x,more\n" + b"".join(b"%d.png,%d,%d,%d\n" % (cell, cell // 3, cell % 3, cell) for cell in range(6))
CELEBA = b"3\nSmiling Male\n0.png -1 1\n1.png 1 -1\n2.png 1 1\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for cell, image in enumerate(IMAGES):
        Image.fromarray(image).save(path / f"{cell}.png")
    return path


@fuzz
@given(damaged(TABLE) | st.text(alphabet='file,color x0123.png"\r\n\0é', max_size=200).map(str.encode))
def test_tables_of_pictures(folder: Path, content: bytes) -> None:
    (folder / "labels.csv").write_bytes(content)
    with contextlib.suppress(OodDataError):
        images = np.concatenate([*open_reader(folder, SPEC).blocks([range(6)])])
        assert sorted(images.sum(axis=(1, 2, 3), dtype=int)) <= sorted(IMAGES.sum(axis=(1, 2, 3), dtype=int)) * 6


@fuzz
@given(damaged(TABLE), damaged(CELEBA))
def test_tables_of_labels(table: bytes, celeba: bytes) -> None:
    for content, suffix, count in ((table, ".csv", 6), (celeba, ".txt", 3)):
        with a_file(content, suffix) as path:
            for files in ([f"{number}.png" for number in range(count)], []):
                with contextlib.suppress(OodDataError):
                    assert all(len(column) == count for column in read_labels(path, files, count).values())


@fuzz
@given(st.data())
def test_pictures(folder: Path, data: st.DataObject) -> None:
    (folder / "labels.csv").write_bytes(TABLE)
    whole = (folder / "5.png").read_bytes()
    try:
        (folder / "5.png").write_bytes(data.draw(damaged(whole)))
        with contextlib.suppress(OodDataError):
            [*open_reader(folder, SPEC).blocks([range(6)])]
        with contextlib.suppress(OodDataError):
            read_images(folder, 4)
    finally:
        (folder / "5.png").write_bytes(whole)


GRAPH = GlowGraph(random_glow(steps=(1,), widths=4, border=True))


@fuzz
@given(st.data())
def test_graphs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """What reads as a graph at all is one whose constants are no larger than what the format allows, and is compiled or refused."""
    whole = GRAPH.save(tmp_path_factory.getbasetemp() / "graph.pb").read_bytes()
    with (
        a_file(data.draw(damaged(whole) | st.binary(max_size=60)), ".pb") as path,
        contextlib.suppress(OodDataError),
        one_line_each(),
    ):
        for node in read_graph(path).values():
            value = node.attributes.get("value")
            if isinstance(value, Constant) and value.content is not None:
                assert value.array().nbytes <= len(whole) + 1000
        compile_graph(path)


ENTRY = {"path": shard_path(0), "bytes": 9, "sha256": "0" * 64, "first": 0, "last": 4}
MANIFEST = finished([ENTRY, ENTRY | {"path": shard_path(1)}], {"zarr.json": "1" * 64, "images/zarr.json": "2" * 64})


@fuzz
@given(damaged(MANIFEST) | st.lists(st.sampled_from(MANIFEST.splitlines(keepends=True))).map(b"".join) | st.binary(max_size=200))
def test_manifests(content: bytes) -> None:
    """A finished manifest is the one that was written, or an error; of a part's, whole lines are what they were."""
    with a_file(content) as path:
        with contextlib.suppress(OodDataError):
            read_finished(path)
            assert content == MANIFEST
        lines = MANIFEST.splitlines(keepends=True)[:2]
        with contextlib.suppress(OodDataError):
            assert all(_digits(line(entry)) in map(_digits, lines) or line(entry) in content for entry in read_part(path))
        assert all(line(entry) in content for entry in salvaged(path))


def _digits(text: bytes) -> bytes:
    return bytes(character for character in text if not chr(character).isdigit())


TENSORS = {"weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "bias": torch.ones(2)}
WEIGHTS = safetensors.torch.save(TENSORS)
HEADERS = st.dictionaries(
    st.sampled_from(["weight", "bias", "__metadata__", "x"]),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "F64", "U8", "x", None]),
            "shape": st.lists(st.integers(-1, 2**70), max_size=3),
            "data_offsets": st.lists(st.integers(-1, 2**70), max_size=3),
        },
    )
    | JSON,
)


@fuzz
@given(damaged(WEIGHTS) | st.tuples(HEADERS, st.binary(max_size=40)).map(lambda file: _with_header(*file)))
def test_weights_of_runs(content: bytes) -> None:
    with a_file(content, ".safetensors") as path, contextlib.suppress(OodDataError), one_line_each():
        assert sum(tensor.nbytes for tensor in _weights(path).values()) <= len(content)


def _with_header(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest
