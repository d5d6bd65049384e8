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


@pytest.mark.parametrize("fatal", [None, 1, 2])
def test_no_mixture_of_old_and_new_is_there(tmp_path: Path, fatal: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while one takes the other's place, there is the old, or none until the command is repeated."""
    with replacing_folder(tmp_path / "out") as partial:
        write(partial, "old")
    (tmp_path / "out/flow/stale").touch()
    place, placed = Path.rename, 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal placed
        placed += 1
        if placed == fatal:
            raise KeyboardInterrupt
        return place(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with contextlib.suppress(KeyboardInterrupt), replacing_folder(tmp_path / "out") as partial:
        write(partial, "new")
    old = {"flow/weights": "old", "index": "old", "flow/stale": ""}
    assert content(tmp_path / "out") == {None: {"flow/weights": "new", "index": "new"}, 1: old, 2: {}}[fatal]
    monkeypatch.undo()
    with replacing_folder(tmp_path / "out") as partial:
        write(partial, "new")
    assert content(tmp_path / "out") == {"flow/weights": "new", "index": "new"}


def test_an_error_names_the_place_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, replacing_folder(tmp_path / "out") as partial:
        raise OSError(errno.ENOSPC, "No space left", str(partial / "flow/weights"))
    assert caught.value.filename == str(tmp_path / "out/flow/weights")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"), replacing_folder(tmp_path / "file/out") as partial:
        write(partial, "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file"]
