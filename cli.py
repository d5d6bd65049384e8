"""The `ood-data` command: parse, call, print. What it calls is imported inside the commands, so that help is instant."""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

DONE, FAILED, WRONG_USE = 0, 1, 2


def report_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the errors of the library into one or two plain lines and an exit code: 2 for wrong use, 1 for work not done."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, ArithmeticError, LookupError, RuntimeError) as error:
            if click.get_current_context().find_root().params.get("debug"):
                traceback.print_exc()
            message = str(error) if not isinstance(error, OSError) or error.errno is None else f"{error.strerror}: {error.filename}"
            click.echo(f"ood-data: {message}", err=True)
            sys.exit(WRONG_USE if isinstance(error, ValueError) else FAILED)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ood-data")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def main(debug: bool) -> None:
    """CelebGlow regenerated, and the out-of-distribution splits of Schott et al. (ICLR 2022, arXiv 2107.08221)."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr)


@main.command()
@click.argument("dataset", required=False)
@click.option("--kind", default="all", metavar="KIND", help="random, composition, interpolation, extrapolation or all.")
@click.option(
    "--spec", "spec_file", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="A spec of your own (TOML)."
)
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the indices: .npz, .json or .parquet.")
@click.option(
    "--plot", "picture", type=click.Path(dir_okay=False), metavar="FILE", help="Draw every pair of factors: .png, .pdf or .svg."
)
@click.option("--explain", "explained", is_flag=True, help="Prove by enumeration what the split promises.")
@click.option(
    "--check", type=click.Path(exists=True, file_okay=False), metavar="FOLDER", help="Compare with published label files."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@report_errors
def split(
    dataset: str | None,
    kind: str,
    spec_file: str | None,
    out: str | None,
    picture: str | None,
    explained: bool,
    check: str | None,
    as_json: bool,
) -> None:
    """Show what is train and what is test.

    DATASET is dsprites, shapes3d, mpi3d, mpi3d_toy, mpi3d_realistic, celebglow or a spec file (*.toml).

    With several kinds, each has files of its own: --out mpi3d.npz writes mpi3d-random.npz and so on.

    \b
    Example:
      ood-data split mpi3d --kind composition --plot mpi3d.png --out mpi3d.npz
    """
    import splits
    from splits.export import path_of_kind, write
    from splits.report import report

    if (dataset is None) == (spec_file is None):
        raise ValueError("one of DATASET and --spec is expected; see ood-data split --help")
    spec = splits.load_spec(Path(spec_file) if spec_file else dataset or "")
    kinds = spec.kinds if kind == "all" else (kind,)
    reports = [report(spec.split(each), explained=explained, published=check) for each in kinds]
    for each in kinds:
        if out:
            write(spec.split(each), path_of_kind(out, each, of=kinds))
        if picture:
            from splits.plot import plot  # matplotlib

            plot(spec, each, path_of_kind(picture, each, of=kinds))
    if as_json and kind != "all":
        click.echo(json.dumps(reports[0].data))
    elif as_json:
        click.echo(
            json.dumps({"dataset": spec.name, "splits": [told.data for told in reports], "impossible": dict(spec.impossible)})
        )
    else:
        click.echo("\n\n".join("\n".join(told.lines) for told in reports))
        for impossible, reason in spec.impossible.items() if kind == "all" else ():
            click.echo(f"\n{spec.name}, {impossible}: impossible for this grid: {reason}")
    if not all(told.ok for told in reports):
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
