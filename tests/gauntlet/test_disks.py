"""Disks that are full, or read-only: one clear line, and with room the same command comes to the same end."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack import chance, differences, many
from jobs import JOBS, Inputs, inputs, result

__all__ = ["chance", "inputs"]

pytestmark = pytest.mark.slow


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 1 GB."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount")
    path = tmp_path / "disk"
    path.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no disk can be mounted: {error.stderr.decode()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk(name: str, chance: random.Random, inputs: Inputs, disk: Path, tmp_path: Path) -> None:
    job, out = JOBS[name], disk / "out"
    job.begin(tmp_path / "whole", inputs)
    assert job.run(tmp_path / "whole", inputs).code == 0
    for _ in range(many(1, 4)):
        job.begin(out, inputs)
        filler = disk / "filler"
        needed = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
        room = chance.randrange(0, max(4096, needed // 2))
        with filler.open("wb") as file:
            free = shutil.disk_usage(disk).free
            os.posix_fallocate(file.fileno(), 0, max(4096, free - room))
        ended = job.run(out, inputs)
        ended.assert_fine(1, lines=12)
        assert "space" in ended.said, (room, ended)
        assert str(disk) in ended.said, (room, ended)
        assert not [*out.rglob("*.partial"), *out.rglob(".*.partial"), *out.rglob(".lock")], room
        filler.unlink()
        again = job.run(out, inputs)
        assert again.code == 0, (room, again)
        assert not differences(result(job, out), result(job, tmp_path / "whole")), room


@pytest.mark.parametrize("name", [name for name, job in JOBS.items() if job.before is None])
def test_a_read_only_disk(name: str, inputs: Inputs, disk: Path) -> None:
    job = JOBS[name]
    mount("-o", "remount,ro", disk)
    ended = job.run(disk / "out", inputs)
    ended.assert_fine(1, lines=12)
    assert "Read-only" in ended.said
    assert str(disk) in ended.said
