"""Errors that say everything at once: what is wrong, where, and what was probably meant."""

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


class SpecError(ValueError):
    """A split spec with mistakes: `problems` holds one line for each, "path: what was expected and what is there"."""

    def __init__(self, origin: str, problems: Sequence[str]) -> None:
        self.origin, self.problems = origin, tuple(problems)
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__("\n".join([f"{origin}: {count}", *(f"  {problem}" for problem in problems)]))
