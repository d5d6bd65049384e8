"""Which runs the page can answer for by itself; without torch, so that a wrong one is told at once."""

from __future__ import annotations

from pathlib import Path

from harness.runs.records import CONFIG, SCORES, RunSetup
from splits.errors import InputError, missing_in

MODELS = (
    "mlp", "cnn", "coordconv", "coordinate-based", "spatial-transformer", "rotation-eq", "beta-vae", "ada-gvae", "slowvae", "pcl",
)  # fmt: skip
MOST = 4  # networks of a page


def live_setup(folder: Path) -> RunSetup:
    """The config of a finished run on dSprites, of a model that the page can run.

    Raises:
        FileNotFoundError: if the run isn't finished.
        ValueError: if it is of another dataset or model.
    """
    if not (folder / SCORES).exists():
        raise missing_in(
            folder,
            f"`live` {folder}: no {SCORES} there: the folder of one finished run is expected, as runs/dsprites/extrapolation/cnn/0-…",
        )
    setup = RunSetup.read(folder / CONFIG)
    if setup.model not in MODELS or not setup.dataset.startswith("dsprites"):
        raise InputError(
            f"`live` {folder}: the page can't run {setup.model} on {setup.dataset}, but {', '.join(MODELS)}, on dsprites"
        )
    return setup
