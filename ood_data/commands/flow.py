"""`ood-data flow`: train a Glow, find directions, convert checkpoints, look at a flow.

One module, though a long one, as each group of commands is: most of it is options and their help.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ood_data.commands.options import (
    Numbers,
    center_crop_option,
    crop_option,
    device_option,
    factors,
    flow_folder,
    json_option,
    key_values,
    labels_option,
    named_values,
    names,
)
from ood_data.commands.places import pick_device
from ood_data.commands.policy import FAILED, Group, as_options
from splits.errors import AbsentError


@click.group(cls=Group)
def flow() -> None:
    """Train a Glow on images, find attribute directions, convert published checkpoints, look at a flow.

    \b
    Examples:
      ood-data flow info bundled
      ood-data flow train portraits/ --out flows/mine
    """


@flow.command("train", continues=True)
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Folder of the training; one that is already there is continued.",
)
@click.option("--resolution", default=64, type=click.IntRange(1), metavar="N", help="Side of the pictures that the flow makes.")
@click.option("--flow-steps", default="3,6,12,12", type=Numbers(), help="Steps of flow per level, fine to coarse.")
@click.option(
    "--widths", default="32,64,96,128", type=Numbers(), help="Hidden channels of the coupling networks per level, or one for all."
)
@click.option("--coupling", default="additive", type=click.Choice(["additive", "affine"]), help="Kind of coupling.")
@click.option("--bits", default=5, type=click.IntRange(1, 8), help="Bits per channel that are modelled.")
@click.option("--steps", default=10000, type=click.IntRange(1), metavar="N", help="Training steps; may be raised later.")
@click.option("--batch", default=32, type=click.IntRange(1), metavar="N", help="Images per step.")
@click.option("--lr", default=1e-3, type=click.FloatRange(0, min_open=True), metavar="RATE", help="Learning rate of Adam.")
@labels_option
@center_crop_option
@crop_option
@click.option(
    "--mix",
    default=0.7,
    type=click.FloatRange(0, 1),
    metavar="PART",
    help="Fraction of the images that get the face of another person mixed in; needs landmarks.",
)
@click.option("--balance", metavar="COLUMN", help="Draw each value of this column in proportion to the square root of its count.")
@click.option(
    "--held-out",
    default=0.05,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="PART",
    help="Fraction of the people kept for validation.",
)
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]), help="Precision of the coupling networks.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: torch's]")
@click.option("--save-every", default=30.0, type=click.FloatRange(0), metavar="SECONDS", help="Least time between checkpoints.")
@click.option("--seed", default=0, type=click.IntRange(0), metavar="N", help="Seed of initialisation, batches and noise.")
@device_option
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

    Training needs no --labels. They serve --balance; a column `person` keeps a person's pictures together when some are held out.

    Pictures are kept decoded, at up to twice --resolution: CelebA's 202,599, cropped to 148, take 10 GB at --resolution 64, 13.3 GB at
    128 and 40 GB at 256. More than 4 GB go to a temporary file in TMPDIR, so that memory is not exceeded.

    \b
    Examples:
      ood-data flow train portraits/ --out flows/mine --steps 20000 --precision bf16
      ood-data flow train img_align_celeba/ --center-crop 148 --labels list_attr_celeba.txt --balance Male --out flows/celeba
    """
    if not images.exists():
        raise AbsentError(f"{images} does not exist: a folder of pictures or an .npz file is expected")

    from celebglow.fitting.config import Augmentation, TrainingConfig

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
    config.check()

    from celebglow.fitting.images import find_images
    from celebglow.info import check_training

    check_training(out)
    found = find_images(images, labels, center_crop, [] if balance is None else [balance])

    # Only now what imports torch, and then the decoding, which can take long.
    import torch

    from celebglow.fitting.trainer import Trainer
    from celebglow.info import directions_command
    from harness.machine import keep_freed_memory, warn_if_bf16_is_slow

    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    torch_device = pick_device(device)
    if precision == "bf16":
        warn_if_bf16_is_slow(torch_device)
    Trainer(found.read(2 * resolution, progress=True), config, out, torch_device, save_every).run()
    click.echo(f"{out / 'flow'} is trained; next: {directions_command(out / 'flow')}")


