"""`ood-data data fetch`: official files, or single cells of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

import splits
from harness.data.names import stores_in
from harness.formats.catalog import info_of, published, variants
from harness.io.atomic import check_writable
from ood_data.commands.options import as_values, json_option, overwrite_option, stores_out_option
from ood_data.commands.policy import Command
from splits import KINDS
from splits.errors import InputError

if TYPE_CHECKING:
    pass


@click.command("fetch", cls=Command, continues=True)
@click.argument("dataset")
@click.option("--variant", type=click.Choice([*variants("mpi3d")]), help="Which recording of mpi3d.  [default: real, the paper's]")
@click.option(
    "--published",
    "kind",
    type=click.Choice(KINDS),
    help="The benchmark's split files of that kind, from Zenodo, instead of the authors' file.",
)
@click.option(
    "--cells",
    metavar="N|FACTOR=VALUE,…",
    help="Only these images, as NAME.cells.npz: N of them drawn by --seed, or those with some values, by name or index. "
    "Some kB each, from a file that holds its images uncompressed.",
)
@click.option("--seed", default=0, type=click.IntRange(min=0), metavar="N", help="Of the draw of --cells N.")
@click.option(
    "--accept-checksum",
    "accept",
    is_flag=True,
    help="Accept an intact file whose checksum is not the known one, and remember the checksum.",
)
@stores_out_option
@click.option("--download-only", is_flag=True, help="Only download: leave the file in the cache and print its path.")
@overwrite_option("Remove a store of that name that is there first; with --cells, replace NAME.cells.npz.")
@json_option
def fetch(
    dataset: str,
    variant: str | None,
    kind: str | None,
    cells: str | None,
    seed: int,
    accept: bool,
    root: Path,
    download_only: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Download a dataset's official files and convert them. After an interruption, run the same command again to continue.

    DATASET is dsprites, shapes3d, mpi3d or celebglow. Files are kept in OOD_DATA_HOME (~/.cache/ood-data). Nothing is downloaded for a
    store of them that is there and complete.

    \b
    Examples:
      ood-data data fetch shapes3d
      ood-data data fetch mpi3d --variant toy
      ood-data data fetch mpi3d --published extrapolation
      ood-data data fetch mpi3d --variant realistic --cells 64
    """
    info = info_of(dataset, variant)
    if cells is not None:
        for given, option in ((kind, "kind"), (accept, "accept"), (download_only, "download_only")):
            if given:
                raise InputError(f"`cells` gets single images of the official file: leave out `{option}`")
        _fetch_cells(info.name, cells, seed, root, overwrite, as_json)
        return
    first = published(info.name, kind)[0].name if kind else info.convert
    if not download_only and not overwrite and (images := _complete(root, info.name, first)):
        group = str(root / f"{info.name}.zarr")
        if as_json:
            click.echo(json.dumps({"dataset": info.name, "file": None, "store": group, "images": images}))
        else:
            click.echo(f"{group} is complete already: {images:,} images; --overwrite makes it again")
        return

    from harness.formats.convert import convert
    from harness.formats.fetch import fetch_dataset, fetch_published

    if not download_only:
        check_writable(root)
    click.echo(f"{info.title}: {info.license}; {info.homepage}\ncite: {info.citation}", err=True)
    if kind:
        file = fetch_published(info.name, kind, accept=accept, progress=True) / first
    else:
        file = fetch_dataset(info.name, accept, progress=True)
    if download_only:
        click.echo(json.dumps({"dataset": info.name, "file": str(file)}) if as_json else file)
        return
    store = convert(file, info.name, root, overwrite=overwrite, progress=True)
    shown = f"the files in {file.parent}" if kind else file
    if as_json:
        click.echo(json.dumps({"dataset": info.name, "file": str(file), "store": str(store.paths.group), "images": len(store)}))
    else:
        click.echo(f"{store.paths.group} is complete: {len(store):,} images; you can delete {shown} now")


def _fetch_cells(name: str, cells: str, seed: int, root: Path, overwrite: bool, as_json: bool) -> None:
    """Write single images of a dataset into `<root>/<name>.cells.npz`."""
    from harness.formats.cells import check_cells, fetch_cells, sample_cells
    from harness.io.progress import size

    info = info_of(name)
    check_cells(name)
    grid = splits.load_spec(name).grid
    if cells.isdecimal():
        indices = sample_cells(grid, int(cells), seed)
    else:
        pairs = [pair.strip().partition("=") for pair in cells.split(",")]
        if not all(key and value for key, _, value in pairs):
            raise InputError(
                f"`cells` {cells!r}: a number is expected, or values of factors, such as {grid.names[0]}=0,{grid.names[-1]}=1"
            )
        indices = grid.select(**as_values(grid, {key: value for key, _, value in pairs}))
    path = root / f"{name}.cells.npz"
    if path.exists() and not overwrite:
        raise InputError(f"{path} is there already: `overwrite` replaces it, or choose another `root`")
    check_writable(root)
    click.echo(f"{info.title}: {info.license}; {info.homepage}\ncite: {info.citation}", err=True)
    found = fetch_cells(name, indices, progress=True)
    found.save(path)
    if as_json:
        click.echo(json.dumps({"dataset": name, "file": str(path), "images": len(found.indices), "source": found.source}))
    else:
        received, whole = (size(int(found.source[key] or 0)) for key in ("received", "bytes"))
        click.echo(f"{path} has {len(found.indices):,} images; {received} of {whole} were downloaded, which no checksum covers")


def _complete(root: Path, name: str, file: str) -> int | None:
    """How many images the store of that name has, if it was made from `file` and nothing of it is missing.

    Raises:
        InputError: if it was made from something else.
    """
    if name not in stores_in(root):
        return None

    from harness.data.description import read_attributes, read_description
    from harness.data.found import check_source, is_whole
    from harness.data.manifest import Paths

    paths = Paths(root, name)
    documents = paths.documents()
    attributes, description = read_attributes(documents), read_description(documents)
    if attributes is not None and (generator := attributes["source"].get("generator")):
        raise InputError(
            f"{paths.group} was made by `generate {generator}`, and not from {file}: choose another `root`, or `overwrite`"
        )
    check_source(paths, {"file": file})
    return description.shape[0] if description is not None and is_whole(paths, description, documents) else None
