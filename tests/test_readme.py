"""The README is true: its console commands run, its Python runs, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from conftest import ROOT, CommandLine

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_every_console_command_runs(tmp_path: Path, ood_data: CommandLine) -> None:
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert "ood-data generate celebglow --out data/" in commands
    assert "ood-data split mpi3d --kind composition" in commands
    assert "ood-data bench --model pcl" in commands
    assert any(command.startswith("ood-data flow train") for command in commands)
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "ood-data"
        if arguments[:2] == ["generate", "celebglow"] and ("--persons" not in arguments or "60" in arguments):
            arguments += ["--persons", "2"]  # the whole grid is the benchmark's, not the tests'
        if arguments[:2] == ["flow", "train"]:
            arguments += ["--resolution", "16", "--steps", "5", "--flow-steps", "1,1", "--widths", "8"]
        if arguments[0] == "bench" and "--list" not in arguments:
            arguments += ["--set", "train.steps=10", "--set", "readout.steps=10"]  # so are whole trainings
        result = ood_data(*arguments, cwd=tmp_path)
        assert result.returncode == 0, f"{command}: {result.stderr}"


def test_its_python_runs(tmp_path: Path, ood_data: CommandLine) -> None:
    assert ood_data("generate", "celebglow", "--out", "data/", "--persons", 1, cwd=tmp_path).returncode == 0
    source = "\n".join(blocks("python")).replace('"data/', f'"{tmp_path}/data/')
    names: dict[str, object] = {}
    exec(compile(source, "README.md", "exec"), names)  # what a reader would paste
    assert names["images"].shape == (216, 64, 64, 3)  # type: ignore[attr-defined]
    assert names["split"].counts == (311040, 725760)  # type: ignore[attr-defined]


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target
