"""Errors that say everything at once: what is wrong, where, and what was probably meant.

Every error that a user of this project can cause is an `OodDataError`, and also the builtin error that fits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(word: object, options: Iterable[str], *, else_all: bool = True) -> str:
    """`"; did you mean 'x-axis'?"`; where nothing is close, all options if `else_all`; empty where there are none."""
    options = list(options)
    folded = {option.casefold(): option for option in options}
    close = [folded[match] for match in difflib.get_close_matches(str(word).casefold(), folded, n=3)]
    if close:
        return f"; did you mean {' or '.join(map(repr, close))}?"
    return f"; known: {', '.join(map(repr, options))}" if options and else_all else ""


class OodDataError(Exception):
    """Something is wrong that the user can put right; the message says how."""


class InputError(OodDataError, ValueError):
    """A value, name, file or setting that cannot be used."""


class MissingError(OodDataError, FileNotFoundError):
    """A file, dataset or run that does not exist, or is not finished."""


class DamagedError(OodDataError, OSError):
    """A file that is not as it was written."""


class BusyError(OodDataError, BlockingIOError):
    """Another process is writing the same thing."""


class NumericalError(OodDataError, FloatingPointError):
    """Numbers that are not finite, or not what they have to be."""


class DependencyError(OodDataError, ImportError):
    """An optional package that is not installed."""


class SpecError(InputError):
    """A split spec with mistakes: `problems` holds one line for each, "path: what was expected and what is there"."""

    def __init__(self, origin: str, problems: Sequence[str]) -> None:
        self.origin, self.problems = origin, tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{origin}: {count}", *(f"  {problem}" for problem in problems)]))
