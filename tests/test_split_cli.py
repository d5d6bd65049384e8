"""`ood-data split`, run as a user runs it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import splits
from cli import main
from helpers.hostile import npy_header, npz, peak_of, zeros
from helpers.specs import COUNTS, GOOD
from splits.export import write, written_whole
from splits.plot import _marked, plot
from splits.published import compare, labels_file

ROOT = Path(splits.__file__).parents[1]


def ood_data(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    result = CliRunner().invoke(main, ["split", *map(str, arguments)])
    return subprocess.CompletedProcess([], result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    path = tmp_path / "rooms.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The label files of celebglow's composition as the benchmark lays them out, rows in another order."""
    folder = tmp_path / "published"
    folder.mkdir()
    split = splits.load("celebglow", "composition")
    for side, indices in (("train", split.train), ("test", split.test)):
        save_labels(folder, side, np.random.default_rng(0).permutation(indices))
    return folder


def save_labels(folder: Path, side: str, indices: np.ndarray) -> None:
    grid = splits.load_spec("celebglow").grid
    np.savez(folder / f"celeb_glow_composition_{side}_labels.npz", grid.factors(indices).astype(np.int16))


@pytest.mark.parametrize("dataset", ["dsprites", "shapes3d", "mpi3d", "celebglow"])
def test_json_has_the_papers_counts(dataset: str) -> None:
    done = ood_data(dataset, "--json")
    told = {split["kind"]: (split["train"], split["test"]) for split in json.loads(done.stdout)["splits"]}
    assert told == {kind: counts for (name, kind), counts in COUNTS.items() if name == dataset}
    assert (done.returncode, done.stderr) == (0, "")


def test_json_of_one_kind() -> None:
    told = json.loads(ood_data("mpi3d", "--kind", "interpolation", "--json").stdout)
    assert list(told) == ["dataset", "kind", "train", "test", "test_ratio", "test_if", "held_out", "factors"]
    assert told["held_out"]["y-axis"] == [5, 15, 24, 34]
    assert told["factors"][0] == {"name": "color", "size": 6, "kind": "categorical"}
    assert told["test_ratio"] == pytest.approx(0.7)


def test_summary_for_people() -> None:
    told = ood_data("mpi3d", "--kind", "extrapolation").stdout
    assert "1,036,800 samples: 311,040 train, 725,760 test (test ratio 0.7000)" in told
    assert "olive (5)" in told
    assert "36-39" in told
    assert "never held out: shape, size" in told
    assert "takes no part: color, shape, size, height, bg color" in ood_data("mpi3d", "--kind", "composition").stdout
    assert "numpy.random.RandomState(0).shuffle" in ood_data("mpi3d", "--kind", "random").stdout


def test_help_has_an_example() -> None:
    done = ood_data("--help")
    assert done.returncode == 0
    assert "ood-data split mpi3d --kind composition" in done.stdout


