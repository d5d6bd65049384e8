"""The three streams that every program expects, even where whoever started it closed them."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, TextIO, cast

import click.utils

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_streams() -> None:
    """Give the process the streams that it was started without: nothing to read, nowhere to write to.

    The descriptors 0, 1 and 2 as well, for our own workers to inherit: else the next file to be opened, a shard of a store perhaps,
    gets the number 2, and with it what C libraries have to say.
    """
    for number in range(len(STREAMS)):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(null, True)
    for name, mode in STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, errors="backslashreplace"))  # noqa: SIM115, PTH123  (for the rest of the process)
    sys.stderr = cast("TextIO", Messages(sys.stderr))


class Messages:
    """Standard error, whose messages are lost where it is a file on a full disk, and the work goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._given_up_on_errors():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._given_up_on_errors():
            self._stream.flush()

    @contextlib.contextmanager
    def _given_up_on_errors(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # whoever read it has read enough: click ends quietly
            raise
        except OSError:
            give_up(self._stream)


def was_printing(error: BaseException) -> bool:
    """Whether an error of the system's, which names no file then, came while output was printed."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == click.utils.__file__


def give_up(stream: TextIO) -> None:
    """Let what was not printed go nowhere: the interpreter would try again when it ends, and say that it can't."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
