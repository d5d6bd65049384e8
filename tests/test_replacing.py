"""Folders that appear whole, or are as they were."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest

from harness.io.replacing import replacing_folder


def write(folder: Path, text: str) -> None:
    (folder / "flow").mkdir()
    (folder / "flow/weights").write_text(text)
    (folder / "index").write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with contextlib.suppress(RuntimeError), replacing_folder(tmp_path / "new/out") as partial:
        write(partial, "half")
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []
    with replacing_folder(tmp_path / "new/out") as partial:
        write(partial, "whole")
        assert not (tmp_path / "new/out").exists()
    assert content(tmp_path / "new") == {"out/flow/weights": "whole", "out/index": "whole"}


def test_what_else_is_in_a_folder_stays(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "out", last="index") as partial:
            write(partial, text)
        (tmp_path / "out/log").write_text("mine")
        (tmp_path / "out/flow/stale").touch()
    with replacing_folder(tmp_path / "out", last="index") as partial:
        write(partial, "newest")
    assert content(tmp_path) == {"out/log": "mine", "out/flow/weights": "newest", "out/index": "newest"}


@pytest.mark.parametrize("fatal", [1, 2])
def test_no_mixture_of_old_and_new_is_opened(tmp_path: Path, fatal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before an entry takes its place: the index, without which the others mean nothing, is missing until all are there."""
    with replacing_folder(tmp_path / "out") as partial:
        write(partial, "old")
    place, placed = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal placed
        placed += 1
        if placed == fatal:
            raise KeyboardInterrupt
        return place(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "out", last="index") as partial:
        write(partial, "new")
    assert not (tmp_path / "out/index").exists()


def test_an_error_names_the_place_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, replacing_folder(tmp_path / "out") as partial:
        raise OSError(errno.ENOSPC, "No space left", str(partial / "flow/weights"))
    assert caught.value.filename == str(tmp_path / "out/flow/weights")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"), replacing_folder(tmp_path / "file", last="index") as partial:
        write(partial, "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file"]