@flow.command("directions")
@click.argument("flow", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The finished flow, for `generate --flow`.",
)
@labels_option
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    required=True,
    callback=named_values,
    metavar="NAME[=COLUMN]",
    help="An attribute to walk, and the column that it is in: repeat, or separate by commas.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    callback=names,
    metavar="COLUMN",
    help="A further column to hold fixed: repeat, or separate by commas.",
)
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    callback=factors,
    metavar="NAME=FACTOR",
    help="Lengthen or shorten a direction: repeat, or separate by commas.",
)
@click.option(
    "--held-out",
    default=0.2,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="PART",
    help="Fraction of the people kept to judge the directions.",
)
@click.option(
    "--fit-on",
    multiple=True,
    callback=key_values,
    metavar="COLUMN=VALUE",
    help="Fit on images with this value and judge on the others, instead of --held-out; may be repeated.",
)
@center_crop_option
@crop_option
@click.option(
    "--shrink",
    default=1.0,
    type=click.FloatRange(0),
    metavar="T",
    help="Leave out coefficients whose t-statistic is within T.",
)
@click.option(
    "--decorrelate/--as-fitted",
    "decorrelated",
    default=True,
    help="Mix the directions so that each changes its own attribute only, as probes of the pixels see it.",
)
@click.option(
    "--whole",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="NAME is visible outside the face, as hair is: probe the whole picture. Repeat, or separate by commas.",
)
@click.option("--half/--full", default=True, help="Store weights in half precision: half the size, pixels the same to 1 in 255.")
@click.option("--seed", default=0, type=click.IntRange(0), metavar="N", help="Seed that chooses the held-out people.")
@device_option
def flow_directions(flow: Path, images: Path, out: Path, labels: Path | None, device: str, **config: Any) -> None:
    """Find attribute directions in FLOW from labelled IMAGES, and store both as one pipeline.

    \b
    Examples:
      ood-data flow directions flows/celeba/flow img_align_celeba/ --center-crop 148 --labels list_attr_celeba.txt \\
          --attribute smile=Smiling,blond=Blond_Hair,young=Young --out flows/celeba/walkable
      ood-data flow directions flows/mine/flow portraits.npz --labels labels.csv \\
          --attribute smile=smile_score --attribute age --control male --out flows/mine/walkable
    """
    from celebglow.fitting.config import DirectionsConfig
    from celebglow.info import check_free

    chosen = DirectionsConfig(**config)  # its fields are the options
    chosen.check()  # before torch is imported
    check_free(out)

    from celebglow.fitting.directions import make_pipeline

    separation = make_pipeline(flow, images, out, chosen, labels, pick_device(device), progress=True)
    for name, area in separation.items():
        click.echo(f"{name}: separates held-out images with an area under the ROC curve of {area:.3f}")
    click.echo(f"{out} is ready: ood-data generate celebglow --flow {out} --out walked/")


@flow.command("convert")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where the flow goes."
)
@click.option(
    "--z-manipulate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="NPY",
    help="The published table of 40 attribute directions.",
)
@click.option(
    "--resolution",
    type=click.IntRange(1),
    metavar="N",
    help="Resolution of a PyTorch checkpoint's images.  [default: its implementation's]",
)
@click.option(
    "--bits", type=click.IntRange(1, 8), help="Bits per channel of a PyTorch checkpoint's data.  [default: its implementation's]"
)
@json_option
def flow_convert(file: Path, out: Path, z_manipulate: Path | None, resolution: int | None, bits: int | None, as_json: bool) -> None:
    """Convert a published checkpoint: OpenAI's frozen graph (.pb), or the weights of a PyTorch implementation.

    The command detects FILE's format. It runs a graph and its conversion, and compares; if the structure is unknown, the
    converted flow executes the graph. PyTorch: rosinality/glow-pytorch, chaiyujin/glow-pytorch, y0ast/Glow-PyTorch.

    We tested this on graphs that OpenAI's code wrote; we have not seen OpenAI's own files.

    \b
    Example:
      ood-data flow convert graph_unoptimized.pb --z-manipulate z_manipulate.npy --out flows/celeba-hq
    """
    from celebglow.info import check_free

    check_free(out)  # before torch is imported

    from celebglow.convert.checkpoints import convert, save

    conversion = convert(file, resolution, bits)
    walkable = save(conversion, out, z_manipulate)
    if as_json:
        done = {"format": conversion.format, "difference": conversion.difference, "note": conversion.note}
        click.echo(json.dumps({"flow": str(out), **done, "walkable": walkable}))
        return
    click.echo(f"{file}: {conversion.summary}")
    if walkable:
        click.echo(f"{out} is ready: ood-data generate celebglow --flow {out} --out walked/")
    else:
        click.echo(as_options(f"{out / 'flow'} has no attribute directions yet: {conversion.next_step(out)}"))


@flow.command("doctor")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--table",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="NPY",
    help="The table of 40 attribute directions that belongs to the graph (z_manipulate.npy).",
)
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PNG",
    help="Picture of decoded samples to write.  [default: FILE's name with -samples.png, in the current folder]",
)
@json_option
def flow_doctor(file: Path, table: Path | None, sheet: Path | None, as_json: bool) -> None:
    """Print a page about a frozen graph: what it is, whether it converts, and how fast it decodes on this machine.

    Paste the page into a bug report if the graph cannot be converted, or if it is one that nobody has tried before.

    \b
    Example:
      ood-data flow doctor graph_unoptimized.pb --table z_manipulate.npy
    """
    from celebglow.convert.doctor import examine
    from harness.io.atomic import write_atomically

    page = examine(file, table)
    if page.sheet is not None:
        sheet = sheet or Path(f"{file.stem}-samples.png")
        page.add("samples", str(sheet))
    click.echo(json.dumps(page.data) if as_json else "\n".join(page.lines))  # first: at full size it took minutes
    if page.sheet is not None and sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(sheet, page.sheet)
    if not page.converts:
        sys.exit(FAILED)


@flow.command("info")
@click.argument("flow", default="bundled")
@json_option
def flow_info(flow: str, as_json: bool) -> None:
    """Describe a flow: shape, size, attributes, hash.

    FLOW is bundled, openai (downloaded), or a folder made by `flow train`, `flow directions` or `flow convert`.

    \b
    Example:
      ood-data flow info bundled
    """
    from celebglow.info import SavedFlow

    info = SavedFlow.open(flow_folder(flow), to_walk=False).info()
    if as_json:
        click.echo(json.dumps(info))
        return
    for key, value in info.items():
        click.echo(f"{key:<12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
