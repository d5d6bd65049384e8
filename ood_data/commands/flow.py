"""`ood-data flow`: train a Glow, find directions, convert checkpoints, look at a flow."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ood_data.commands.options import (
    Numbers,
    center_crop_option,
    device_option,
    flow_folder,
    json_option,
    key_values,
    pick_device,
    progress_shown,
)


@click.group()
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
@click.option("--save-every", default=30.0, metavar="SECONDS", help="Time between checkpoints, at least.")
@click.option("--seed", default=0, metavar="N", help="Of initialisation, batches and noise.")
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

    Pictures are kept decoded, at up to twice --resolution: CelebA's 202,599, cropped to 148, take 10 GB at --resolution 64, 13.3 GB at
    128 and 40 GB at 256. More than 4 GB go to a temporary file in TMPDIR, so that memory is not exceeded.

    \b
    Examples:
      ood-data flow train portraits/ --out flows/mine --steps 20000 --precision bf16
      ood-data flow train img_align_celeba/ --center-crop 148 --attributes list_attr_celeba.txt --balance Male --out flows/celeba
    """
    import torch

    from celebglow.fitting.images import Augmentation, read_images
    from celebglow.fitting.trainer import Trainer, TrainingConfig
    from celebglow.pipeline import directions_command
    from harness.machine import keep_freed_memory

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
    torch_device, shown = pick_device(device), progress_shown()
    wanted = [] if balance is None else [balance]
    read = read_images(images, 2 * resolution, labels, center_crop, wanted, shown)
    trainer = Trainer(read, config, out, torch_device, save_every)
    trainer.run(progress=shown)
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
    callback=key_values,
    metavar="NAME[=COLUMN]",
    help="An attribute to walk; repeat.",
)
@click.option(
    "--control",
    "controls",
    multiple=True,
    callback=key_values,
    metavar="COLUMN",
    help="A column to hold fixed besides; repeat.",
)
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    callback=key_values,
    metavar="NAME=FACTOR",
    help="Lengthen or shorten a direction; repeat.",
)
@click.option("--held-out", default=0.2, metavar="PART", help="Part of the people kept to judge the directions.")
@click.option(
    "--fit-on",
    multiple=True,
    callback=key_values,
    metavar="COLUMN=VALUE",
    help="Fit on these images, judge on the others, instead.",
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
    from celebglow.fitting.directions import make_pipeline

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
        progress=progress_shown(),
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
def flow_convert(file: Path, out: Path, z_manipulate: Path | None, resolution: int | None, bits: int | None, as_json: bool) -> None:
    """Convert a published checkpoint: OpenAI's frozen graph (.pb), or the weights of a PyTorch implementation.

    FILE's format is detected. A graph is run beside what it was converted to; where its structure is not known, the
    converted flow executes it. PyTorch: rosinality/glow-pytorch, chaiyujin/glow-pytorch, y0ast/Glow-PyTorch.

    Tested on graphs in the patterns of the original code: OpenAI's own files were not at hand.

    \b
    Example:
      ood-data flow convert graph_unoptimized.pb --z-manipulate z_manipulate.npy --out flows/celeba-hq
    """
    from celebglow.convert.checkpoints import convert, save

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
def flow_info(flow: str, as_json: bool) -> None:
    """What a flow is: shape, size, attributes, hash.

    \b
    Example:
      ood-data flow info bundled
    """
    from celebglow.pipeline import CelebGlowPipeline

    only_trained = (Path(flow) / "config.json").is_file()
    load = CelebGlowPipeline.without_directions if only_trained else CelebGlowPipeline.from_pretrained
    info = load(flow_folder(flow)).info()
    if as_json:
        click.echo(json.dumps(info))
        return
    for key, value in info.items():
        click.echo(f"{key:<12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
