"""The `ood-data` command: parse, call, print. What it calls is imported inside the commands, so that help is instant."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130  # 130: as shells count a Ctrl-C


def report_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the errors of the library into one or two plain lines and an exit code: 2 for wrong use, 1 for work not done."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, ArithmeticError, LookupError, RuntimeError) as error:
            if click.get_current_context().find_root().params.get("debug"):
                traceback.print_exc()
            message = str(error)
            if isinstance(error, OSError) and error.strerror:
                message = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
            click.echo(f"ood-data: {message}", err=True)
            sys.exit(WRONG_USE if isinstance(error, ValueError) else FAILED)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            how = ", without --overwrite," if click.get_current_context().params.get("overwrite") else ""
            click.echo(f"ood-data: interrupted; the same command{how} continues what can be continued", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:  # a defect of ours: --debug shows where
            if click.get_current_context().find_root().params.get("debug"):
                traceback.print_exc()
            click.echo(f"ood-data: {type(error).__name__}: {error} (--debug shows where)", err=True)
            sys.exit(FAILED)

    return wrapped


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


def names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Comma-separated names."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


def pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Repeated KEY=VALUE; KEY alone means KEY=KEY."""
    given: dict[str, str] = {}
    for key, _, value in (entry.partition("=") for entry in values):
        if key in given:
            raise click.BadParameter(f"{key} is given twice", ctx, param)
        given[key] = value or key
    return given


def pick_device(name: str) -> torch.device:
    """The torch device of that name; auto is cuda if there is one, else cpu."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not usable here ({str(error).splitlines()[0]}): try --device cpu") from error
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ood-data")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def main(debug: bool) -> None:
    """CelebGlow regenerated, and the out-of-distribution splits of Schott et al. (ICLR 2022, arXiv 2107.08221)."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("asyncio", "matplotlib", "numcodecs", "PIL", "zarr"):
        logging.getLogger(chatty).setLevel(logging.INFO)  # --debug is for our own messages
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if debug else logging.ERROR)


# Splits


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
@json_option
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


# Generating


@main.group()
def generate() -> None:
    """Make a dataset from nothing but parameters."""


