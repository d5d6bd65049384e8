"""`ood-data data`: list, verify, fetch, convert and export stores."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ood_data.commands.options import DONE, FAILED, checked_name, data_option, json_option, overwrite_option, progress_shown
from splits.errors import InputError


@click.group()
def data() -> None:
    """What is there, and whether it is whole."""


@data.command("list")
@data_option
@json_option
def data_list(data: Path, as_json: bool) -> None:
    """The stores in a folder: images, size, origin.

    \b
    Example:
      ood-data data list --data data/
    """
    from harness.data.store import overview
    from splits.formatting import table

    stores = overview(data)
    if as_json:
        click.echo(json.dumps({"stores": stores}))
        return
    if not stores:
        click.echo(f"no store in {data}: make one with `ood-data generate celebglow --out {data}`")
        return
    rows = [("dataset", "images", "MB", "from", "state")]
    for store in stores:
        state = "complete" if store["complete"] else store["damage"] or "unfinished"
        rows.append((store["name"], f"{store['images']:,}", f"{store['bytes'] / 1e6:,.0f}", store["origin"], state))
    click.echo("\n".join(table(rows)))


@data.command("verify")
@click.argument("dataset", callback=checked_name)
@data_option
@json_option
def data_verify(dataset: str, data: Path, as_json: bool) -> None:
    """Hash every file of a store against its manifest; names each that is damaged, missing or foreign.

    \b
    Example:
      ood-data data verify celebglow --data data/
    """
    from tqdm import tqdm

    from harness.data.store import verify

    with tqdm(unit="shard", desc="verify", disable=not progress_shown(), dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        problems = verify(data, dataset, progress)
    if as_json:
        click.echo(json.dumps({"dataset": dataset, "problems": [{"path": p.path, "what": p.what} for p in problems]}))
    elif problems:
        for problem in problems:
            click.echo(f"{problem.path}: {problem.what}")
        if any("/images/" in problem.path for problem in problems):
            click.echo(f"delete the files of images/ named here and make {dataset} again: only they are made; else use --overwrite")
        elif not all(problem.what.endswith(("again", "delete it")) for problem in problems):
            click.echo(f"make {dataset} again; if that changes nothing, with --overwrite")
    else:
        click.echo(f"{dataset} is whole: every file is what its manifest says")
    sys.exit(FAILED if problems else DONE)


@data.command("fetch")
@click.argument("dataset")
@click.option("--variant", type=click.Choice(["real", "realistic", "toy"]), help="Of mpi3d.  [default: real, the paper's]")
@click.option(
    "--accept-checksum", "accept", is_flag=True, help="Keep a whole file of another checksum than the known one; remembered."
)
@click.option("--out", default="data/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the store goes.")
@click.option("--download-only", is_flag=True, help="Leave the file in the cache; print its path.")
@overwrite_option("Remove a store of that name that is there first.")
@json_option
def data_fetch(
    dataset: str, variant: str | None, accept: bool, out: Path, download_only: bool, overwrite: bool, as_json: bool
) -> None:
    """Download a dataset's official files, and convert them. Interrupted, it continues where it was when run again.

    DATASET is dsprites, shapes3d, mpi3d or celebglow. Files are kept in OOD_DATA_HOME (~/.cache/ood-data).

    \b
    Examples:
      ood-data data fetch shapes3d
      ood-data data fetch mpi3d --variant toy
    """
    from harness.formats.catalog import source_of
    from harness.formats.convert import convert
    from harness.formats.fetch import fetch_dataset

    if variant and dataset != "mpi3d":
        raise InputError(f"only mpi3d has variants, {dataset} has none")
    name = dataset if variant in (None, "real") else f"{dataset}_{variant}"
    source = source_of(name)
    click.echo(f"{source.title}: {source.license}; {source.homepage}\ncite: {source.citation}", err=True)
    file = fetch_dataset(name, accept, progress_shown())
    if download_only:
        click.echo(json.dumps({"dataset": name, "file": str(file)}) if as_json else file)
        return
    store = convert(file, name, out, overwrite=overwrite, progress=progress_shown())
    if as_json:
        click.echo(json.dumps({"dataset": name, "file": str(file), "store": str(store.paths.group), "images": len(store)}))
    else:
        click.echo(f"{store.paths.group} is complete: {len(store):,} images; {file} may be deleted")


@data.command("convert")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", metavar="NAME", help="Which dataset it is.  [default: the name of --spec]")
@click.option(
    "--spec", "spec_file", type=click.Path(path_type=Path), metavar="FILE", help="Grid and splits of your own dataset (TOML)."
)
@click.option("--out", default="data/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the store goes.")
@overwrite_option("Remove a store of that name that is there first.")
@json_option
def data_convert(file: Path, dataset: str | None, spec_file: Path | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """Official file → store. Interrupted, it continues where it was when run again.

    FILE is dSprites' .npz or .hdf5, 3dshapes.h5, an mpi3d .npz, one of the benchmark's split files (the other three beside it),
    CelebGlow's .npy, or a folder of pictures with a .csv: a column `file`, and one per factor with the index of its value.

    \b
    Examples:
      ood-data data convert real.npz --dataset mpi3d
      ood-data data convert pictures/ --spec my.toml
    """
    from harness.formats.convert import convert

    store = convert(file, dataset, out, spec_file, overwrite, progress_shown())
    if as_json:
        click.echo(json.dumps({"dataset": store.name, "store": str(store.paths.group), "images": len(store)}))
    else:
        click.echo(f"{store.paths.group} is complete: {len(store):,} images; read {store.paths.card}")


@data.command("export")
@click.argument("dataset", callback=checked_name)
@click.option("--kind", required=True, metavar="KIND", help="random, composition, interpolation or extrapolation.")
@click.option(
    "--format", "layout", default="benchmark", type=click.Choice(["benchmark", "png"]), help="The published .npz, or pictures."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Where the files go.")
@data_option
@json_option
def data_export(dataset: str, kind: str, layout: str, out: Path, data: Path, as_json: bool) -> None:
    """Write a store and its split for other code: the benchmark's published layout, or pictures and a .csv.

    \b
    Example:
      ood-data data export mpi3d --kind extrapolation --out published/
    """
    from harness.formats.export import export

    files = export(data, dataset, kind, layout, out, progress_shown())
    if as_json:
        click.echo(json.dumps({"dataset": dataset, "kind": kind, "files": list(map(str, files))}))
    else:
        click.echo("\n".join(map(str, files)))
