"""The lock: one holder among processes and threads, gone when its holder is, whatever lies in its place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.io.locks import acquire, is_held, locked, owned, take
from helpers.commands import ROOT
from helpers.files import no_file_above
from splits.errors import BusyError, DamagedError

COUNT = """
for _ in range(50):
    with locked(path / "lock"):
        number = int((path / "number").read_text())
        (path / "number").write_text(str(number + 1))
"""
HOLD = """
with locked(path / "lock"):
    print("held", flush=True)
    sys.stdin.read()
"""
WRITE = """
with acquire(path / "log", "busy") as file:
    file.write(b"a line\\n")
    file.flush()
    print("held", flush=True)
    sys.stdin.read()
"""
LOOK = """
print("held", flush=True)
while True:
    is_held(path / "lock")
"""

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that does that in a folder, where `path` is."""
    running = []

    def started(code: str) -> subprocess.Popen[str]:
        program = f"import sys, pathlib\nfrom harness.io.locks import *\npath = pathlib.Path(sys.argv[1])\n{code}"
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        if "held" in code:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
        return process

    yield started
    for process in running:
        process.kill()
        process.communicate()


def test_of_many_that_wait_one_at_a_time_has_it(start: Start, tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    processes = [start(COUNT) for _ in range(4)]
    threads = [
        threading.Thread(target=exec, args=(COUNT, {"path": tmp_path, "locked": locked})),
        threading.Thread(target=exec, args=(COUNT, {"path": tmp_path, "locked": locked})),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "300"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_who_does_not_wait_is_told(start: Start, tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    process = start(HOLD)
    assert is_held(tmp_path / "lock")
    with pytest.raises(BusyError, match="somebody has it"), locked(tmp_path / "lock", busy="somebody has it"):
        pass
    process.communicate("")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "lock", busy="somebody has it"):
        assert is_held(tmp_path / "lock")


def test_a_killed_holder_holds_nothing(start: Start, tmp_path: Path) -> None:
    process = start(HOLD)
    waited = []

    def wait() -> None:
        with locked(tmp_path / "lock"):
            waited.append(process.poll())

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    assert not waited
    process.kill()
    waiting.join()
    assert len(waited) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_log_with_one_writer(start: Start, tmp_path: Path) -> None:
    process = start(WRITE)
    assert is_held(tmp_path / "log")
    with pytest.raises(BusyError, match="busy"):
        acquire(tmp_path / "log", busy="busy")
    with (tmp_path / "log").open("ab") as file:
        assert not take(file, wait=False)
    process.kill()
    process.wait()
    with acquire(tmp_path / "log", busy="busy") as file:
        file.write(b"another\n")
        file.seek(0)
        assert file.read() == b"a line\nanother\n"
    with (tmp_path / "log").open("ab") as file:
        assert take(file, wait=False)
        assert is_held(tmp_path / "log")
    assert not is_held(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b"a line\nanother\n"


def test_looking_does_not_hinder(start: Start, tmp_path: Path) -> None:
    start(LOOK)
    start(LOOK)
    for _ in range(500):
        with locked(tmp_path / "lock", busy="hindered"):
            pass


@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "fifo", "folder"])
def test_only_a_file_of_its_own_is_locked(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "lock", tmp_path / "other"
    other.write_text("precious")
    make: dict[str, Callable[[], None]] = {
        "link": lambda: path.symlink_to(other),
        "dangling link": lambda: path.symlink_to(tmp_path / "nowhere"),
        "second name": lambda: path.hardlink_to(other),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }
    make[kind]()
    for busy in (None, "busy"):
        with pytest.raises(DamagedError, match="a link or not a regular file"), locked(path, busy):
            pass
    assert not is_held(path)
    assert other.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_an_error_says_which_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing/lock"), locked(tmp_path / "missing/lock"):
        pass


def test_without_room_for_the_owners_name_nothing_is_left(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with no_file_above(4), pytest.raises(OSError, match="File too large") as told, owned(lock, busy=""):
        raise AssertionError("nobody owns it")
    assert told.value.filename == str(lock)
    assert not lock.exists()