@generate.command("celebglow")
@click.option("--out", default="data/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the store goes.")
@click.option(
    "--flow",
    default="bundled",
    metavar="NAME|FOLDER",
    help="The flow to walk in: bundled, openai (downloaded), or a folder made by `flow directions` or `flow convert`.",
)
@click.option(
    "--persons", default=1000, type=click.IntRange(1), metavar="N", help="How many people. A smaller store there is extended."
)
@click.option("--levels", default=6, metavar="N", help="Values per attribute, evenly spaced over --range.")
@click.option(
    "--attributes",
    callback=names,
    metavar="NAME,…",
    help="Which of the flow's attributes, in which order.  [default: all; smile,blond,age of OpenAI's 40]",
)
@click.option(
    "--range", "range_", default=(-1.0, 1.0), type=(float, float), metavar="LOW HIGH", help="Attribute values at the ends."
)
@click.option("--temperature", default=0.7, metavar="T", help="Standard deviation of people's latents.")
@click.option(
    "--resolution",
    type=click.IntRange(1),
    metavar="N",
    help="Side of the pictures, a divisor of the flow's.  [default: the flow's]",
)
@click.option("--seed", default=0, metavar="N", help="Another seed, other people.")
@click.option(
    "--precision", default="fp32", type=click.Choice(["fp32", "bf16"]), help="Of the decoding; bf16 is faster and changes pixels."
)
@device_option
@click.option("--part", default="1/1", type=Part(), help="Make one of n disjoint ranges of people, on several machines at once.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="People decoded at the same time; does not change the pictures.  [default: all cores]",
)
@click.option("--overwrite", is_flag=True, help="Remove a CelebGlow that is there first.")
@json_option
@report_errors
def generate_celebglow(
    out: Path,
    flow: str,
    persons: int,
    levels: int,
    attributes: tuple[str, ...],
    range_: tuple[float, float],
    temperature: float,
    resolution: int | None,
    seed: int,
    precision: str,
    device: str,
    part: tuple[int, int],
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """CelebGlow: people × attribute levels, by walking attribute directions in a Glow's latent space.

    Interrupted, it continues where it was when run again; with more --persons, it extends what is there.

    \b
    Examples:
      ood-data generate celebglow --out data/
      ood-data generate celebglow --out data/ --persons 24
      ood-data generate celebglow --out data/ --part 2/4
    """
    from celebglow.generate import Population
    from celebglow.generate import generate as run
    from celebglow.pipeline import CelebGlowPipeline
    from harness.memory import keep_freed_memory

    pipeline = CelebGlowPipeline.from_pretrained(_folder_of(flow))
    population = Population(persons, attributes, levels, range_, temperature, resolution, seed, precision)
    keep_freed_memory()
    complete = run(out, pipeline, population, pick_device(device), part, overwrite, workers, sys.stderr.isatty())
    if as_json:
        click.echo(json.dumps({"store": str(out / "celebglow.zarr"), "complete": complete}))
    elif complete:
        click.echo(f"{out / 'celebglow.zarr'} is complete; look at {out / 'celebglow.png'} and read {out / 'celebglow.md'}")
    else:
        click.echo(f"part {part[0]}/{part[1]} is done; the store is complete when the other parts are")


@generate.command("dsprites")
@click.option("--out", default="data/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the store goes.")
@click.option(
    "--orientations",
    default=40,
    type=click.IntRange(1, 40),
    metavar="N",
    help="Only the first N: of 10, no two look alike. The store is called dsprites10 then, with splits by the paper's rules.",
)
@click.option("--overwrite", is_flag=True, help="Remove a store of that name that is there first.")
@json_option
@report_errors
def generate_dsprites(out: Path, orientations: int, overwrite: bool, as_json: bool) -> None:
    """dSprites: all 737,280 images, rendered exactly; no download.

    Interrupted, it continues where it was when run again.

    \b
    Examples:
      ood-data generate dsprites --out data/
      ood-data generate dsprites --orientations 10 --out data/
    """
    from harness.dsprites import generate as run

    name = run(out, overwrite, sys.stderr.isatty(), orientations)
    if as_json:
        click.echo(json.dumps({"store": str(out / f"{name}.zarr"), "complete": True}))
    else:
        click.echo(f"{out / name}.zarr is complete; look at {out / name}.png and read {out / name}.md")


# Stores


@main.group()
def data() -> None:
    """What is there, and whether it is whole."""


@data.command("list")
@data_option
@json_option
@report_errors
def data_list(data: Path, as_json: bool) -> None:
    """The stores in a folder: images, size, origin.

    \b
    Example:
      ood-data data list --data data/
    """
    from harness.store import overview
    from splits.text import table

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
@click.argument("dataset")
@data_option
@json_option
@report_errors
def data_verify(dataset: str, data: Path, as_json: bool) -> None:
    """Hash every file of a store against its manifest; names each that is damaged, missing or foreign.

    \b
    Example:
      ood-data data verify celebglow --data data/
    """
    from tqdm import tqdm

    from harness.store import verify

    with tqdm(unit="shard", desc="verify", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:

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
@click.option("--overwrite", is_flag=True, help="Remove a store of that name that is there first.")
@json_option
@report_errors
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
    from harness.convert import convert
    from harness.fetch import fetch_dataset
    from harness.sources import source_of

    if variant and dataset != "mpi3d":
        raise ValueError(f"only mpi3d has variants, {dataset} has none")
    name = dataset if variant in (None, "real") else f"{dataset}_{variant}"
    source = source_of(name)
    click.echo(f"{source.title}: {source.license}; {source.homepage}\ncite: {source.citation}", err=True)
    file = fetch_dataset(name, accept, sys.stderr.isatty())
    if download_only:
        click.echo(json.dumps({"dataset": name, "file": str(file)}) if as_json else file)
        return
    store = convert(file, name, out, overwrite=overwrite, progress=sys.stderr.isatty())
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
@click.option("--overwrite", is_flag=True, help="Remove a store of that name that is there first.")
@json_option
@report_errors
def data_convert(file: Path, dataset: str | None, spec_file: Path | None, out: Path, overwrite: bool, as_json: bool) -> None:
    """Official file → store. Interrupted, it continues where it was when run again.

    FILE is dSprites' .npz or .hdf5, 3dshapes.h5, an mpi3d .npz, one of the benchmark's split files (the other three beside it),
    CelebGlow's .npy, or a folder of pictures with a .csv: a column `file`, and one per factor with the index of its value.

    \b
    Examples:
      ood-data data convert real.npz --dataset mpi3d
      ood-data data convert pictures/ --spec my.toml
    """
    from harness.convert import convert

    store = convert(file, dataset, out, spec_file, overwrite, sys.stderr.isatty())
    if as_json:
        click.echo(json.dumps({"dataset": store.name, "store": str(store.paths.group), "images": len(store)}))
    else:
        click.echo(f"{store.paths.group} is complete: {len(store):,} images; read {store.paths.card}")


@data.command("export")
@click.argument("dataset")
@click.option("--kind", required=True, metavar="KIND", help="random, composition, interpolation or extrapolation.")
@click.option(
    "--format", "layout", default="benchmark", type=click.Choice(["benchmark", "png"]), help="The published .npz, or pictures."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Where the files go.")
@data_option
@json_option
@report_errors
def data_export(dataset: str, kind: str, layout: str, out: Path, data: Path, as_json: bool) -> None:
    """Write a store and its split for other code: the benchmark's published layout, or pictures and a .csv.

    \b
    Example:
      ood-data data export mpi3d --kind extrapolation --out published/
    """
    from harness.export import export

    files = export(data, dataset, kind, layout, out, sys.stderr.isatty())
    if as_json:
        click.echo(json.dumps({"dataset": dataset, "kind": kind, "files": list(map(str, files))}))
    else:
        click.echo("\n".join(map(str, files)))


# Benchmarking


@main.command()
@click.option(
    "--model", "models", multiple=True, metavar="NAME", help="A model's name, all, or module:function of your own; repeat."
)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Repeat.  [default: all in --data]")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Repeat.  [default: all four]")
@click.option("--preset", default="quick", type=click.Choice(["quick", "paper"]), help="quick is not the paper's budget.")
@click.option("--seeds", default=1, metavar="N", help="Seeds 0 to N − 1.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the preset: train.steps=500, model.beta=8; repeat."
)
@data_option
@click.option("--out", default="runs/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the run folders go.")
@device_option
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at the same time.  [default: a CPU's cores, else 1]")
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@click.option("--list", "listed", is_flag=True, help="Only show what each model is.")
@json_option
@report_errors
def bench(
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    kinds: tuple[str, ...],
    preset: str,
    seeds: int,
    overrides: tuple[str, ...],
    data: Path,
    out: Path,
    device: str,
    jobs: int | None,
    dry_run: bool,
    listed: bool,
    as_json: bool,
) -> None:
    """Train models on the train side of splits, score them on the test side.

    What is done is skipped, what was killed continues. Every run has a folder in --out; `ood-data report` sums them up.

    \b
    Examples:
      ood-data bench --model pcl
      ood-data bench --model cnn --model my_module:build --kind extrapolation --seeds 3
      ood-data bench --model all --dry-run
    """
    from harness import bench as benching
    from harness.memory import keep_freed_memory
    from harness.tell import models_told, outcomes_told, plan_told

    if listed:
        told = models_told()
    else:
        if not models:
            raise ValueError("which model? --model NAME, or --model all; see ood-data bench --list")
        where = pick_device(device)
        with contextlib.redirect_stdout(sys.stderr):  # what a user's model prints
            planned = benching.plan(models, data, out, datasets, kinds, seeds, preset, overrides, where)  # type: ignore[arg-type,unused-ignore]
            told = plan_told(planned)
            if not dry_run:
                for line in told.lines:
                    click.echo(line, err=True)
                keep_freed_memory()
                outcomes = benching.execute(planned.runs, where, jobs, sys.stderr.isatty())
                told = outcomes_told(planned, outcomes)
    click.echo(json.dumps(told.data) if as_json else "\n".join(told.lines))
    if not told.ok:
        sys.exit(FAILED)


@main.command("report")
@click.argument("runs", default="runs/", type=click.Path(path_type=Path))
@click.option("--out", default="report/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the report goes.")
@json_option
@report_errors
def report_command(runs: Path, out: Path, as_json: bool) -> None:
    """Sum up the run folders in RUNS: tables (CSV), pictures (PNG) and one self-contained page, index.html.

    \b
    Example:
      ood-data report runs/ --out report/
    """
    from harness.references import EXPLAINED
    from harness.report import report
    from harness.results import collect, score_table
    from splits.text import table

    rows = collect(runs)
    files = report(rows, out)
    if as_json:
        click.echo(json.dumps({"files": [str(file) for file in files]}))
    else:
        click.echo("\n".join([*table(score_table(rows)), EXPLAINED]))
        click.echo(f"open {out / 'index.html'}")


# Flows


@main.group()
def flow() -> None:
    """Train a Glow on images, find attribute directions, look at a flow."""


@flow.command("train")
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the training goes; continued if it is there.",
)
@click.option("--resolution", default=64, metavar="N", help="Side of the pictures that the flow makes.")
@click.option("--flow-steps", default="3,6,12,12", type=Numbers(), help="Steps of flow per level, fine to coarse.")
@click.option(
    "--widths", default="32,64,96,128", type=Numbers(), help="Hidden channels of the coupling networks per level, or one for all."
)
@click.option("--coupling", default="additive", type=click.Choice(["additive", "affine"]), help="Kind of coupling.")
@click.option("--bits", default=5, type=click.IntRange(1, 8), help="Bits per channel that are modelled.")
@click.option("--steps", default=10000, metavar="N", help="Training steps; may be raised later.")
@click.option("--batch", default=32, metavar="N", help="Images per step.")
@click.option("--lr", default=1e-3, metavar="RATE", help="Learning rate of Adam.")
@click.option(
    "--attributes",
    "labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A table of the pictures, as for `flow directions --labels`. Training needs none: it is for --balance, and a column "
    "`person` keeps people together when some are held out.",
)
@center_crop_option
@click.option("--crop", default=1.0, metavar="PART", help="Central part of each picture, as read, that is used.")
@click.option(
    "--mix", default=0.7, metavar="PART", help="Part of the images that get another person's face interior; needs landmarks."
)
@click.option("--balance", metavar="COLUMN", help="Draw each value of this column with the square root of its count.")
@click.option("--held-out", default=0.05, metavar="PART", help="Part of the people kept for validation.")
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]), help="Of the coupling networks.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: torch's]")
@click.option("--save-every", default=300.0, metavar="SECONDS", help="Time between checkpoints.")
@click.option("--seed", default=0, metavar="N", help="Of initialisation, batches and noise.")
@device_option
@report_errors
def flow_train(
    images: Path,
    out: Path,
    resolution: int,
    flow_steps: tuple[int, ...],
    widths: tuple[int, ...],
    coupling: str,
    bits: int,
    steps: int,
    batch: int,
    lr: float,
    labels: Path | None,
    center_crop: int | None,
    crop: float,
    mix: float,
    balance: str | None,
    held_out: float,
    precision: str,
    threads: int | None,
    save_every: float,
    seed: int,
    device: str,
) -> None:
    """Train a Glow on IMAGES: a folder of pictures, or an .npz with `images` (N, S, S, 3) uint8 and optional columns.

    OUT gets the averaged weights (flow/), log.jsonl, samples.png and a checkpoint, from which the same command continues.

    Pictures are kept decoded, at up to twice --resolution: CelebA's 202,599, cropped to 148, take 10 GB at --resolution 64, 13.3 GB at
    128 and 40 GB at 256. More than 4 GB go to a temporary file in TMPDIR, so that memory is not exceeded.

    \b
    Examples:
      ood-data flow train portraits/ --out flows/mine --steps 20000 --precision bf16
      ood-data flow train img_align_celeba/ --center-crop 148 --attributes list_attr_celeba.txt --balance Male --out flows/celeba
    """
    import torch

    from celebglow.images import Augmentation, read_images
    from celebglow.pipeline import directions_command
    from celebglow.training import Trainer, TrainingConfig
    from harness.memory import keep_freed_memory

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    config = TrainingConfig(
        flow={
            "resolution": resolution,
            "steps": flow_steps,
            "widths": widths[0] if len(widths) == 1 else widths,
            "coupling": coupling,
            "bits": bits,
            "quantize": False,
        },
        augmentation=Augmentation(crop=crop, mix=mix),
        steps=steps,
        batch=batch,
        lr=lr,
        held_out=held_out,
        balance=balance,
        precision=precision,
        seed=seed,
    )
    config.check()  # before the pictures are decoded, which can take long
    torch_device, shown = pick_device(device), sys.stderr.isatty()
    wanted = [] if balance is None else [balance]
    trainer = Trainer(read_images(images, 2 * resolution, labels, center_crop, wanted, shown), config, out, torch_device)
    trainer.run(save_every=save_every, progress=shown)
    click.echo(f"{out / 'flow'} is trained; next: {directions_command(out / 'flow')}")


