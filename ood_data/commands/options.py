"""Options and their values that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.machine import DEVICES
from harness.report.finished import runs_in
from splits.errors import missing_in

if TYPE_CHECKING:
    from splits import FactorGrid

AUTO = "auto"  # as the name of a device: a GPU if there is one


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Comma-separated whole numbers."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers like 4,8,12", param, ctx)


class Seeds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """3: so many, the seeds 0, 1 and 2; 0,4,7: these, a tuple."""

    name = "N|N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, ...]:
        if isinstance(value, int | tuple):
            return value
        listed = "," in str(value)
        try:
            numbers = [int(part) for part in str(value).split(",") if part.strip()]
        except ValueError:
            numbers = []
        if not numbers or min(numbers) < (0 if listed else 1):
            self.fail(
                f"{value!r} is neither a number of seeds, such as 3 for 0, 1 and 2, nor a list of seeds, such as 0,4,7", param, ctx
            )
        return tuple(dict.fromkeys(numbers)) if listed else numbers[0]


class Preset(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """The preset of a bench; `full` was called `paper` before, which still works and says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "paper":
            click.echo("--preset paper is called full now", err=True)
            value = "full"
        return str(super().convert(value, param, ctx))


class Part(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A part, i/n: the i-th of n, i from 1."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            index, count = (int(number) for number in str(value).split("/"))
        except ValueError:
            self.fail(f"{value!r} is not a part like 1/4", param, ctx)
        if not 1 <= index <= count:
            self.fail(f"there is no part {index} of {count}: parts go from 1/{count} to {count}/{count}", param, ctx)
        return index, count


class Device(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """The name of a torch device; whether the machine has it is seen later."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != AUTO and not DEVICES.fullmatch(str(value)):
            self.fail(f"unknown device {value!r}; auto, cpu, cuda, cuda:1, mps or xpu is expected", param, ctx)
        return str(value)


class StoresFolder(click.Path):
    """A folder that holds stores, and is not one itself."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        folder = Path(super().convert(value, param, ctx))  # type: ignore[arg-type]
        if folder.suffix == ".zarr" or (folder / "zarr.json").is_file():
            self.fail(f"{folder} is a store: give the folder that holds it, {folder.parent}", param, ctx)
        if folder.exists() and not folder.is_dir():
            self.fail(f"{folder} is a file: a folder is expected", param, ctx)
        return folder


class Renamed(click.Option):
    """An option that had other names before: they still work, and help does not show them."""

    def __init__(self, *args: Any, formerly: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._today = list(self.opts)
        self.opts.extend(formerly)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        every, self.opts = self.opts, self._today
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return " / ".join(f"'{name}'" for name in self._today)


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a repeated option, each of whose values may hold several, separated by commas."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def completing(words: Callable[[click.Context], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """What the shell offers for an option whose value may hold several words, separated by commas."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        return [f"{before}{comma}{word}" for word in words(ctx) if word.startswith(begun)]

    return complete


def stores_there(ctx: click.Context) -> list[str]:
    """The stores in the folder that the command looks in."""
    from harness.data.names import stores_in

    return stores_in(Path(ctx.params.get("data") or "data"))


def known_models(ctx: click.Context) -> list[str]:
    """The names of the reference models, and all."""
    from harness.models import NAMES

    return [*NAMES, "all"]


def known_kinds(ctx: click.Context) -> list[str]:
    """The kinds of split, and all."""
    from splits import KINDS

    return [*KINDS, "all"]


def known_datasets(ctx: click.Context) -> list[str]:
    """The datasets whose specs are known."""
    from splits import DATASETS

    return [*DATASETS]


def key_values(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE of a repeated option; KEY alone means KEY=KEY."""
    given: dict[str, str] = {}
    for key, _, value in (entry.partition("=") for entry in values):
        if key in given:
            raise click.BadParameter(f"{key} is given twice", ctx, param)
        given[key] = value or key
    return given


def named_values(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read KEY=VALUE as `key_values` does, where each value of the option may hold several, separated by commas."""
    return key_values(ctx, param, names(ctx, param, values))


def factors(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """KEY=NUMBER of a repeated option, as `named_values`."""
    found = {}
    for key, value in named_values(ctx, param, values).items():
        try:
            found[key] = float(value)
        except ValueError:
            raise click.BadParameter(f"{key}={value}: a number is expected", ctx, param) from None
    return found


def as_values(grid: FactorGrid, given: Mapping[str, str]) -> dict[str, int | str]:
    """Values of factors as they were typed: a number is an index, unless it is what the spec calls one of the values."""
    return {
        name: int(text) if text.isdecimal() and text not in map(str, grid[name].values or ()) else text
        for name, text in given.items()
    }


def finished_runs(run: Path) -> list[Path]:
    """The folders of finished runs that a path names."""
    found = runs_in(run)
    if not found:
        raise missing_in(run, f"{run} is neither a finished run nor a folder of them: runs/DATASET/KIND/MODEL/… has a scores.json")
    return found


device_option = click.option(
    "--device",
    default="auto",
    type=Device(),
    help="Where to compute: auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, mps or xpu.",
)
data_option = click.option(
    "--data", default="data/", type=StoresFolder(), metavar="FOLDER", help="Folder that holds the dataset stores."
)
stores_out_option = click.option(
    "--out", "root", default="data/", type=StoresFolder(), metavar="FOLDER", help="Folder that the store goes into."
)
labels_option = click.option(
    "--labels",
    cls=Renamed,
    formerly=("--attributes",),
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A table of what is known about the pictures: CelebA's list_attr_celeba.txt or .csv, or a CSV with a row per picture. "
    "Cells may be empty. A column `file` or `image_id` names the pictures; without one, rows are in the pictures' order.",
)
center_crop_option = click.option(
    "--center-crop",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Read only the central square of this side from each picture file (148 is usual for CelebA).  [default: the shorter side]",
)
crop_option = click.option(
    "--crop",
    default=1.0,
    type=click.FloatRange(0, 1, min_open=True),
    metavar="PART",
    help="Fraction of each picture's side that is used, around its centre.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")


def kinds_option(default: str = "default: all") -> Callable[[Any], Any]:
    """`--kind`, names of kinds of splits; `default` says what holds without one."""
    return click.option(
        "--kind",
        "kinds",
        multiple=True,
        callback=names,
        shell_complete=completing(known_kinds),
        metavar="KIND",
        help=f"random, composition, interpolation, extrapolation or all: repeat, or separate by commas.  [{default}]",
    )


def overwrite_option(help_text: str) -> Callable[[Any], Any]:
    """`--overwrite`, which the error policy remembers: repeated after an interruption, it would start again."""

    def remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        ctx.meta["overwrite"] = value
        return value

    return click.option("--overwrite", is_flag=True, callback=remember, help=help_text)


def flow_folder(flow: str) -> str | Path:
    """The folder of a flow that is given by name or folder; OpenAI's flow is downloaded the first time."""
    if flow != "openai":
        return flow
    from celebglow.convert.openai import openai_flow

    return openai_flow()
