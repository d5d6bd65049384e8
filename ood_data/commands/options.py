"""Options and their values that several commands share."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from splits.errors import InputError

if TYPE_CHECKING:
    import torch

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130  # 130: as shells count a Ctrl-C
DEVICES = re.compile(r"auto|cpu|(cuda|mps|xpu)(:\d+)?")


class Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Comma-separated whole numbers."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers like 4,8,12", param, ctx)


class Part(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """i/n: the i-th of n parts, i from 1."""

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


def comma_separated(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def key_values(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Repeated KEY=VALUE; KEY alone means KEY=KEY."""
    given: dict[str, str] = {}
    for key, _, value in (entry.partition("=") for entry in values):
        if key in given:
            raise click.BadParameter(f"{key} is given twice", ctx, param)
        given[key] = value or key
    return given


def pick_device(name: str) -> torch.device:
    """The torch device of that name; auto is cuda if there is one, else cpu."""
    if not DEVICES.fullmatch(name):
        raise InputError(f"unknown device {name!r}: auto, cpu, cuda, cuda:1, mps or xpu is expected")
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} is not usable here ({str(error).splitlines()[0]}): try --device cpu") from error
    return device


device_option = click.option(
    "--device", default="auto", metavar="NAME", help="auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, …"
)
data_option = click.option(
    "--data", default="data/", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder of the dataset stores."
)
center_crop_option = click.option(
    "--center-crop",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Side of the central square of each picture file that is read, before resizing (148 is usual for CelebA).  "
    "[default: the shorter side]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, nothing else.")


def overwrite_option(help_text: str) -> Callable[[Any], Any]:
    """`--overwrite`, which the error policy remembers: repeated after an interruption, it would start again."""

    def remember(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        ctx.meta["overwrite"] = value
        return value

    return click.option("--overwrite", is_flag=True, callback=remember, help=help_text)


def progress_shown() -> bool:
    """Whether progress bars are of use: stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def flow_folder(flow: str) -> str | Path:
    """The folder of a flow that is given by name or folder; OpenAI's flow is downloaded the first time."""
    if flow != "openai":
        return flow
    from celebglow.convert.openai import openai_flow

    return openai_flow(progress_shown())
