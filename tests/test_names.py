"""Names and texts from strangers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import splits
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from splits.errors import InputError
from splits.names import LONGEST_NAME, check_name, check_text

ANY_SCRIPT = ["bg color", "x-axis", "5_o_Clock_Shadow", "my.module:build", "größe (mm)", "顔の向き", "θ²", "50%", "b's", "é", "😀"]
NO_NAMES = [
    "/.",
    "..",
    ".hidden",
    "../evil",
    "a/b",
    "a\\b",
    "/etc",
    "-x",
    "=cmd",
    "+1",
    "@x",
    "<script>",
    "a|b",
    "a$b",
    "`x`",
    '"',
    "a\nb",
    "a\n",
    "a\x00b",
]


@pytest.mark.parametrize("dataset", splits.DATASETS)
def test_shipped_names_are_names(dataset: str) -> None:
    spec = splits.load_spec(dataset)
    for name in (dataset, *spec.grid.names, *spec.kinds):
        assert check_name("the name", name) == name


@pytest.mark.parametrize("name", [*ANY_SCRIPT, "a,b", "Ω" * 50, "a" * LONGEST_NAME])
def test_names_of_any_script(name: str) -> None:
    assert check_name("factor", name) == name


@pytest.mark.parametrize("name", [*NO_NAMES, "", " ", "a ", " a", "a" * (LONGEST_NAME + 1), "Ω" * 51, 5, None, ["a"]])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(InputError, match=r"^the factor: ") as error:
        check_name("the factor", name)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("invisible", ["\x1b[2J", "\u202e", "\u2028", "\u200b", "\u00a0", "\ud800", "\x85"])
def test_what_no_line_can_show(invisible: str) -> None:
    for check in (check_name, check_text):
        with pytest.raises(InputError, match=r"^the factor: ") as error:
            check("the factor", f"a{invisible}b")
        assert str(error.value).isprintable()


def test_free_text_is_a_line() -> None:
    for text in ('<b> | $x$ `y` "z" ../.. =1', ""):
        assert check_text("the value", text) == text
    for wrong in ("a\nb", "x" * 10_001, 5):
        with pytest.raises(InputError, match=r"^the value: ") as error:
            check_text("the value", wrong)  # type: ignore[arg-type]
        assert len(str(error.value)) < 200


@pytest.mark.parametrize("name", ["../x", "<script>", "$x$", "=1", "a\nb"])
def test_attributes_of_a_strangers_flow_are_names(tmp_path: Path, flow_folder: Path, name: str) -> None:
    shutil.copytree(flow_folder, tmp_path / "flow")
    config = tmp_path / "flow/directions/config.json"
    original = json.loads(config.read_text())
    for change in ({"attributes": [name, "blond", "age"]}, {"aliases": {name: "age"}}):
        config.write_text(json.dumps(original | change))
        with pytest.raises(InputError, match=r"an attribute: .* can't be a name"):
            CelebGlowPipeline.from_pretrained(tmp_path / "flow")


def test_an_error_does_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\u202e.toml"
    path.write_text("name = ")
    told = CliRunner().invoke(main, ["split", "--spec", str(path)])
    assert told.exit_code == 2
    assert r"a\x1b[2J\u202e.toml: 1 mistake" in told.stderr
    assert all(line.isprintable() for line in told.stderr.splitlines())