def test_no_torch_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['ood-data', 'split', 'mpi3d', '--kind', 'composition', '--json'];"
        "import atexit; atexit.register(lambda: print('torch' in sys.modules)); import cli; cli.main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_spec_works_where_a_name_does(rooms: Path) -> None:
    by_option = ood_data("--spec", rooms, "--kind", "extrapolation", "--json")
    by_name = ood_data(rooms, "--kind", "extrapolation", "--json")
    assert json.loads(by_option.stdout)["held_out"] == {"lamp": [2], "x-axis": [4, 5]}
    assert by_name.stdout == by_option.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["mpi3"], "ood-data: unknown dataset 'mpi3'; did you mean 'mpi3d'"),
        (["mpi3d", "--kind", "extrapolate"], "ood-data: unknown kind of split 'extrapolate'; did you mean 'extrapolation'"),
        ([], "ood-data: one of DATASET and --spec is expected"),
        (
            ["mpi3d", "--kind", "composition", "--out", "x.csv"],
            "can't write 'x.csv': a file ending in .npz, .json, .parquet is expected",
        ),
        (["mpi3d", "--spec", "absent.toml"], "does not exist"),
        (
            ["celebglow", "--kind", "random", "--plot", "x.xyz"],
            "can't draw 'x.xyz': a file ending in .png, .pdf or .svg is expected",
        ),
    ],
)
def test_wrong_use_is_told_in_a_line_or_two(arguments: list[str], message: str) -> None:
    done = ood_data(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_spec_is_wrong_use_and_every_mistake_is_told(rooms: Path) -> None:
    rooms.write_text(GOOD.replace("size = 3", "size = 4").replace('lamp = "1:"', 'lampe = "1:"'), encoding="utf-8")
    done = ood_data("--spec", rooms, "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"ood-data: {rooms}: 2 mistakes",
        "  factor[0].values: as many values as size says are expected, 4, and there are 3",
        "  split.composition.held_out.lampe: unknown factor; did you mean 'lamp'?",
    ]


# --- --out and --plot


def test_npz(tmp_path: Path) -> None:
    assert ood_data("celebglow", "--kind", "composition", "--out", tmp_path / "split.npz").returncode == 0
    split = splits.load("celebglow", "composition")
    with np.load(tmp_path / "split.npz", allow_pickle=False) as written:
        assert written["train"].dtype == written["test"].dtype == np.int64
        assert np.array_equal(written["train"], split.train)
        assert np.array_equal(written["test"], split.test)
        assert written["names"].tolist() == ["person", "smile", "blond", "age"]
        assert written["sizes"].tolist() == [1000, 6, 6, 6]
    assert [path.name for path in tmp_path.iterdir()] == ["split.npz"]


def test_json_file(rooms: Path) -> None:
    assert ood_data(rooms, "--kind", "composition", "--out", rooms.with_name("split.json")).returncode == 0
    written = json.loads(rooms.with_name("split.json").read_text())
    assert written["test"] == splits.load(rooms, "composition").test.tolist()
    assert (written["dataset"], written["kind"], written["sizes"]) == ("rooms", "composition", [3, 6])


def test_parquet(rooms: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert ood_data(rooms, "--kind", "extrapolation", "--out", rooms.with_name("split.parquet")).returncode == 0
    columns = parquet.read_table(rooms.with_name("split.parquet")).to_pydict()
    split = splits.load(rooms, "extrapolation")
    assert list(columns) == ["index", "lamp", "x-axis", "is_test"]
    assert columns["index"] == list(range(18))
    assert columns["is_test"] == split.mask.tolist()
    assert np.array_equal(np.stack([columns["lamp"], columns["x-axis"]], axis=1), split.grid.factors(np.arange(18)))


def test_parquet_refuses_a_factor_with_the_name_of_a_column(rooms: Path) -> None:
    rooms.write_text(GOOD.replace("lamp", "index"), encoding="utf-8")
    with pytest.raises(ValueError, match="index is a column of its own"):
        write(splits.load(rooms, "composition"), rooms.with_name("split.parquet"))
    assert not rooms.with_name("split.parquet").exists()


def test_all_kinds_have_files_of_their_own(rooms: Path) -> None:
    assert ood_data(rooms, "--out", rooms.with_name("s.npz"), "--plot", rooms.with_name("s.png")).returncode == 0
    kinds = ("composition", "extrapolation", "random")
    written = {path.name for path in rooms.parent.iterdir()} - {"rooms.toml"}
    assert written == {f"s-{kind}{suffix}" for kind in kinds for suffix in (".npz", ".png")}
    assert rooms.with_name("s-random.png").read_bytes().startswith(b"\x89PNG")


ONE_VARIES = """
name = "one"
[[factor]]
name = "index"
size = 4
kind = "ordinal"
[[factor]]
name = "fixed"
size = 1
kind = "ordinal"
[split.extrapolation]
test_if = "any"
held_out = { index = "3:" }
"""


@pytest.mark.parametrize(
    "options, message",
    [
        (("--plot", "e.png", "--out", "i.json"), "one has fewer than two that vary and can be drawn"),
        (("--plot", "e.xyz", "--out", "i.json"), "can't draw"),
        (("--out", "i.parquet"), "in parquet, index is a column of its own"),
    ],
)
def test_nothing_is_written_of_what_can_be_done_in_part_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr("splits.summary.explain", lambda split: pytest.fail("a long proof, for nothing"))
    (tmp_path / "one.toml").write_text(ONE_VARIES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = ood_data("one.toml", "--explain", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["one.toml"]


def test_a_plot_of_62_factors_is_drawn_as_far_as_it_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splits.plot.MOST_FACTORS", 3)
    factors = [splits.Factor(f"f{axis}", 2, values=(r"$\frac{$", "b$c" * 500)) for axis in range(49)]
    factors.insert(1, splits.Factor("many", 1001))
    rule = splits.HeldOutRule("any", {factor.name: (1,) for factor in factors})
    spec = splits.SplitSpec("wide", splits.FactorGrid(tuple(factors)), {"extrapolation": rule})
    plot(spec, "extrapolation", tmp_path / "wide.svg")
    drawn = (tmp_path / "wide.svg").read_text()
    assert "47 more factors not drawn" in drawn
    assert all(f"<!-- f{axis} -->" in drawn for axis in (0, 1, 2))
    assert "<!-- f3 -->" not in drawn
    assert r"<!-- $\frac{$ -->" in drawn  # as text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text("before")

    def fail_halfway() -> None:
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    out, picture = tmp_path / "absent/deeper/split.npz", tmp_path / "pictures/split.png"
    done = ood_data("celebglow", "--kind", "composition", "--out", out, "--plot", picture)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [f"{out} is written", f"{picture} is drawn"]
    assert out.is_file()
    assert picture.is_file()


def test_a_file_where_a_folder_is_to_be_is_one_plain_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = ood_data("celebglow", "--kind", "composition", "--out", tmp_path / "file" / "split.npz")
    assert done.returncode == 1
    assert done.stderr.startswith(f"ood-data: File exists: {tmp_path / 'file'}; it is in the way")
    assert len(done.stderr.splitlines()) == 1


# --- --explain


def test_explain_proves(rooms: Path) -> None:
    told = json.loads(ood_data(rooms, "--kind", "extrapolation", "--explain", "--json").stdout)["explain"]
    assert told["disjoint"]
    assert told["complete"]
    assert told["counterexample"] is None
    assert told["seen_in_train"] == {"lamp": [0, 1], "x-axis": [0, 1, 2, 3]}
    assert told["test_samples"] == [
        {"held_out_count": 1, "steps_to_train": 1, "samples": 4 + 2},
        {"held_out_count": 1, "steps_to_train": 2, "samples": 2},
        {"held_out_count": 2, "steps_to_train": 2, "samples": 1},
        {"held_out_count": 2, "steps_to_train": 3, "samples": 1},
    ]


@pytest.mark.parametrize(
    "kind, old, new, counterexample",
    [
        ("extrapolation", '"4:"', "[2]", "sample 2 (lamp=off, x-axis=2): x-axis=2 lies between the values of train"),
        (
            "extrapolation",
            '"any"',
            '"all"',
            "sample 12 (lamp=bright, x-axis=0) is train, though extrapolation holds out lamp=bright",
        ),
        ("composition", 'lamp = "1:", ', "", "sample 3 (lamp=off, x-axis=3): train never has x-axis=3, and composition shows"),
    ],
)
def test_explain_finds_a_counterexample(rooms: Path, kind: str, old: str, new: str, counterexample: str) -> None:
    rooms.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    done = ood_data(rooms, "--kind", kind, "--explain")
    assert done.returncode == 1
    assert f"counterexample: {counterexample}" in done.stdout


# --- --check


def test_published_labels_are_equal_in_any_order(published: Path) -> None:
    done = ood_data("celebglow", "--kind", "composition", "--check", published, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["check"] == {"equal": True, "differences": []}


def test_published_names() -> None:
    assert labels_file(splits.load("celebglow", "random"), "test") == "celeb_glow_random_test_labels.npz"
    assert labels_file(splits.load("mpi3d_toy", "random"), "train") == "mpi3d_random_train_labels.npz"


def test_check_shows_the_first_differences_by_factor(published: Path) -> None:
    split = splits.load("celebglow", "composition")
    moved = split.test[:2]  # sample 43 and 44: the first of the corner
    save_labels(published, "train", np.concatenate([split.train, moved]))
    save_labels(published, "test", split.test[split.grid.factors(split.test)[:, 3] != 5])
    done = ood_data("celebglow", "--kind", "composition", "--check", published)
    assert done.returncode == 1
    assert "celebglow, composition: differs from the published labels" in done.stdout
    assert "train_labels.npz: 91,002 rows, and 91,000 are expected" in done.stdout
    assert "train_labels.npz: not of this split: 2 samples, first sample 43 (person=0, smile=1, blond=1, age=1)" in done.stdout
    assert "test_labels.npz: age: never has 5" in done.stdout
    assert "test_labels.npz: missing: 25,000 samples, first sample 47" in done.stdout


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.full((3, 4), 9), "smile is 9, but its values are 0 to 5"),
        (np.zeros((3, 5), dtype=int), "(person, smile, blond, age), got shape (3, 5)"),
        (np.full((3, 4), 0.5), "whole numbers are expected"),
        (np.zeros((3, 4), dtype=int), "repeats: 2 rows, first sample 0"),
        (np.array([[None] * 4]), "is not an npz file with an array arr_0"),
    ],
)
def test_check_says_what_is_wrong_with_a_file(published: Path, labels: np.ndarray, message: str) -> None:
    np.savez(published / "celeb_glow_composition_train_labels.npz", labels)
    done = ood_data("celebglow", "--kind", "composition", "--check", published)
    assert done.returncode == 1
    assert message in done.stdout


def test_check_reads_no_more_than_the_split_has(published: Path) -> None:
    path = published / "celeb_glow_composition_train_labels.npz"
    split = splits.load("celebglow", "composition")
    for shape, descr, words in (
        ((2**22, 4), "<i8", "4,194,304 rows, and 91,000 are expected: more than the grid has samples"),
        ((2**22, 5), "<i8", "got shape (4194304, 5)"),
        ((3, 4), "<U9999999", "whole numbers are expected"),
    ):
        npz(path, {"arr_0": [npy_header(shape, descr), *zeros(min(2**25, math.prod(shape) * np.dtype(descr).itemsize))]})
        assert peak_of(compare, split, published) < 10**8
        told = compare(split, published).data["differences"]
        assert any(words in line or "bytes" in line for line in told), told


def test_check_names_what_is_missing_or_torn(published: Path) -> None:
    (published / "celeb_glow_composition_train_labels.npz").write_bytes(b"PK\x03\x04 torn")
    (published / "celeb_glow_composition_test_labels.npz").unlink()
    done = ood_data("celebglow", "--kind", "composition", "--check", published)
    assert done.returncode == 1
    assert "train_labels.npz: is not an npz file" in done.stdout
    assert "test_labels.npz: is missing" in done.stdout
    (published / "celeb_glow_composition_train_labels.npz").unlink()
    absent = ood_data("celebglow", "--kind", "composition", "--check", published)
    assert absent.returncode == 1
    assert f"celebglow, composition: not compared with the published labels in {published}" in absent.stdout


def test_a_plot_labels_where_held_out_values_begin_and_end() -> None:
    axis = splits.load_spec("dsprites").grid["x-position"]
    assert list(_marked(axis, range(25, 32))) == [0, 25, 31]
    assert list(_marked(axis, (7, 15))) == [0, 7, 15, 31]
    assert list(_marked(splits.load_spec("mpi3d").grid["height"], (2,))) == [0, 1, 2]
