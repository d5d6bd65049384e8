"""`ood-data generate`: datasets from nothing but parameters."""

from __future__ import annotations

import json
import shlex
from functools import partial
from pathlib import Path

import click

from ood_data.commands.options import (
    Part,
    Renamed,
    device_option,
    flow_folder,
    json_option,
    names,
    overwrite_option,
    stores_out_option,
)
from ood_data.commands.places import answer, cluster_in, cluster_option, place_of, wait_option
from ood_data.commands.policy import Group


@click.group(cls=Group)
def generate() -> None:
    """Generate a dataset from parameters, without official files.

    \b
    Examples:
      ood-data generate celebglow --out data/
      ood-data generate dsprites --out data/
    """


@generate.command("celebglow", continues=True)
@stores_out_option
@click.option(
    "--flow",
    default="bundled",
    metavar="NAME|FOLDER",
    help="The flow to walk in: bundled, openai (downloaded), or a folder made by `flow directions` or `flow convert`.",
)
@click.option(
    "--persons", default=1000, type=click.IntRange(1), metavar="N", help="How many people; a store with fewer is extended."
)
@click.option("--levels", default=6, metavar="N", help="Values per attribute, at least 2, evenly spaced over --range.")
@click.option(
    "--attribute",
    "attributes",
    cls=Renamed,
    formerly=("--attributes",),
    multiple=True,
    callback=names,
    metavar="NAME",
    help="Which of the flow's attributes, in which order: repeat, or separate by commas; `flow info` lists them.  "
    "[default: all; smile,blond,age of OpenAI's 40]",
)
@click.option(
    "--range", "range_", default=(-1.0, 1.0), type=(float, float), metavar="LOW HIGH", help="Attribute values at the ends."
)
@click.option("--temperature", default=0.7, metavar="T", help="Standard deviation of people's latents, at least 0.")
@click.option(
    "--resolution",
    type=click.IntRange(1),
    metavar="N",
    help="Width and height of the pictures; must divide the flow's.  [default: the flow's]",
)
@click.option("--seed", default=0, type=click.IntRange(0), metavar="N", help="Another seed makes other people.")
@click.option(
    "--precision",
    default="fp32",
    type=click.Choice(["fp32", "bf16"]),
    help="Precision of the decoding: bf16 is faster on processors that have it, but changes some pixels.",
)
@device_option
@click.option(
    "--part",
    default="1/1",
    type=Part(),
    help="Make only the i-th of n ranges of people, so that several machines can share the work.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="How many people to decode at the same time; does not change the pictures.  [default: all cores]",
)
@overwrite_option("First remove a CelebGlow that is already there.")
@cluster_option
@wait_option
@json_option
def generate_celebglow(
    root: Path,
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
    cluster: Path | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Make CelebGlow, pictures of people × attribute levels, by walking attribute directions in a Glow's latent space.

    After an interruption, run the same command again to continue. With more --persons, it extends a store that is there.

    \b
    Examples:
      ood-data generate celebglow --out data/
      ood-data generate celebglow --out data/ --persons 24
      ood-data generate celebglow --out data/ --part 2/4
      ood-data generate celebglow --out data/ --cluster cluster.toml
      ood-data generate celebglow --out small/ --levels 3 --attribute blond,age --range -0.5 1
    """
    if cluster is not None and (part != (1, 1) or overwrite):
        raise click.UsageError("--cluster makes all parts of a store: it goes neither with --part nor with --overwrite")
    there = cluster_in(cluster, wait)

    from celebglow.info import SavedFlow, check_store
    from celebglow.population import Population

    population = Population(persons, attributes, levels, range_, temperature, resolution, seed, precision)
    population.check()
    if flow == "openai" and not overwrite:
        check_store(root, population, None)
    folder = flow_folder(flow)
    saved = SavedFlow.open(folder)
    population = population.checked(saved)
    if not overwrite:
        check_store(root, population, saved)

    import torch

    from celebglow.generate import describe, generate_part
    from celebglow.generate import generate as run
    from celebglow.pipeline import CelebGlowPipeline
    from harness.machine import keep_freed_memory, warn_if_bf16_is_slow

    pipeline = CelebGlowPipeline.from_pretrained(folder)
    keep_freed_memory()
    place = place_of(device, there, wait)
    where = torch.device(place.device)
    if place.cluster is not None:
        from harness.bench.parts import submit_parts

        everywhere = folder if isinstance(folder, str) and folder == "bundled" else Path(folder).absolute()
        workers = workers or (1 if where.type == "cpu" else None)
        make = partial(generate_part, root=root.absolute(), flow=everywhere, population=population, device=where, workers=workers)
        description = describe(population, pipeline, where, pipeline.sha256())
        answer(submit_parts(root, description, make, place.cluster, wait), as_json)
        return
    if precision == "bf16":
        warn_if_bf16_is_slow(where)
    complete = run(root, pipeline, population, where, part, overwrite, workers)
    if as_json:
        click.echo(json.dumps({"store": str(root / "celebglow.zarr"), "complete": complete}))
    elif complete:
        click.echo(_complete(root, "celebglow"))
    else:
        click.echo(f"part {part[0]}/{part[1]} is done; the store is complete when the other parts are")


@generate.command("status")
@stores_out_option
@json_option
def status(root: Path, as_json: bool) -> None:
    """Say how far the parts of CelebGlow are that were handed to a cluster: done, running, queued, failed and why, or left.

    Exits with 1 if a part has failed, or is left: neither done nor queued.

    \b
    Example:
      ood-data generate status --out data/
    """
    from harness.bench.parts import status

    answer(status(root, "celebglow"), as_json)


@generate.command("cancel")
@stores_out_option
@json_option
def cancel(root: Path, as_json: bool) -> None:
    """Cancel the tasks that were handed to a cluster and are not over. The same `generate` submits their parts again, and they continue.

    A task that a Dask worker has begun goes on until that worker is stopped.

    \b
    Example:
      ood-data generate cancel --out data/
    """
    from harness.bench.parts import PartQueue

    answer(PartQueue(root, "celebglow").cancel("ood-data generate"), as_json)


@generate.command("dsprites", continues=True)
@stores_out_option
@click.option(
    "--orientations",
    default=40,
    type=click.IntRange(1, 40),
    metavar="N",
    help="Render only the first N orientations, as a dataset dspritesN with splits of its own. Of the first 10, no two look alike.",
)
@overwrite_option("First remove a store of that name that is already there.")
@json_option
def generate_dsprites(root: Path, orientations: int, overwrite: bool, as_json: bool) -> None:
    """Render all 737,280 images of dSprites by recovered rules, without a download.

    After an interruption, run the same command again to continue.

    \b
    Examples:
      ood-data generate dsprites --out data/
      ood-data generate dsprites --orientations 10 --out data/
    """
    from harness.formats.dsprites import generate as run

    name = run(root, overwrite, orientations=orientations)
    if as_json:
        click.echo(json.dumps({"store": str(root / f"{name}.zarr"), "complete": True}))
    else:
        click.echo(_complete(root, name))


def _complete(root: Path, name: str) -> str:
    """What a finished store has to look at. Of shards that were there before, a command has compared the lengths only."""
    return (
        f"{root / name}.zarr is complete; look at {root / name}.png and read {root / name}.md\n"
        f"`ood-data data verify {name} --data {shlex.quote(str(root))}` reads every byte of it"
    )
