"""How far long work is, on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import Protocol, Self

LINE_SECONDS = 30.0  # between lines where there is no terminal
LEAST_PART = 0.05  # of the work that has to be done before what is left is estimated


class Bar(Protocol):
    """What shows how far the work is; a context manager.

    Attributes:
        n: how much is done.
        total: how much there is, None if that is not known.
    """

    n: float
    total: float | None

    def update(self, n: float = 1) -> object:
        """Say that `n` more is done."""

    def set_postfix_str(self, s: str = "") -> None:
        """Say a few words about the work beside the numbers."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> object: ...


def progress_bar(what: str, unit: str, total: float | None = None, done: float = 0, shown: bool = True) -> Bar:
    """A bar for work that takes long: shown as a bar on a terminal, as a line every half minute elsewhere.

    Args:
        what: is done, in a word or two.
        unit: of `total`; "B" counts bytes, in kB, MB and GB.
        total: how much there is, None if that is not known yet.
        done: how much was done before.
        shown: False for a bar that only counts.
    """
    if shown and sys.stderr is not None and sys.stderr.isatty():
        from tqdm import tqdm

        bar: Bar = tqdm(total=total, initial=done, unit=unit, unit_scale=unit == "B", desc=what, dynamic_ncols=True)
        return bar
    return Lines(what, unit, total, done, shown and sys.stderr is not None)


def move(bar: Bar, done: float, total: float | None) -> None:
    """Set a bar to `done` of `total`, for work that counts by itself."""
    bar.total = total
    bar.update(done - bar.n)


class Lines:
    """Counts, and prints a line to stderr when the last one is `LINE_SECONDS` old; nothing for work that is over before."""

    def __init__(self, what: str, unit: str, total: float | None, done: float, shown: bool) -> None:
        self.what, self.unit, self.total, self.n = what, unit, total, done
        self._shown, self._words, self._before = shown, "", done
        self._started = self._printed = time.monotonic()

    def update(self, n: float = 1) -> None:
        self.n += n
        if self._shown and time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            print(self.line(self._printed - self._started), file=sys.stderr, flush=True)

    def set_postfix_str(self, s: str = "") -> None:
        self._words = s

    def line(self, seconds: float) -> str:
        """What is done after so many seconds: `celebglow: 5,184 of 216,000 img, 2 %, about 4 min left`."""
        amounts = [self.n] if self.total is None else [self.n, self.total]
        counted = " of ".join(size(amount) if self.unit == "B" else f"{math.floor(amount):,}" for amount in amounts)
        parts = [f"{self.what}: {counted}" if self.unit == "B" else f"{self.what}: {counted} {self.unit}"]
        if self.total:
            parts.append(f"{100 * self.n / self.total:.0f} %")
            if self.n - self._before >= LEAST_PART * (self.total - self._before):
                parts.append(f"about {duration((self.total - self.n) * seconds / (self.n - self._before))} left")
        return ", ".join([*parts, *([self._words] if self._words else [])])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None: ...


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h` or `2.5 days`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def size(number: float) -> str:
    """`512 B`, `1.5 MB` or `12.7 GB`."""
    power = min(int(math.log(max(number, 1), 1000)), 4)
    return f"{number / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
