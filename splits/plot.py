"""A split as a picture: every pair of factors as a grid of train and test cells, in the manner of the paper's figure 1."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from splits.errors import InputError
from splits.export import written_whole
from splits.grid import Factor
from splits.spec import SplitSpec
from splits.split import Split

TRAIN, TEST, BOTH, INK = "#c9d3de", "#d1495b", "#8f2537", "#22303c"
_LABELLED = 8  # up to so many values, a factor's ticks name each; of more, the ends and where held-out values begin and end
MOST_FACTORS, MOST_VALUES = 12, 1000  # that are drawn: panels and cells of more can't be read
MOST_LETTERS = 24  # of a value's name
LEGEND = 5.6  # inches: a narrower picture would cut it off


def plot(spec: SplitSpec, kind: str, path: str | Path) -> None:
    """Draw a split to an image file (.png, .pdf, .svg) over every pair of factors that take part; for random, of those that vary.

    A cell is one pair of values, the other factors fixed where the pair decides: at values that train has if any held-out
    factor makes a sample test, at held-out values if it takes all, and at their first value for a random split. Of very many
    factors the first `MOST_FACTORS` are drawn, none of more than `MOST_VALUES` values, and the caption says so.

    Raises:
        ValueError: as `drawn_factors`.
    """
    split = spec.split(kind)
    shown, left_out = drawn_factors(spec, kind, path)
    rows, columns = shown[1:], shown[:-1]
    figure = Figure(
        figsize=(max(LEGEND, 2.0 + sum(map(_inches, columns))), 1.7 + sum(map(_inches, rows))),
        layout="constrained",
        facecolor="white",
    )
    axes = figure.subplots(
        len(rows), len(columns), squeeze=False, width_ratios=[*map(_inches, columns)], height_ratios=[*map(_inches, rows)]
    )
    for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
        if j > i:
            axes[i, j].set_axis_off()
        else:
            _draw_pair(axes[i, j], split, row, column, last_row=i == len(rows) - 1, first_column=j == 0)
    figure.align_labels()
    _caption(figure, split, left_out)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=160)


def drawn_factors(spec: SplitSpec, kind: str, path: str | Path) -> tuple[list[Factor], int]:
    """The factors that `plot` pairs, and how many more it leaves out; nothing is drawn.

    Raises:
        ValueError: as `SplitSpec.split`; for a grid with fewer than two factors to pair; for a suffix that matplotlib doesn't know.
    """
    split = spec.split(kind)
    if Path(path).suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f"can't draw {str(path)!r}: a file ending in .png, .pdf or .svg is expected")
    choices = (split.held_out, spec.varying, [factor.name for factor in spec.grid if factor.size > 1])
    pairable = next(([spec.grid[name] for name in names] for names in choices if len(names) > 1), [])
    shown = [factor for factor in pairable if factor.size <= MOST_VALUES][:MOST_FACTORS]
    if len(shown) < 2:
        raise InputError(f"a plot takes pairs of factors, and {spec.name} has fewer than two that vary and can be drawn")
    return shown, len(pairable) - len(shown)


def pair_mask(split: Split, row: str, column: str) -> NDArray[np.bool_]:
    """(size of row, size of column) bool, True is test: the slice of the split that `plot` shows for a pair."""
    fixed = dict.fromkeys(split.grid.names, 0)
    for name, held_out in split.held_out.items():
        values = range(split.grid[name].size) if split.test_if == "any" else held_out
        fixed[name] = next(value for value in values if split.test_if == "all" or value not in held_out)
    rows, columns = np.arange(split.grid[row].size), np.arange(split.grid[column].size)
    cells = np.empty((len(rows), len(columns), len(split.grid.names)), dtype=np.int64)
    cells[:] = list(fixed.values())
    cells[..., split.grid.axis(row)] = rows[:, None]
    cells[..., split.grid.axis(column)] = columns
    return split.is_test(split.grid.index(cells))


def _inches(factor: Factor) -> float:
    return 0.55 + 0.3 * float(factor.size**0.55)  # a panel of 40 values is not twenty times one of two


def _draw_pair(axes: Axes, split: Split, row: Factor, column: Factor, *, last_row: bool, first_column: bool) -> None:
    mask = pair_mask(split, row.name, column.name)
    line_width = 1.6 if max(mask.shape) <= 12 else 0.5
    held_out = [np.isin(np.arange(factor.size), split.held_out.get(factor.name, ())) for factor in (row, column)]
    shade = mask.astype(np.int64) + (mask & np.outer(*held_out) if split.test_if == "any" else 0)
    axes.pcolormesh(shade, cmap=ListedColormap([TRAIN, TEST, BOTH]), vmin=0, vmax=2, edgecolors="white", linewidth=line_width)
    axes.invert_yaxis()  # the first value on top, as in a list
    for axis, factor, outer in ((axes.xaxis, column, last_row), (axes.yaxis, row, first_column)):
        marked = _marked(factor, split.held_out.get(factor.name, ()))
        axis.set_ticks([value + 0.5 for value in marked], labels=[_plain(factor.label(value)) for value in marked] if outer else [])
        axis.set_tick_params(length=0, labelsize=7 if len(marked) <= _LABELLED else 5, labelcolor=INK)
    if last_row:
        axes.set_xlabel(_titled(column), fontsize=9, color=INK)
        if column.values is not None and column.size <= _LABELLED:
            axes.xaxis.set_tick_params(rotation=45)
    if first_column:
        axes.set_ylabel(_titled(row), fontsize=9, color=INK)
    axes.spines[:].set_visible(False)


def _marked(factor: Factor, held_out: Sequence[int]) -> Sequence[int]:
    """The values whose ticks are labelled: all of a few; of many the ends, and the first and last held-out value of each run of them."""
    if factor.size <= _LABELLED:
        return range(factor.size)
    out = set(held_out)
    edges = [value for value in out if value - 1 not in out or value + 1 not in out]
    apart = [value for value in sorted(edges) if 1 < value < factor.size - 2]  # of labels that would touch, the ends'
    return [0, *apart, factor.size - 1]


def _titled(factor: Factor) -> str:
    """A factor's name; where its values have no names, that numbers are indices."""
    return _plain(factor.name) + ("" if factor.values is not None else " (index)")


def _plain(name: str) -> str:
    """A name as text to draw: no mathematics between its dollars, and no line that leaves no room for the picture."""
    return (name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…").replace("$", r"\$")


def _caption(figure: Figure, split: Split, left_out: int) -> None:
    train, test = split.counts
    fixed = {"any": "at values seen in train", "all": "at held-out values", None: "at their first value"}[split.test_if]
    figure.suptitle(f"{_plain(split.dataset)} · {split.kind}", fontsize=12, color=INK, fontweight="bold")
    handles = [
        Patch(color=TRAIN, label=f"train, {train:,} ({1 - split.test_ratio:.0%})"),
        Patch(color=TEST, label=f"test, {test:,} ({split.test_ratio:.0%})"),
    ]
    if split.test_if == "any":
        handles.append(Patch(color=BOTH, label="test, both factors held out"))
    title = f"one cell per pair of values, the other factors {fixed}" + (f"; {left_out} more factors not drawn" if left_out else "")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, title=title, title_fontsize=7)
