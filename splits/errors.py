"""Errors that say everything at once: what is wrong, where, and what was probably meant.

Every error that a user of this project can cause is an `OodDataError`, and also the builtin error that fits.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

MOST_COMPARED, MOST_LISTED, MOST_PROBLEMS = 1000, 50, 20  # a stranger's file may have 100,000 names, or mistakes
MOST_SHOWN = 60  # characters of a stranger's value


def did_you_mean(word: object, options: Iterable[str], *, else_all: bool = True) -> str:
    """`"; did you mean 'x-axis'?"`; where nothing is close, all options if `else_all`; empty where there are none."""
    options = list(options)
    folded = {option.casefold(): option for option in options[:MOST_COMPARED]}
    close = [folded[match] for match in difflib.get_close_matches(str(word)[:MOST_COMPARED].casefold(), folded, n=3)]
    if close:
        return f"; did you mean {' or '.join(map(shown, close))}?"
    return f"; known: {listed(map(shown, options))}" if options and else_all else ""


def listed(words: Iterable[object]) -> str:
    """`a, b, c`; of very many the first, and how many more there are."""
    written = [*map(str, words)]
    more = [f"and {len(written) - MOST_LISTED:,} more"] if len(written) > MOST_LISTED else []
    return ", ".join([*written[:MOST_LISTED], *more])


def how_many(count: int, what: str) -> str:
    """A number of things whose plural ends in s.

    >>> how_many(1, "run"), how_many(2000, "run")
    ('1 run', '2,000 runs')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(value: object) -> str:
    """A stranger's value for an error's line: as Python writes it, with escapes for what can't be printed, cut where it is long."""
    try:
        written = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        written = f"{type(value).__name__} of very many digits"
    return written if len(written) <= MOST_SHOWN else written[: MOST_SHOWN - 1] + "…"


def printable(text: str) -> str:
    """Text of several lines for a terminal: whatever else would steer it, as a stranger's file name may, is escaped."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class OodDataError(Exception):
    """Something is wrong that the user can put right; the message says how."""


class InputError(OodDataError, ValueError):
    """A value, name, file or setting that cannot be used."""


class OutOfRangeError(OodDataError, IndexError):
    """A number of an image that is not there."""


class MissingError(OodDataError, FileNotFoundError):
    """A file, dataset or run that does not exist, or is not finished."""


class AbsentError(MissingError, ValueError):
    """A file or folder that the user has named, and that does not exist."""


def missing_in(place: Path, message: str) -> MissingError:
    """The error for what is not in a place: an `AbsentError` if that place is not there itself."""
    return (MissingError if place.exists() else AbsentError)(message)


class DamagedError(OodDataError, OSError):
    """A file that is not as it was written."""


class PlaceError(OodDataError, OSError):
    """A folder that nothing can be written to."""


class BusyError(OodDataError, BlockingIOError):
    """Another process is writing the same thing."""


class NumericalError(OodDataError, FloatingPointError):
    """Numbers that are not finite, or not what they have to be."""


class DependencyError(OodDataError, ImportError):
    """An optional package that is not installed."""


class SpecError(InputError):
    """A split spec with mistakes: `problems` holds one line for each, "path: what was expected and what is there".

    Its message has the first `MOST_PROBLEMS` of them.
    """

    def __init__(self, origin: str, problems: Sequence[str]) -> None:
        self.origin, self.problems = origin, tuple(problems)
        lines = [f"  {problem}" for problem in problems[:MOST_PROBLEMS]]
        more = [f"  and {len(problems) - MOST_PROBLEMS:,} more"] if len(problems) > MOST_PROBLEMS else []
        super().__init__("\n".join([f"{origin}: {how_many(len(problems), 'mistake')}", *lines, *more]))
