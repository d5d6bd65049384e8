"""The three streams that every program expects, even where whoever started it closed them."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TextIO

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


def was_printing(error: BaseException) -> bool:
    """Whether an error of the system's, which names no file then, came while output was printed."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == click.utils.__file__


def give_up(stream: TextIO) -> None:
    """Let what was not printed go nowhere: the interpreter would try again when it ends, and say that it can't."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
