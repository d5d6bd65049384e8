"""Where work is carried out, this machine or a cluster: the options that say so, shared by commands."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.machine import may_have_gpu, usable
from ood_data.commands.options import AUTO
from ood_data.commands.policy import FAILED, as_options

if TYPE_CHECKING:
    import torch

    from harness.bench.cluster import Cluster
    from splits.formatting import Report

cluster_option = click.option(
    "--cluster",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Hand the work to the cluster in this TOML file, and end; how much is done at the same time is then per task, 1 by default.",
)
wait_option = click.option("--wait", is_flag=True, help="With --cluster: stay until everything is done.")


@dataclass(frozen=True)
class Place:
    """Where work is carried out.

    Attributes:
        device: of the machines.
        cluster: None for this machine.
        wait: for the work on a cluster.
    """

    device: str
    cluster: Cluster | None = None
    wait: bool = False


def device_here(name: str) -> str:
    """The device of that name; auto is cuda if there is one, else cpu. Torch is imported only to see whether a GPU works.

    Raises:
        InputError: if this machine does not have it.
    """
    if name == "cpu" or (name == AUTO and not may_have_gpu()):
        return "cpu"
    import torch

    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return str(usable(name))


def pick_device(name: str) -> torch.device:
    """The torch device of that name; see `device_here`."""
    import torch

    return torch.device(device_here(name))


def cluster_in(file: Path | None, wait: bool) -> Cluster | None:
    """The cluster of the options; None for this machine."""
    if file is None:
        if wait:
            raise click.UsageError("--wait is for --cluster")
        return None
    from harness.bench.cluster import read_cluster

    return read_cluster(file)


def place_of(device: str, cluster: Cluster | None, wait: bool) -> Place:
    """The place that options name. Of a cluster's device, this machine, which may have no GPU, is not asked."""
    if cluster is None:
        return Place(device_here(device))
    if device == AUTO:
        device = "cuda" if cluster.has_gpus else "cpu"
    return Place(device, cluster, wait)


def answer(report: Report, as_json: bool) -> None:
    """Print it, and exit with 1 if it is bad news."""
    click.echo(json.dumps(report.data) if as_json else as_options("\n".join(report.lines)))
    if not report.ok:
        sys.exit(FAILED)
