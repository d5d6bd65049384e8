"""README and docs are true: their commands and their Python run, as a reader would run them; their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import ood_data
from helpers.commands import ROOT
from ood_data.commands import main

README = ROOT / "README.md"
DOCS = ROOT / "docs"
TOCTREES = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(encoding="utf-8"), flags=re.DOTALL)
PAGES = [README, *(DOCS / f"{entry}.md" for tree in TOCTREES for entry in tree.split("\n\n")[1].split())]  # in reading order
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", ROOT / "celebglow/weights/README.md"]
RUN, SAVED, SHOWN = {"console", "python"}, {"toml"}, {"sh", "json", "{eval-rst}", "{include}", "{toctree}"}
PERSONS = 8  # a population of more is made of 2 here


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of the fenced blocks of a page, in order."""
    yield from re.findall(r"^```(\S*)[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, the output that is shown) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output.strip()


def smaller(arguments: list[str]) -> list[str]:
    """The same command with less work: whole grids and whole trainings are the benchmarks', not the tests'."""
    if arguments[:2] == ["generate", "celebglow"]:
        asked = int(arguments[arguments.index("--persons") + 1]) if "--persons" in arguments else 1000
        return arguments if asked <= PERSONS else [*arguments, "--persons", "2"]
    if arguments[:2] == ["flow", "train"]:
        return [*arguments, "--resolution", "16", "--steps", "5", "--flow-steps", "1,1", "--widths", "8"]
    if (
        arguments[0] == "bench"
        and arguments[1] not in ("rescore", "status", "cancel")
        and "--list" not in arguments
        and "--dry-run" not in arguments
    ):
        return [*arguments, "--set", "train.steps=10", "--set", "readout.steps=10", "--jobs", "1"]
    return arguments


@pytest.fixture
def threads_kept() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads_kept: None) -> None:
    """Page after page, in one folder, as somebody reads who skips no page; a command that comes again is not run again."""
    monkeypatch.chdir(tmp_path)
    done = set()
    for page in PAGES:
        names: dict[str, object] = {}
        for language, text in blocks(page):
            where, saved = page.relative_to(ROOT), re.match(r"# (\w+\.(?:py|toml))\n", text)
            if (needed := re.match(r"# needs (\w+)\n", text)) and find_spec(needed[1]) is None:
                continue
            if saved:
                Path(saved[1]).write_text(text, encoding="utf-8")
            elif language == "python":
                exec(compile(text, str(where), "exec"), names)  # what a reader would paste
            elif language == "console":
                for command, output in commands(text):
                    program, *arguments = shlex.split(command, comments=True)
                    assert program == "ood-data", f"{where}: {command}"
                    run = smaller(arguments)
                    if tuple(run) not in done:
                        result = CliRunner().invoke(main, run)
                        assert result.exit_code == 0, f"{where}: {command}: {result.output} {result.exception!r}"
                        done.add(tuple(run))
                        assert not output or (run == arguments and output in result.stdout), f"{where}: {command}"


def test_no_block_escapes() -> None:
    for page in PAGES:
        for language, text in blocks(page):
            assert language in RUN | SAVED | SHOWN, f"{page}: a block in {language!r} is neither run nor known not to"
            assert language != "console" or (text.startswith("$ ") and list(commands(text))), f"{page}: {text}"
            assert language not in SAVED or re.match(r"# \w+\.toml\n", text), f"{page}: a block to save needs a name: {text}"


def test_the_readme_is_the_face() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    console = "".join(block for language, block in blocks(README) if language == "console")
    for card in ("generate celebglow --out data/", "split mpi3d --kind composition", "bench --model pcl"):
        assert f"$ ood-data {card}\n" in console
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"(?:\]\(|<a href=\")([^)\s\"]+)[)\"]", text):
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_page_is_reached() -> None:
    assert sorted(DOCS.rglob("[!_]*.md")) == sorted({*PAGES[1:], DOCS / "index.md"})


def test_the_reference_has_every_name_of_the_facade() -> None:
    reference = (DOCS / "reference/python.md").read_text(encoding="utf-8")
    for name in ood_data.__all__:
        assert re.search(rf":: ood_data\.{name}\b", reference), name


def test_what_is_cited_is_what_is_built() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = dict(re.findall(r"^(\w+): (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert (cited["title"], cited["version"], cited["license"]) == (project["name"], project["version"], project["license"])
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
