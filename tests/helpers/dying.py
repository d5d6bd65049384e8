"""A writer that dies between two writes, as a killed process does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from harness.data import writer
from harness.io.atomic import write_atomically


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the writer's own handling runs but what a dead process would leave."""


@contextlib.contextmanager
def killed_at(fatal: int) -> Iterator[list[Path]]:
    """Within, a store's writer dies at the `fatal`-th file that it publishes, half of which is left.

    What it yields holds that file's path afterwards, and is empty if so many were not published.
    """
    died: list[Path] = []
    count = 0

    def dying(path: Path, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == fatal:
            path.with_name(path.name + ".partial").write_bytes(data[: len(data) // 2])
            died.append(path)
            raise Killed
        write_atomically(path, data)

    with mock.patch.object(writer, "write_atomically", dying), contextlib.suppress(Killed):
        yield died
