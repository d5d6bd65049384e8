"""`ood-data data`: list, verify, convert and export stores; `fetch`, `push` and `show` have modules of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.data.names import stores_in
from harness.formats.catalog import command
from ood_data.commands.options import (
    completing,
    data_option,
    json_option,
    kinds_option,
    overwrite_option,
    stores_out_option,
    stores_there,
)
from ood_data.commands.policy import DONE, FAILED, Group
from splits import DATASETS
from splits.errors import InputError, MissingError, did_you_mean

if TYPE_CHECKING:
    from harness.data.verify import Problem


@click.group(cls=Group)
def data() -> None:
    """List, verify, fetch, convert, show, export and push the dataset stores.

    \b
    Examples:
      ood-data data list
      ood-data data verify celebglow
      ood-data data fetch shapes3d
    """


@data.command("list")
@data_option
@json_option
def data_list(data: Path, as_json: bool) -> None:
    """List the stores in a folder: their images, size, origin and state.

    \b
    Example:
      ood-data data list --data data/
    """
    from harness.data.verify import overview
    from splits.formatting import table

    if not data.is_dir():
        raise MissingError(f"there is no folder {data}: {_make_one(data)}")
    stores = overview(data)
    if as_json:
        click.echo(json.dumps({"stores": stores}))
        return
    if not stores:
        click.echo(f"no store in {data}: {_make_one(data)}")
        return
    rows = [("dataset", "images", "MB", "from", "state")]
    for store in stores:
        state = "complete" if store["complete"] else store["damage"] or "unfinished"
        rows.append((store["name"], f"{store['images']:,}", f"{store['bytes'] / 1e6:,.0f}", store["origin"], state))
    click.echo("\n".join(table(rows)))


def _make_one(data: Path) -> str:
    return f"make one with `ood-data generate celebglow --out {data}`"


def _check_named(datasets: Sequence[str], data: Path) -> list[str]:
    """The names of the stores in a folder; an error if one of `datasets` is not among them, or there is none at all."""
    there = stores_in(data)
    if not there:
        known = [name for name in datasets if name in DATASETS]
        how = "; ".join(f"get {name} with `{command(name, data)}`" for name in known) or _make_one(data)
        raise MissingError(f"there is no {' and no '.join(datasets) or 'store'} in {data}: {how}")
    for name in datasets:
        if name not in there:
            wrong = MissingError if name in DATASETS else InputError
            raise wrong(f"there is no {name} in {data}{did_you_mean(name, there)}")
    return there


@data.command("verify")
@click.argument("datasets", nargs=-1, metavar="[DATASET]...", shell_complete=completing(stores_there))
@data_option
@json_option
def data_verify(datasets: tuple[str, ...], data: Path, as_json: bool) -> None:
    """Compare every file of the stores with its hash in the manifest, and name those that are damaged, missing or foreign.

    Without DATASET, it verifies all stores in --data.

    \b
    Examples:
      ood-data data verify celebglow --data data/
      ood-data data verify
    """
    # One that is named may have lost all that says that it is a store.
    named = bool(datasets) and all((data / f"{name}.zarr").is_dir() for name in datasets)
    there = list(datasets) if named else _check_named(datasets, data)

    from harness.data.verify import verify
    from harness.io.progress import move, progress_bar

    found = {}
    for name in dict.fromkeys(datasets or there):
        with progress_bar(f"verify {name}", "shard") as bar:
            found[name] = verify(data, name, partial(move, bar))
        if not as_json:
            click.echo("\n".join(_verdict(name, found[name])))
    reports = [
        {"dataset": name, "problems": [{"path": p.path, "what": p.what, "advice": p.advice} for p in found[name]]} for name in found
    ]
    if as_json:
        click.echo(json.dumps(reports[0] if len(datasets) == 1 else {"stores": reports}))
    sys.exit(FAILED if any(found.values()) else DONE)


def _verdict(name: str, problems: Sequence[Problem]) -> list[str]:
    """What is wrong with a store, and what to do."""
    if not problems:
        return [f"{name} is whole: every file is what its manifest says"]
    lines = list(map(str, problems))
    if any("/images/c." in problem.path and problem.what != "is missing" for problem in problems):
        lines.append(
            f"delete the files images/c.… that are named here, and repeat the command that made {name}: it makes only these"
        )
    elif not all(problem.advice for problem in problems) and not any(problem.path == f"{name}.zarr" for problem in problems):
        lines.append(f"repeat the command that made {name}: it makes only what is missing or damaged")
    return lines


@data.command("convert", continues=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--dataset",
    metavar="NAME",
    help=f"Which dataset it is: {', '.join(DATASETS)}.  [default: the name of --spec]",
)
@click.option(
    "--spec", "spec_file", type=click.Path(path_type=Path), metavar="FILE", help="Grid and splits of your own dataset (TOML)."
)
@stores_out_option
@overwrite_option("Remove a store of that name that is there first.")
@json_option
def data_convert(file: Path, dataset: str | None, spec_file: Path | None, root: Path, overwrite: bool, as_json: bool) -> None:
    """Convert an official file into a store. After an interruption, run the same command again to continue.

    FILE is dSprites' .npz or .hdf5, 3dshapes.h5, an mpi3d .npz, disent's copy of these, one of the benchmark's split files (the other
    three beside it), CelebGlow's .npy, or a folder of pictures with a .csv: a column `file`, and one per factor with the index or the
    name of its value.

    \b
    Examples:
      ood-data data convert real.npz --dataset mpi3d
      ood-data data convert pictures/ --spec my.toml
    """
    from harness.formats.convert import convert

    store = convert(file, dataset, root, spec_file, overwrite, progress=True)
    if as_json:
        click.echo(json.dumps({"dataset": store.name, "store": str(store.paths.group), "images": len(store)}))
    else:
        click.echo(f"{store.paths.group} is complete: {len(store):,} images; read {store.paths.card}")


@data.command("export", continues=True)
@click.argument("dataset")
@kinds_option(default="required; the official layout has none")
@click.option(
    "--format",
    "layout",
    default="benchmark",
    type=click.Choice(["benchmark", "png", "parquet", "webdataset", "official"]),
    help="benchmark: the published .npz files; png: pictures and tables; parquet: as Hugging Face reads it; "
    "webdataset: tar files to stream; official: all images in one file, as the dataset's authors publish it.",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where the files go."
)
@data_option
@json_option
def data_export(dataset: str, kinds: tuple[str, ...], layout: str, out: Path, data: Path, as_json: bool) -> None:
    """Write a store and its split for other code: the benchmark's published layout, pictures, parquet, tar files, or the official file.

    Parquet is what datasets.load_dataset(FOLDER, KIND) of Hugging Face reads.

    \b
    Examples:
      ood-data data export mpi3d --kind extrapolation --out published/
      ood-data data export celebglow --kind random --format png --out faces/
      ood-data data export dsprites --kind all --format parquet --out hub/
      ood-data data export celebglow --kind random --format webdataset --out tars/
      ood-data data export dsprites --format official --out dsprites/
    """

    from splits.vocabulary import kinds_named

    if not kinds and layout != "official":
        raise InputError("which kind of split? name it by --kind, or give --kind all")
    if kinds and layout == "official":
        raise InputError("the official layout has all images and no sides: leave out --kind")
    chosen = kinds_named(kinds)
    _check_named([dataset], data)
    if layout == "png" and len(chosen) != 1:
        raise InputError("export pictures for one kind of split at a time: the folders of several would mix train and test images")

    import harness
    from harness.formats.export import export

    wanted = [None] if layout == "official" else chosen or harness.open(dataset, data).spec.kinds
    files = [file for kind in wanted for file in export(data, dataset, kind, layout, out, progress=True)]
    if as_json:
        kind = wanted[0] if len(wanted) == 1 else list(wanted)
        click.echo(json.dumps({"dataset": dataset, "kind": kind, "files": list(map(str, files))}))
    else:
        click.echo("\n".join(map(str, files)))
