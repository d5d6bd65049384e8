"""What several tests need: small flows with random weights, a population to walk, the command as users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celebglow.pipeline import CelebGlowPipeline
from helpers.commands import ROOT, CommandLine
from helpers.flows import random_pipeline
from helpers.small import write_blocks


@pytest.fixture(scope="session")
def pipeline() -> CelebGlowPipeline:
    return random_pipeline()


@pytest.fixture(scope="session")
def flow_folder(pipeline: CelebGlowPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ood_data() -> CommandLine:
    """Run the command in a subprocess; the folder to run in is `cwd`."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=600)

    return run


@pytest.fixture(scope="session")
def blocks_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 200 images of blocks."""
    return write_blocks(tmp_path_factory.mktemp("stores"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, the README's blocks, which at the end would keep one process busy alone."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