@flow.command("directions")
@click.argument("flow", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="The finished flow, for `generate --flow`."
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What is known about the images: CelebA's list_attr_celeba.txt or .csv, or a CSV with a row per image, empty where "
    "unknown: of the files in its column `file` or `image_id`, else in the images' order.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    required=True,
    callback=pairs,
    metavar="NAME[=COLUMN]",
    help="An attribute to walk; repeat.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    callback=pairs,
    metavar="COLUMN",
    help="A column to hold fixed besides; repeat.",
)
@click.option(
    "--strength", "strengths", multiple=True, callback=pairs, metavar="NAME=FACTOR", help="Lengthen or shorten a direction; repeat."
)
@click.option("--held-out", default=0.2, metavar="PART", help="Part of the people kept to judge the directions.")
@click.option(
    "--fit-on", multiple=True, callback=pairs, metavar="COLUMN=VALUE", help="Fit on these images, judge on the others, instead."
)
@center_crop_option
@click.option("--crop", default=1.0, metavar="PART", help="As in training; so is --center-crop.")
@click.option("--shrink", default=1.0, metavar="T", help="Leave out coefficients whose t-statistic is within T.")
@click.option(
    "--decorrelate/--as-fitted",
    default=True,
    help="Mix the directions so that pixel probes see each change its own attribute only.",
)
@click.option(
    "--whole", multiple=True, metavar="NAME", help="NAME shows outside the face, as hair does: probe the whole picture; repeat."
)
@click.option("--half/--full", default=True, help="Store weights in half precision: half the size, pixels the same to 1 in 255.")
@click.option("--seed", default=0, metavar="N", help="Of the held-out people.")
@device_option
@report_errors
def flow_directions(
    flow: Path,
    images: Path,
    out: Path,
    labels: Path | None,
    attributes: dict[str, str],
    controls: dict[str, str],
    strengths: dict[str, str],
    held_out: float,
    fit_on: dict[str, str],
    center_crop: int | None,
    crop: float,
    shrink: float,
    decorrelate: bool,
    whole: tuple[str, ...],
    half: bool,
    seed: int,
    device: str,
) -> None:
    """Find attribute directions in FLOW from labelled IMAGES, and store both as one pipeline.

    \b
    Examples:
      ood-data flow directions flows/celeba/flow img_align_celeba/ --center-crop 148 --labels list_attr_celeba.txt \\
          --attribute smile=Smiling --attribute blond=Blond_Hair --attribute young=Young --out flows/celeba/walkable
      ood-data flow directions flows/mine/flow portraits.npz --labels labels.csv \\
          --attribute smile=smile_score --attribute age --control male --out flows/mine/walkable
    """
    from celebglow.fitting import make_pipeline

    separation = make_pipeline(
        flow,
        images,
        out,
        labels=labels,
        attributes=attributes,
        controls=controls,
        strengths=strengths,
        fit_on=fit_on,
        held_out=held_out,
        crop=crop,
        shrink=shrink,
        decorrelated=decorrelate,
        whole=whole,
        half=half,
        seed=seed,
        device=pick_device(device),
        center_crop=center_crop,
        progress=sys.stderr.isatty(),
    )
    for name, area in separation.items():
        click.echo(f"{name}: separates held-out images with an area under the ROC curve of {area:.3f}")
    click.echo(f"{out} is ready: ood-data generate celebglow --flow {out} --out data/")


