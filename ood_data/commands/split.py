"""`ood-data split`: what is train and what is test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ood_data.commands.options import completing, json_option, kinds_option, known_datasets
from ood_data.commands.policy import FAILED, Command
from splits.errors import AbsentError, InputError

ZENODO = "zenodo"


@click.command(cls=Command)
@click.argument("dataset", required=False, shell_complete=completing(known_datasets))
@kinds_option()
@click.option(
    "--spec", "spec_file", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="A spec of your own (TOML)."
)
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write the indices: .npz, .json or .parquet.")
@click.option(
    "--plot", "picture", type=click.Path(dir_okay=False), metavar="FILE", help="Draw every pair of factors: .png, .pdf or .svg."
)
@click.option("--explain", "explained", is_flag=True, help="Check the split by enumerating every sample.")
@click.option(
    "--check",
    metavar="FOLDER|zenodo",
    help="Compare with the benchmark's published label files in FOLDER, or with those on Zenodo, which are downloaded.",
)
@json_option
def split(
    dataset: str | None,
    kinds: tuple[str, ...],
    spec_file: str | None,
    out: str | None,
    picture: str | None,
    explained: bool,
    check: str | None,
    as_json: bool,
) -> None:
    """Show which samples of a dataset are train and which are test.

    DATASET is dsprites, shapes3d, mpi3d, mpi3d_toy, mpi3d_realistic, mpi3d_complex, celebglow, a spec file (*.toml) or a
    store (*.zarr).

    With several kinds, each has files of its own: --out mpi3d.npz writes mpi3d-random.npz and so on.

    \b
    Examples:
      ood-data split mpi3d --kind composition --plot mpi3d.png --out mpi3d.npz
      ood-data split dsprites --kind interpolation,extrapolation --explain
      ood-data split mpi3d --kind composition --check zenodo
    """
    if check not in (None, ZENODO) and not Path(check).is_dir():
        raise AbsentError(f"--check: there is no folder {check}")

    import splits
    from splits.export import check_writable, path_of_kind, write
    from splits.summary import report
    from splits.vocabulary import kinds_named

    if (dataset is None) == (spec_file is None):
        raise InputError("one of DATASET and --spec is expected; see ood-data split --help")
    store = Path("data", f"{dataset}.zarr")
    if dataset is not None and dataset not in splits.DATASETS and Path(dataset).name == dataset and store.is_dir():
        raise InputError(f"{dataset} is none of the paper's datasets, but its store is here: ood-data split {store}")
    spec = splits.load_spec(Path(spec_file) if spec_file else dataset or "")
    if dataset == "celebglow" and store.is_dir() and splits.load_spec(store).grid != spec.grid:
        click.echo(f"{dataset} is the paper's grid; that of the store here is another: ood-data split {store}", err=True)
    named = kinds_named(kinds)
    every = not named
    chosen = named or spec.kinds
    for kind in chosen:  # before long work, and before one file of several is written
        if out:
            check_writable(spec.split(kind), path_of_kind(out, kind, of=chosen))
        if picture:
            from splits.plot import drawn_factors  # matplotlib

            drawn_factors(spec, kind, path_of_kind(picture, kind, of=chosen))
    reports = [report(spec.split(kind), explained=explained, published=_labels(spec.name, kind, check)) for kind in chosen]
    for kind in chosen:
        if out:
            write(spec.split(kind), path_of_kind(out, kind, of=chosen))
            click.echo(f"{path_of_kind(out, kind, of=chosen)} is written", err=True)
        if picture:
            from splits.plot import plot  # matplotlib

            plot(spec, kind, path_of_kind(picture, kind, of=chosen))
            click.echo(f"{path_of_kind(picture, kind, of=chosen)} is drawn", err=True)
    if as_json and len(chosen) == 1 and not every:
        click.echo(json.dumps(reports[0].data))
    elif as_json:
        click.echo(
            json.dumps({"dataset": spec.name, "splits": [each.data for each in reports], "impossible": dict(spec.impossible)})
        )
    else:
        click.echo("\n\n".join("\n".join(each.lines) for each in reports))
        for impossible, reason in spec.impossible.items() if every else ():
            click.echo(f"\n{spec.name}, {impossible}: impossible for this grid: {reason}")
    if not all(each.ok for each in reports):
        sys.exit(FAILED)


def _labels(dataset: str, kind: str, check: str | None) -> str | Path | None:
    """The folder with the published label files to compare with, downloaded if they are Zenodo's."""
    if check != ZENODO:
        return check
    from harness.formats.fetch import fetch_published

    return fetch_published(dataset, kind, images=False, accept=True, progress=True)
