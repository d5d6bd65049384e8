"""Arrays in files of strangers: read by their headers first, or refused in one line without taking the memory that they claim."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers.hostile import npy_header, npz, peak_of, zeros
from splits.arrays import BadFile, npy_rows, open_zip, rows_of, zip_rows


def whole(path: Path) -> np.ndarray:
    with npy_rows(path) as rows:
        return rows.whole()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(2, 3, 4),
        np.array(["a", "bcd", ""]),
        np.zeros((0, 4), np.uint8),
        np.arange(3, dtype=">i2"),
        np.array([True]),
    ],
)
def test_arrays_are_read_as_they_were_written(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", x=array, y=array.T)
    np.testing.assert_array_equal(whole(tmp_path / "a.npy"), array)
    with open_zip(tmp_path / "a.npz") as archive:
        for name, expected in (("x", array), ("y", array.T)):  # by column, if it has several
            with rows_of(archive, tmp_path / "a.npz", name) as rows:
                np.testing.assert_array_equal(rows.whole(), expected)


@pytest.mark.parametrize(
    "content, words",
    [
        (npy_header((10**9, 10**9)), "1,000,000,000,000,000,128 are expected"),
        (npy_header((-60, 8)) + bytes(480), r"claims the shape \(-60, 8\)"),
        (npy_header((10**2000,) * 4), "claims the shape"),
        (npy_header((60,), "|O"), "holds Python objects"),
        (npy_header((60,), "|V0"), "numbers or text are expected"),
        (npy_header((60,), "<c8") + bytes(480), "numbers or text are expected"),
        (npy_header(()) + b"x", "holds a scalar"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{", "its header claims 4,294,967,295 bytes"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 8999 + b"\n", "header can't be read"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 30) + b"__import__('os').system('touch')", "header can't be read"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"-" * 8999 + b"1", "header can't be read"),
        (b"\x93NUMPY\x07\x00", "version"),
        (b"\x93NUMPY", "does not begin as"),
        (b"", "does not begin as"),
    ],
)
def test_headers_that_lie_are_one_line_and_take_no_memory(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=words) as raised:
        whole(path)
    assert "\n" not in str(raised.value)
    assert peak_of(whole, path) < 2**22


def claiming(path: Path, size: int) -> Path:
    """A stored member of 320 bytes whose directory entry and header claim `size` bytes."""
    npz(path, {"x": [npy_header((size // 32, 4), "<i8"), bytes(320)]}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    name, extra, rest = (struct.unpack_from("<H", data, at + offset)[0] for offset in (28, 30, 32))
    entry = data[at : at + 46 + name + extra + rest]
    struct.pack_into("<II", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    claimed = len(npy_header((size // 32, 4), "<i8")) + size
    more = struct.pack("<HHQQ", 1, 16, claimed, claimed)
    struct.pack_into("<H", entry, 30, len(more))
    end = data[data.rfind(b"PK\x05\x06") :]
    new = entry[: 46 + name] + more
    struct.pack_into("<I", end, 12, len(new))
    path.write_bytes(data[:at] + new + end)
    return path


@pytest.mark.parametrize("size", [2**34, 10**15 - 10**15 % 32])
def test_members_that_claim_more_than_the_file_is(tmp_path: Path, size: int) -> None:
    path = claiming(tmp_path / "x.npz", size)
    with pytest.raises(BadFile, match="more than the file can hold"), zip_rows(path, "x") as rows:
        rows.whole()


def test_a_small_file_of_much_is_read_in_pieces_or_not_at_all(tmp_path: Path) -> None:
    path = npz(tmp_path / "x.npz", {"x": [npy_header((2**26,)), *zeros(2**26)]})
    assert path.stat().st_size < 10**5

    def skip() -> None:
        with zip_rows(path, "x") as rows:
            rows.skip(2**26)
            rows.finish()

    assert peak_of(skip) < 2**26


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(BadFile, match="not a regular file"):
        whole(tmp_path / "x.npy")
    with pytest.raises(BadFile, match="not a regular file"), open_zip(tmp_path / "x.npy"):
        pass
