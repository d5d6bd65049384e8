"""Streams that whoever started us closed, or that take nothing: the work is done all the same, and no file gets what was meant for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import ROOT

CLOSED = [(0,), (1,), (2,), (1, 2), (0, 1, 2)]


def run(*command: object, closed: tuple[int, ...] = (), full: tuple[int, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """A Python program with some of its streams closed, or files on a disk that is full."""
    redirected = " ".join(["exec", '"$@"', *(f"{number}<&-" for number in closed), *(f"{number}>/dev/full" for number in full)])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["sh", "-c", redirected, "sh", sys.executable, *map(str, command)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=600,
    )


OPEN = """
import os, subprocess, sys
from ood_data.commands.streams import open_streams
open_streams()
with open(sys.argv[1], "w") as file:
    print(f"{file.fileno() > 2}", file=file, flush=True)
    for stream in (sys.stdout, sys.stderr):
        print("a name that is not UTF-8: \\udcff", file=stream, flush=True)
    sys.stdin.read()
    os.write(1, b"1")
    os.write(2, b"2")
    subprocess.run([sys.executable, "-c", "import os, sys; os.write(2, b'x'); sys.stdin.read(); print(1, file=sys.stderr)"], check=True)
"""


@pytest.mark.parametrize("closed", CLOSED)
def test_no_file_takes_the_place_of_a_stream(tmp_path: Path, closed: tuple[int, ...]) -> None:
    result = run("-c", OPEN, tmp_path / "file", closed=closed)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "file").read_text() == "True\n"


@pytest.mark.parametrize("closed", CLOSED)
def test_a_command_does_its_work(tmp_path: Path, closed: tuple[int, ...]) -> None:
    result = run("-m", "ood_data", "split", "mpi3d", "--kind", "random", "--out", tmp_path / "split.json", closed=closed)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "split.json").stat().st_size > 1000
    assert run("-m", "ood_data", "split", "nonesuch", closed=closed).returncode == 2


@pytest.mark.slow
def test_workers_do_their_work(blocks_root: Path, tmp_path: Path) -> None:
    """Of bench, as processes of their own."""
    settings = [f"--set={key}" for key in ("train.steps=2", "train.batch=8", "score.samples=10")]
    bench = ("-m", "ood_data", "bench", "--model=mlp", "--seeds=2", "--kind=random", "--jobs=2", "--device=cpu", *settings)
    for name, closed in (("some", (2,)), ("all", (0, 1, 2))):
        result = run(*bench, "--data", blocks_root, "--out", tmp_path / name, closed=closed)
        assert result.returncode == 0, result.stderr
        assert len(list((tmp_path / name).glob("*/*/*/*/scores.json"))) == 2


@pytest.mark.slow
def test_a_dataset_is_the_same(tmp_path: Path) -> None:
    generate = ("-m", "ood_data", "generate", "celebglow", "--persons=1", "--levels=2", "--attributes=smile", "--out")
    for name, closed in (("open", ()), ("closed", (0, 1, 2))):
        result = run(*generate, tmp_path / name, closed=closed)
        assert result.returncode == 0, result.stderr
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "open", tmp_path / "closed")
    )
    assert first == second


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
@pytest.mark.parametrize("arguments", [("split", "mpi3d"), ("--help",), ("split", "--help")])
def test_output_that_cannot_be_printed_is_one_line(arguments: tuple[str, ...]) -> None:
    result = run("-m", "ood_data", *arguments, full=(1,))
    assert result.returncode == 1
    assert result.stderr.startswith(b"ood-data: No space left on device: standard output; the disk is full")
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize("full", [(2,), (1, 2)])
def test_a_message_that_cannot_be_told_changes_no_exit_code(full: tuple[int, ...]) -> None:
    assert run("-m", "ood_data", "split", "nonesuch", full=full).returncode == 2
    assert run("-m", "ood_data", "split", "--nonesuch", full=full).returncode == 2
    assert run("-m", "ood_data", "data", "verify", "nonesuch", full=full).returncode == 1


def test_work_goes_on_without_its_messages(blocks_root: Path, tmp_path: Path) -> None:
    command = ("bench", "--model", "mlp", "--kind", "random", "--set", "train.steps=1", "--data", blocks_root, "--out", tmp_path)
    for _ in range(2):  # made, and found done
        result = run("-m", "ood_data", *command, full=(2,))
        assert result.returncode == 0
        assert b"mlp" in result.stdout
