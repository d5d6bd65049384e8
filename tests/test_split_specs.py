"""User specs: what they may say, and what a bad one is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import splits
from helpers.specs import GOOD
from splits.catalog import LARGEST_SPEC
from splits.vocabulary import SPECS

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "rooms.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def problems(path: Path) -> list[str]:
    with pytest.raises(splits.SpecError) as caught:
        splits.load_spec(path)
    assert caught.value.origin == str(path)
    return list(caught.value.problems)


def test_a_spec_of_ones_own(write: Write) -> None:
    path = write(GOOD)
    spec = splits.load_spec(path)
    assert spec.kinds == ("random", "composition", "extrapolation")
    assert spec.split("extrapolation").held_out == {"lamp": (2,), "x-axis": (4, 5)}
    assert splits.load(str(path), "composition").counts == (12, 6)
    assert splits.load(path, "random").counts == splits.load(path, "extrapolation").counts == (8, 10)
    with pytest.raises(
        ValueError, match="the spec of rooms has no interpolation split; it has: random, composition, extrapolation"
    ):
        spec.split("interpolation")
    with pytest.raises(ValueError, match="unknown kind of split 'extrapolated'; did you mean 'extrapolation'"):
        spec.split("extrapolated")


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_files_are_valid_and_read_as_anyones(path: Path) -> None:
    assert splits.load_spec(path) == splits.load_spec(path.stem)


def test_names_and_files_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"unknown dataset 'shape3d'; did you mean 'shapes3d'\?.*spec file"):
        splits.load_spec("shape3d")
    with pytest.raises(FileNotFoundError):
        splits.load_spec("absent.toml")


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ('name = "rooms"', 'name = "../rooms"', "name: letters, digits, '_', '-' and '.' are expected, got '../rooms'"),
        ('name = "rooms"', 'name = "rooms"\nnaem = 1', "naem: unknown key; did you mean 'name'?"),
        ("size = 3", "size = 0", "factor[0].size: greater than or equal to 1 is expected, got 0"),
        ("size = 6", 'size = "6"', "factor[1].size: a whole number is expected, got '6'"),
        ("size = 6", "", "factor[1].size: is missing"),
        ("size = 3", "size = 4", "factor[0].values: as many values as size says are expected, 4, and there are 3"),
        ('"off", "dim"', '"dim", "dim"', "factor[0].values[1]: 'dim' is a duplicate"),
        ('"off", "dim"', '[1], "dim"', "factor[0].values[0]: a string or a number is expected, got [1]"),
        (
            '"categorical"',
            '"categoric"',
            "factor[0].kind: 'categorical' or 'ordinal' is expected, got 'categoric'; did you mean 'categorical'?",
        ),
        ('name = "x-axis"', 'name = "lamp"', "factor[1].name: a name of its own is expected, but 'lamp' is a duplicate"),
        ("size = 6", f"size = {10**20}", f"factor[1].size: less than or equal to 1000000 is expected, got {10**20}"),
        ("[split.composition]", "[split.compositoin]", "split.compositoin: unknown kind of split; did you mean 'composition'?"),
        (
            'test_if = "all"',
            'test_if = "al"',
            "split.composition.test_if: 'any' or 'all' is expected, got 'al'; did you mean 'all'?",
        ),
        ('{ lamp = "1:"', '{ lmap = "1:"', "split.composition.held_out.lmap: unknown factor; did you mean 'lamp'?"),
        ('["bright"]', '["birght"]', "split.extrapolation.held_out.lamp[0]: lamp has no value 'birght'; did you mean 'bright'?"),
        ("[3, 4, 5]", "[3, 6]", "split.composition.held_out.x-axis[1]: an index from 0 to 5 is expected, got 6"),
        ("[3, 4, 5]", "[-1]", "split.composition.held_out.x-axis[0]: an index from 0 to 5 is expected, got -1"),
        ("[3, 4, 5]", "[3, 3]", "split.composition.held_out.x-axis[1]: 3 is a duplicate"),
        ("[3, 4, 5]", "[true]", "split.composition.held_out.x-axis[0]: the index or the name of a value is expected, got True"),
        ("[3, 4, 5]", "3", 'split.composition.held_out.x-axis: a list of values or a range such as "4:" is expected, got 3'),
        (
            "[3, 4, 5]",
            "[]",
            "split.composition.held_out.x-axis: at least one value is expected; leave out a factor that holds out none",
        ),
        (
            '"4:"',
            '"4:99"',
            "split.extrapolation.held_out.x-axis: a list of values, or a range of them within '0:6', is expected, got '4:99'",
        ),
        (
            '"4:"',
            '"4 up"',
            "split.extrapolation.held_out.x-axis: a list of values, or a range of them within '0:6', is expected, got '4 up'",
        ),
        (
            '"4:"',
            '"0:"',
            "split.extrapolation: train would be empty, as every value of x-axis is held out: "
            "sample 0 (lamp=off, x-axis=0) is test, and so are all",
        ),
        ('{ lamp = "1:", "x-axis" = [3, 4, 5] }', "{}", "split.composition.held_out: at least one is expected"),
        ('test_count_of = "extrapolation"', "", "split.random: one of test_count and test_count_of is expected"),
        ('_of = "extrapolation"', "= 18", "split.random.test_count: 1 to 17 is expected, got 18, so train would be empty"),
        ('_of = "extrapolation"', "= 0", "split.random.test_count: 1 to 17 is expected, got 0, so test would be empty"),
        (
            '_of = "extrapolation"',
            '_of = "interpolation"',
            "split.random.test_count_of: another split of this file is expected; did you mean 'extrapolation'?",
        ),
        ("seed = 3", "seed = -3", "split.random.seed: greater than or equal to 0 is expected, got -3"),
        (
            "seed = 3",
            "seed = 3\n[impossible]\nrandom = 'no'",
            "impossible.random: this kind has a split too; one or the other is expected",
        ),
    ],
)
def test_each_mistake_is_told_with_its_path_and_what_was_expected(write: Write, old: str, new: str, expected: str) -> None:
    assert GOOD.count(old) >= 1
    assert expected in problems(write(GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    "name",
    ["../../x", ".x", "=HYPERLINK(1)", "<script>", "a|b", "$\\\\frac{$", "`x`", "a\\nb", "a\\u0000b", "\\u202Eabc", "", "z" * 5000],
)
def test_a_factors_name_may_become_a_path_a_table_and_a_plot(write: Write, name: str) -> None:
    path = write(GOOD.replace("x-axis", name))
    told = problems(path)
    assert [problem.split(":")[0] for problem in told] == ["factor[1].name"]
    assert told[0].isprintable()
    assert len(told[0]) < 200


def test_names_of_any_script_and_values_of_any_text(write: Write) -> None:
    spec = splits.load_spec(write(GOOD.replace("x-axis", "größe der 顔 (θ²)").replace("dim", "<b> | $x$ `y` =1 ../")))
    assert spec.grid.names == ("lamp", "größe der 顔 (θ²)")
    assert spec.grid["lamp"].label(1) == "<b> | $x$ `y` =1 ../"
    assert splits.spec_from_dict(spec.to_dict()) == spec
    assert problems(write(GOOD.replace("dim", "a\\u001b[2J"))) == [
        r"factor[0].values[1]: 'a\x1b[2J' holds '\x1b', which no line can show"
    ]
    with pytest.raises(ValueError, match="can't be a name"):
        splits.Factor("a/b", 3)
    with pytest.raises(ValueError, match="no line can show"):
        splits.Factor("a", 1, values=("x\ny",))


def test_long_lists_are_read_in_the_time_that_they_are_long(write: Write) -> None:
    values = ",".join(f'"v{index}"' for index in range(30_000))
    text = GOOD.replace("size = 3", "size = 30_000").replace('["off", "dim", "bright"]', f"[{values}]")
    text = text.replace('["bright"]', f"[{','.join(map(str, range(10_000)))}]")
    start = time.process_time()
    assert splits.load_spec(write(text)).split("extrapolation").held_out["lamp"] == tuple(range(10_000))
    assert time.process_time() - start < 5  # it was 12 s


@pytest.mark.parametrize(
    "content, message",
    [
        (b"name = " + b"[" * 10**5, "nested too deeply"),
        (b"name = " + b"{a=" * 10**4 + b"1" + b"}" * 10**4, "nested too deeply"),
        (b"name = 1" + b"0" * 5000, "not TOML"),
        (b"name = 0x1" + b"0" * 5000, "name: "),
        (b"name = '\xff'", "not TOML"),
        (b"#" * (LARGEST_SPEC + 1), "at most 16,777,216 bytes"),
    ],
    ids=["lists", "tables", "digits", "hexadecimal", "bytes", "size"],
)
def test_what_breaks_parsers_is_a_bad_spec(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rooms.toml"
    path.write_bytes(content)
    told = problems(path)
    assert any(message in problem for problem in told)
    assert max(map(len, told)) < 300


def test_a_spec_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(splits.SpecError, match="at most 16,777,216 bytes"):
        splits.load_spec(Path("/dev/zero"))


def test_of_very_many_mistakes_the_first_are_told(write: Write) -> None:
    text = GOOD.replace('["off", "dim", "bright"]', str(["x"] * 5000))
    with pytest.raises(splits.SpecError, match="5,001 mistakes") as caught:
        splits.load_spec(write(text))
    assert len(caught.value.problems) == 5001
    assert len(str(caught.value).splitlines()) == 22
    assert str(caught.value).endswith("and 4,981 more")


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    bad = GOOD
    for old, new in [
        ("size = 3", "size = 4"),
        ("seed = 3", "seed = 'x'"),
        ('"4:"', "[9]"),
        ('lamp = "1:"', "lampe = [0]"),
        ("rooms", "a b"),
    ]:
        bad = bad.replace(old, new)
    told = problems(write(bad))
    assert [problem.split(":")[0] for problem in told] == [
        "name",
        "factor[0].values",
        "split.composition.held_out.lampe",
        "split.extrapolation.held_out.x-axis[0]",
        "split.random.seed",
    ]


@pytest.mark.parametrize(
    "text", ["", "name = ", 'name = "a"\nfactor = 3\nsplit = 3', 'name = "a"\nfactor = [1]\n[split]\nrandom = 1']
)
def test_what_is_hardly_a_spec_is_told_so(write: Write, text: str) -> None:
    assert problems(write(text))


def test_dicts_are_read_as_strictly_as_files() -> None:
    with pytest.raises(splits.SpecError, match="factor: is missing"):
        splits.spec_from_dict({"name": "rooms", "split": {}})
