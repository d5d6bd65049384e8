"""Croissant documents beside stores and exports: valid by mlcroissant, whose records are the pictures and factors of the store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splits
from celebglow.card import BUNDLED_LICENSE
from celebglow.card import croissant as celebglow_croissant
from celebglow.info import SavedFlow
from celebglow.pipeline import CelebGlowPipeline
from harness.data.dataset import spec_of
from harness.data.store import Description, Store
from harness.data.verify import verify
from harness.data.writer import Writer
from harness.formats.card import card, preview
from harness.formats.convert import convert
from harness.formats.croissant import of_store
from harness.formats.export import export
from helpers import official
from helpers.files import contents
from helpers.flows import make

pytestmark = [
    pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated"),  # by rdflib, which uses it itself
    pytest.mark.filterwarnings("ignore:The inplace keyword"),  # pandas', of a call in mlcroissant
]

RECOMMENDED = {  # of what a dataset of one's own is not known
    f'[Metadata(toy)] Property "{name}" is recommended, but does not exist.'
    for name in ("http://mlcommons.org/croissant/citeAs", "https://schema.org/datePublished", "https://schema.org/license")
}


def opened(path: Path) -> tuple[Any, set[str]]:
    """A document as mlcroissant opens it, which raises where it is not valid, and what it warns of."""
    mlcroissant = pytest.importorskip("mlcroissant")
    dataset = mlcroissant.Dataset(path)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    return dataset, set(issues.warnings)


def rows(dataset: Any, name: str) -> list[dict[str, Any]]:
    """The records of a set, by the fields' names."""
    text = [{key.split("/", 1)[1]: value for key, value in record.items()} for record in dataset.records(name)]
    return [{key: value.decode() if isinstance(value, bytes) else value for key, value in row.items()} for row in text]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 60 pictures in shards of 7."""
    return official.small_store(tmp_path_factory.mktemp("data"))


def test_a_store_says_what_it_is(root: Path) -> None:
    store = Store(root, "toy")
    dataset, warnings = opened(store.paths.croissant)
    assert warnings == RECOMMENDED
    spec = spec_of(store)
    assert [(row["name"], row["size"], row["kind"]) for row in rows(dataset, "factors")] == [
        (factor.name, factor.size, factor.kind) for factor in spec.grid
    ]
    assert {row["kind"]: (row["train"], row["test"]) for row in rows(dataset, "splits")} == {
        kind: spec.split(kind).counts for kind in spec.kinds
    }
    assert {row["key"]: json.loads(row["value"]) for row in rows(dataset, "source")} == store.source


def test_it_lists_the_files_with_their_hashes(root: Path) -> None:
    document = json.loads((root / "toy.croissant.json").read_bytes())
    hashed = json.loads((root / "toy.manifest.jsonl").read_text().splitlines()[-1])["files"]
    objects = {node["@id"].removeprefix("toy.zarr/"): node["sha256"] for node in document["distribution"] if "sha256" in node}
    assert objects == {name: digest for name, digest in hashed.items() if name != "toy.croissant.json"}
    (shards,) = (node for node in document["distribution"] if node["@type"] == "cr:FileSet")
    assert len(list(root.glob(shards["includes"][0]))) == Store(root, "toy").description.shards


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_the_manifest_proves_it_and_the_same_command_restores_it(
    root: Path, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(root, tmp_path / "data")
    whole, document = contents(data), data / "toy.croissant.json"
    document.unlink() if harm == "lost" else document.write_bytes(document.read_bytes().replace(b"toy", b"Toy"))
    assert [problem.path for problem in verify(data, "toy")] == ["toy.croissant.json"]
    monkeypatch.setattr("harness.data.store.SHARD_BYTES", 7 * 8 * 8 * 3)
    convert(root.parent / "real.npz", None, data, root.parent / "toy.toml")
    assert contents(data) == whole


def test_a_store_of_before_is_whole_without_it(root: Path, tmp_path: Path) -> None:
    store = Store(root, "toy")
    with Writer(tmp_path, store.description) as writer:
        for shard in writer.missing:
            rows = writer.rows(shard)
            writer.publish(shard, store.read(rows.start, rows.stop))
        writer.finish(card, preview)
    before = contents(tmp_path)
    assert "toy.croissant.json" not in before
    assert verify(tmp_path, "toy") == []
    with Writer(tmp_path, store.description) as writer:
        assert writer.complete
        writer.finish(card, preview, of_store)
    assert contents(tmp_path) == before
    export(tmp_path, "toy", "random", "benchmark", tmp_path / "out")
    assert json.loads((tmp_path / "out/toy.croissant.json").read_bytes())["name"] == "toy"


@pytest.mark.parametrize("layout, names", [("png", ["samples"]), ("parquet", ["composition", "extrapolation"])])
def test_an_export_gives_its_samples(root: Path, tmp_path: Path, layout: str, names: list[str]) -> None:
    if layout == "parquet":
        pytest.importorskip("pyarrow")
    store = Store(root, "toy")
    grid = spec_of(store).grid
    for kind in names if layout == "parquet" else ["composition"]:
        export(root, "toy", kind, layout, tmp_path)
    dataset, warnings = opened(tmp_path / "toy.croissant.json")
    assert warnings == RECOMMENDED
    assert [record_set.uuid for record_set in dataset.metadata.record_sets][-len(names) :] == names
    for name in names:
        split = spec_of(store).split(name if layout == "parquet" else "composition")
        seen = set()
        for row in rows(dataset, name):
            index = int(grid.index([row[factor] for factor in grid.names]))
            assert np.array_equal(np.asarray(row["image"]), store.read(index, index + 1)[0])
            assert row["split"] == ("test" if split.mask[index] else "train")
            seen.add(index)
        assert len(seen) == len(store)


def test_several_exports_into_one_folder_are_one_document(root: Path, tmp_path: Path) -> None:
    for kind, layout in (("composition", "benchmark"), ("extrapolation", "benchmark"), ("composition", "png")):
        export(root, "toy", kind, layout, tmp_path)
    dataset, _ = opened(tmp_path / "toy.croissant.json")
    files = {node.uuid for node in dataset.metadata.distribution}
    assert files == {path.name for path in tmp_path.glob("*.npz")} | {"labels.csv", "pictures"}
    assert len(rows(dataset, "samples")) == 60
    before = json.loads((tmp_path / "toy.croissant.json").read_bytes())
    other = tmp_path / "toy_extrapolation_test_labels.npz"
    other.write_bytes(b"something else by now")
    (tmp_path / "toy_extrapolation_test_images.npz").unlink()
    export(root, "toy", "composition", "benchmark", tmp_path)
    after = json.loads((tmp_path / "toy.croissant.json").read_bytes())
    digests = [{node["@id"]: node.get("sha256") for node in document["distribution"]} for document in (before, after)]
    assert digests[0].keys() - digests[1].keys() == {"toy_extrapolation_test_images.npz"}
    assert [name for name in digests[1] if digests[0][name] != digests[1][name]] == [other.name]


def test_what_is_known_of_a_dataset_is_there(tmp_path: Path) -> None:
    """No warning: licence, citation and year are known."""
    spec = splits.load_spec("dsprites")
    factors = [splits.Factor(factor.name, 2, factor.kind) for factor in spec.grid]
    small = splits.derive_spec("dsprites2", factors, 0.2)
    description = Description("dsprites2", (32, 8, 8, 1), 32, True, small.to_dict(), {"generator": "dsprites", "renderer": 1})
    with Writer(tmp_path, description) as writer:
        writer.publish(0, np.zeros((32, 8, 8, 1), np.uint8))
        writer.finish(card, preview, of_store)
    assert (tmp_path / "dsprites2.md").read_text().startswith("---\nlicense: apache-2.0\n")
    _, warnings = opened(tmp_path / "dsprites2.croissant.json")
    assert warnings == set()


# CelebGlow


RAI = ("dataCollection", "dataCollectionType", "dataBiases", "dataLimitations", "dataUseCases", "dataSocialImpact")


def test_celebglow_says_what_a_responsible_use_has_to_know(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    assert make(tmp_path / "data", pipeline)
    export(tmp_path / "data", "celebglow", "random", "png", tmp_path / "out")
    for folder in (tmp_path / "data", tmp_path / "out"):
        document = json.loads((folder / "celebglow.croissant.json").read_bytes())
        assert document["conformsTo"] == ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
        assert all(document[f"rai:{name}"] for name in (*RAI, "personalSensitiveInformation"))
        assert document["rai:hasSyntheticData"] is True
        assert document["prov:wasGeneratedBy"].startswith("ood-data generate celebglow")
        assert "zenodo" not in json.dumps(document).casefold()
        dataset, _ = opened(folder / "celebglow.croissant.json")
        assert dataset.metadata.data_biases
        assert dataset.metadata.data_social_impact
    assert len(rows(dataset, "samples")) == 24
    assert (tmp_path / "out/celebglow.md").read_text().startswith("---\nlicense: other\n")


def test_pictures_of_the_bundled_flow_have_its_licence(tmp_path: Path) -> None:
    def source(sha256: str) -> Mapping[str, Any]:
        return {"generator": "celebglow", "flow_sha256": sha256}

    levels = [splits.Factor(name, 2, "ordinal", (-1.0, 1.0)) for name in ("smile", "age")]
    spec = splits.derive_spec("celebglow", [splits.Factor("person", 4, "categorical"), *levels], 0.3, ["person"], 0.2)
    licenses = []
    for number, digest in enumerate((SavedFlow.open().info()["sha256"], "0" * 64)):
        description = Description("celebglow", (16, 8, 8, 3), 4, False, spec.to_dict(), dict(source(digest)))
        with Writer(tmp_path / str(number), description) as writer:
            for shard in writer.missing:
                writer.publish(shard, np.zeros((4, 8, 8, 3), np.uint8))
            writer.finish(card, preview, celebglow_croissant)
        licenses.append(json.loads((tmp_path / str(number) / "celebglow.croissant.json").read_bytes()).get("license"))
    assert licenses == [BUNDLED_LICENSE[1], None]
