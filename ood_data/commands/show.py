"""`ood-data data show`: images of a store, to look at."""

from __future__ import annotations

from pathlib import Path

import click

from ood_data.commands.options import as_values, completing, data_option, key_values, names, stores_there
from ood_data.commands.policy import Command


def fixed(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """FACTOR=VALUE of a repeated option."""
    if wrong := [value for value in values if "=" not in value]:
        raise click.BadParameter(f"FACTOR=VALUE is expected, such as {wrong[0]}=0", ctx, param)
    return key_values(ctx, param, values)


@click.command("show", cls=Command)
@click.argument("dataset", shell_complete=completing(stores_there))
@click.option(
    "--walk",
    "factors",
    multiple=True,
    callback=names,
    metavar="FACTOR",
    help="Walk along this factor: one makes a row, or a .gif; two make rows and columns. Repeat, or separate by commas.",
)
@click.option(
    "--at",
    multiple=True,
    callback=fixed,
    metavar="FACTOR=VALUE",
    help="The value of another factor, by its name or index; may be repeated.  [default: the middle one]",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Picture to write: .png or .gif."
)
@data_option
def show(dataset: str, factors: tuple[str, ...], at: dict[str, str], out: Path, data: Path) -> None:
    """Draw images of a store along one factor or two.

    \b
    Examples:
      ood-data data show celebglow --walk smile --at person=3 --out smile.gif
      ood-data data show dsprites --walk scale,orientation --at shape=heart --out hearts.png
    """
    import harness
    from harness.data.show import save

    opened = harness.open(dataset, data)
    values = as_values(opened.spec.grid, at)
    save(opened, out, factors, values)
    click.echo(f"{out} is drawn")