@flow.command("convert")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Where the flow goes.")
@click.option(
    "--z-manipulate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="NPY",
    help="The published table of 40 attribute directions.",
)
@click.option("--resolution", type=int, metavar="N", help="Of a PyTorch checkpoint's images.  [default: its implementation's]")
@click.option("--bits", type=click.IntRange(1, 8), help="Of a PyTorch checkpoint's data.  [default: its implementation's]")
@json_option
@report_errors
def flow_convert(file: Path, out: Path, z_manipulate: Path | None, resolution: int | None, bits: int | None, as_json: bool) -> None:
    """Convert a published checkpoint: OpenAI's frozen graph (.pb), or the weights of a PyTorch implementation.

    FILE's format is detected. A graph is run beside what it was converted to; where its structure is not known, the
    converted flow executes it. PyTorch: rosinality/glow-pytorch, chaiyujin/glow-pytorch, y0ast/Glow-PyTorch.

    Tested on graphs in the patterns of the original code: OpenAI's own files were not at hand.

    \b
    Example:
      ood-data flow convert graph_unoptimized.pb --z-manipulate z_manipulate.npy --out flows/celeba-hq
    """
    from celebglow.checkpoints import convert, save

    conversion = convert(file, resolution, bits)
    walkable = save(conversion, out, z_manipulate)
    if as_json:
        done = {"format": conversion.format, "difference": conversion.difference, "note": conversion.note}
        click.echo(json.dumps({"flow": str(out), **done, "walkable": walkable}))
        return
    click.echo(f"{file}: {conversion.summary}")
    if walkable:
        click.echo(f"{out} is ready: ood-data generate celebglow --flow {out} --out data/")
    else:
        click.echo(f"{out / 'flow'} has no attribute directions yet: {conversion.next_step(out)}")


@flow.command("info")
@click.argument("flow", default="bundled")
@json_option
@report_errors
def flow_info(flow: str, as_json: bool) -> None:
    """What a flow is: shape, size, attributes, hash.

    \b
    Example:
      ood-data flow info bundled
    """
    from celebglow.pipeline import CelebGlowPipeline

    only_trained = (Path(flow) / "config.json").is_file()
    load = CelebGlowPipeline.without_directions if only_trained else CelebGlowPipeline.from_pretrained
    info = load(_folder_of(flow)).info()
    if as_json:
        click.echo(json.dumps(info))
        return
    for key, value in info.items():
        click.echo(f"{key:<12} {', '.join(map(str, value)) if isinstance(value, list) else value}")


def _folder_of(flow: str) -> str | Path:
    """The flow's folder; OpenAI's is downloaded the first time."""
    if flow != "openai":
        return flow
    from celebglow.published import openai_flow

    return openai_flow()


if __name__ == "__main__":
    main()
