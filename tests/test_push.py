"""Exports and stores on the Hub, which a local server plays to huggingface_hub's own client."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.formats import official as official_layout
from harness.formats.export import export
from harness.formats.push import plan_push
from helpers import official
from helpers.commands import ROOT, assert_one_clear_line, invoke
from helpers.files import contents
from helpers.hub import COMMIT, TOKEN, Hub
from splits.vocabulary import VARIANTS

hub_client = pytest.importorskip("huggingface_hub")
NAME = "me/toy"
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # huggingface_hub gives its HTTP client files as `data`


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official.small_store(tmp_path_factory.mktemp("data"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """As HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET set it for a new process: the Hub's newer protocol needs its own servers."""
    hub = Hub()
    monkeypatch.setattr(hub_client.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(hub_client.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_client.constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.close()


@pytest.fixture
def exported(root: Path, tmp_path: Path) -> Path:
    export(root, "toy", "composition", "webdataset", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("layout", ["benchmark", "parquet", "png", "webdataset"])
def test_an_export_is_there_as_it_is_here(hub: Hub, root: Path, tmp_path: Path, layout: str) -> None:
    export(root, "toy", "composition", layout, tmp_path / "out")
    (tmp_path / "out/notes.txt").write_text("mine")
    (tmp_path / "out/.env").write_text("secret")
    mine = {"notes.txt", ".env"}
    for name in ("composition/private-backup.tar", "composition/own.parquet", "train/me.png", "README.md", "train/metadata.csv"):
        path = tmp_path / "out" / name
        if path.parent.is_dir() and not path.exists():
            path.write_text("mine")
            mine.add(name)
    result = invoke("data", "push", tmp_path / "out", NAME)
    assert result.returncode == 0, result.stderr
    assert f"{hub.url}/datasets/{NAME}/commit/{COMMIT}" in result.stdout
    expected = contents(tmp_path / "out")
    for name in (*mine, ".toy.export.json"):
        del expected[name]
    if layout != "parquet":
        expected["README.md"] = expected.pop("toy.md")
    assert expected["README.md"].startswith(b"---\nlicense: ")
    assert hub.repositories[NAME] == {"private": False, "files": expected}


def test_a_store_is_there_as_it_is_here(hub: Hub, root: Path) -> None:
    result = invoke("data", "push", root / "toy.zarr", NAME, "--private", "--json")
    assert result.returncode == 0, result.stderr
    expected = contents(root)
    expected["README.md"] = expected.pop("toy.md")
    assert hub.repositories[NAME] == {"private": True, "files": expected}
    told = json.loads(result.stdout)
    assert (told["dataset"], sorted(told["files"]), told["bytes"]) == ("toy", sorted(expected), sum(map(len, expected.values())))


def test_as_users_run_it(hub: Hub, exported: Path, tmp_path: Path) -> None:
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "cli", "data", "push", str(exported), NAME]
    result = subprocess.run(
        command, env=os.environ | settings | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert len(hub.repositories[NAME]["files"]) == len(contents(exported)) - 1  # all but the record of exports


def test_a_dry_run_asks_nobody_and_needs_no_token(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    result = invoke("data", "push", exported, NAME, "--dry-run")
    assert result.returncode == 0
    assert "composition/train-00000.tar" in result.stdout
    assert f"would go to the dataset {NAME}" in result.stdout
    assert hub.requests == []


def test_again_nothing_is_sent_and_a_change_alone(hub: Hub, root: Path, exported: Path) -> None:
    assert invoke("data", "push", exported, NAME).returncode == 0
    sent = len(hub.uploads)
    assert invoke("data", "push", exported, NAME).returncode == 0
    assert (len(hub.uploads), hub.commits) == (sent, 1)
    export(root, "toy", "random", "webdataset", exported)
    assert invoke("data", "push", exported, NAME).returncode == 0
    assert len(hub.uploads) == sent + 2
    assert {path for path in hub.repositories[NAME]["files"] if path.endswith(".tar")} == {
        f"{kind}/{side}-00000.tar" for kind in ("composition", "random") for side in ("train", "test")
    }


def test_an_upload_that_broke_off_is_continued(hub: Hub, exported: Path) -> None:
    hub.refuse["/commit/"] = 400
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, "answers 400", "run it again to continue")
    sent = len(hub.uploads)
    assert sent == 2
    hub.refuse.clear()
    assert invoke("data", "push", exported, NAME).returncode == 0
    assert len(hub.uploads) == sent


@pytest.mark.parametrize(
    "pattern, status, words",
    [
        ("create", 401, "does not accept the token (401): log in with `hf auth login`, or set HF_TOKEN"),
        ("create|/api/datasets", 403, f"does not let this token write to {NAME} (403)"),
        ("/commit/", 403, f"does not let this token write to {NAME} (403)"),
        ("/batch", 401, "does not accept the token (401)"),
        ("/storage/", 403, "(403)"),
        ("create", 418, "answers 418"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, exported: Path, pattern: str, status: int, words: str) -> None:
    hub.refuse[pattern] = status
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, words)
    assert hub.commits == 0


def test_a_wrong_token(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, "does not accept the token (401)")


def test_no_token(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, "there is no token for the Hugging Face Hub: log in")
    assert hub.requests == []


def test_no_network(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, "http://127.0.0.1:9 cannot be reached", "is there a network?")


def test_without_the_extra(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, "pip install 'ood-data[hub]'")


def test_nothing_private_goes_into_a_repository_that_is_public(hub: Hub, exported: Path) -> None:
    hub.repositories[NAME] = {"private": False, "files": {}}
    assert_one_clear_line(invoke("data", "push", exported, NAME, "--private"), 2, "is there and public: nothing was uploaded")
    assert hub.uploads == []


@pytest.mark.parametrize("name", ["toy", "a/b/c", "me/", "/toy", "me/to y", "me/-toy", "me/t..y", "../toy", "me/toy\n"])
def test_what_is_no_repository(exported: Path, name: str) -> None:
    assert_one_clear_line(invoke("data", "push", exported, name), 2, "is no name of a repository: USER/NAME is expected")


def test_what_is_no_export_or_not_whole(root: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_one_clear_line(invoke("data", "push", tmp_path / "nowhere", NAME, "--dry-run"), 2, "has no finished export")
    assert_one_clear_line(invoke("data", "push", tmp_path / "no.zarr", NAME, "--dry-run"), 1, "there is no no in")
    export(root, "toy", "composition", "benchmark", tmp_path / "npz")
    (tmp_path / "npz/toy_composition_test_labels.npz").unlink()
    assert_one_clear_line(invoke("data", "push", tmp_path / "npz", NAME), 1, "test_labels.npz is listed in", "repeat the export")
    (exported / "other.croissant.json").write_bytes((exported / "toy.croissant.json").read_bytes())
    assert_one_clear_line(invoke("data", "push", exported, NAME), 2, "has exports of other and toy")
    export(root, "toy", "composition", "png", tmp_path / "png")
    monkeypatch.setattr("harness.formats.push.MOST_FILES", 10)
    assert_one_clear_line(invoke("data", "push", tmp_path / "png", NAME), 2, "export parquet or webdataset instead")


def test_the_folder_of_one_store_is_that_store(root: Path) -> None:
    files = [
        json.loads(invoke("data", "push", source, NAME, "--dry-run", "--json").stdout)["files"]
        for source in (root, root / "toy.zarr")
    ]
    assert files[0] == files[1]
    assert {"README.md", "toy.manifest.jsonl", "toy.zarr/zarr.json"} <= set(files[0])


def test_a_damaged_store_is_not_pushed(tmp_path: Path) -> None:
    root = official.small_store(tmp_path)
    shard = next((root / "toy.zarr/images").glob("c.*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert_one_clear_line(invoke("data", "push", root / "toy.zarr", NAME), 1, "is not whole", "ood-data data verify toy")


def test_links_that_lead_elsewhere_are_not_followed(hub: Hub, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.tar").write_bytes(b"secret")
    (exported / "composition/more.tar").symlink_to(tmp_path / "secret.tar")
    result = invoke("data", "push", exported, NAME, "--dry-run", "--json")
    assert "composition/more.tar" not in json.loads(result.stdout)["files"]
    (exported / "composition/train-00007.tar").symlink_to(tmp_path / "secret.tar")
    result = invoke("data", "push", exported, NAME, "--dry-run")
    assert_one_clear_line(result, 1, "composition/train-00007.tar is a link, which is not followed")


@pytest.mark.parametrize("where", ["composition", "toy.croissant.json", "toy.toml", "toy.md"])
def test_a_link_in_the_place_of_an_exports_file_or_folder(exported: Path, tmp_path: Path, where: str) -> None:
    (exported / where).rename(tmp_path / "elsewhere")
    (exported / where).symlink_to(tmp_path / "elsewhere")
    assert_one_clear_line(invoke("data", "push", exported, NAME, "--dry-run"), 1, f"{where} is a link")


@pytest.mark.parametrize(
    "node, words",
    [
        ({"contentUrl": "link.bin"}, "lists 'link.bin', a name that no export of toy writes"),
        ({"contentUrl": "../secret.txt"}, "lists '../secret.txt', a name that no export"),
        ({"contentUrl": "x/../../secret.txt"}, "a name that no export"),
        ({"contentUrl": "/etc/hostname"}, "lists '/etc/hostname', a name that no export"),
        ({"contentUrl": "other_random_test_images.npz"}, "a name that no export of toy writes"),
        ({"contentUrl": ["labels.csv"]}, "is damaged"),
        ({"includes": ["*"]}, "lists '*', files that no export writes"),
        ({"includes": ["../*"]}, "files that no export writes"),
        ({"includes": ["/etc/*"]}, "files that no export writes"),
        ({"includes": "*"}, "is damaged (includes is '*', and a list is expected)"),
        ({"includes": [["*"]]}, "is damaged"),
    ],
)
def test_a_document_that_lists_what_is_no_exports(
    hub: Hub, exported: Path, tmp_path: Path, node: dict[str, object], words: str
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (exported / "link.bin").symlink_to(tmp_path / "secret.txt")
    (exported / "notes.txt").write_text("mine")
    document = exported / "toy.croissant.json"
    told = json.loads(document.read_bytes())
    told["distribution"].append({"sha256": "0" * 64, **node})
    document.write_text(json.dumps(told))
    assert_one_clear_line(invoke("data", "push", exported, NAME), 1, words, "repeat the export")
    assert hub.requests == []


def test_a_file_that_is_not_the_listed_one(hub: Hub, root: Path, tmp_path: Path) -> None:
    export(root, "toy", "composition", "benchmark", tmp_path / "out")
    path = tmp_path / "out/toy_composition_train_images.npz"
    path.write_bytes(path.read_bytes()[:-1])
    words = "train_images.npz is not the file that toy.croissant.json lists, its sha256 differs: repeat the export"
    assert_one_clear_line(invoke("data", "push", tmp_path / "out", NAME), 1, words)
    assert hub.requests == []


@pytest.mark.parametrize("dataset", ["dsprites", "shapes3d", "mpi3d", "mpi3d_realistic", "mpi3d_toy", "mpi3d_complex"])
def test_the_authors_files_are_exports_of_ours(tmp_path: Path, dataset: str) -> None:
    names = [name.format(variant="realistic") for name in official_layout._FILES[VARIANTS.get(dataset, dataset)]]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    nodes = [{"contentUrl": name, "sha256": hashlib.sha256(b"").hexdigest()} for name in names]
    (tmp_path / f"{dataset}.croissant.json").write_text(json.dumps({"distribution": nodes}))
    assert set(names) <= plan_push(tmp_path, NAME).files.keys()


@pytest.mark.parametrize("layout, module", [("webdataset", "webdataset.SHARD_IMAGES"), ("parquet", "parquet.FILE_ROWS")])
def test_shards_of_an_earlier_push_are_removed(
    hub: Hub,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    layout: str,
    module: str,
) -> None:
    caplog.set_level("INFO", "harness")
    others = {"composition/notes.txt": b"mine", "composition/other.tar": b"mine", "random/train-00007.tar": b"mine"}
    with monkeypatch.context() as patch:
        patch.setattr(f"harness.formats.{module}", 5)
        export(root, "toy", "composition", layout, tmp_path / "many")
    assert invoke("data", "push", tmp_path / "many", NAME).returncode == 0
    hub.repositories[NAME]["files"] |= others
    assert sum("train-" in path for path in hub.repositories[NAME]["files"]) > 5
    export(root, "toy", "composition", layout, tmp_path / "one")
    assert invoke("data", "push", tmp_path / "one", NAME).returncode == 0
    assert "files of an earlier push are removed, first composition/test-0000" in caplog.text
    found = hub.repositories[NAME]["files"]
    assert found.items() >= others.items()
    assert {path for path in found if path.startswith("composition/t")} == {
        path for path in contents(tmp_path / "one") if path.startswith("composition/t")
    }
    assert hub.commits == 2


def test_pictures_of_another_split_are_removed(hub: Hub, root: Path, tmp_path: Path) -> None:
    for kind in ("composition", "random"):
        export(root, "toy", kind, "png", tmp_path / kind)
        assert invoke("data", "push", tmp_path / kind, NAME).returncode == 0
    here = {path for path in contents(tmp_path / "random") if path.endswith(".png")}
    assert {path for path in hub.repositories[NAME]["files"] if path.endswith(".png")} == here


def test_shards_of_a_longer_store_are_removed(hub: Hub, root: Path) -> None:
    assert invoke("data", "push", root / "toy.zarr", NAME).returncode == 0
    files = hub.repositories[NAME]["files"]
    expected = dict(files)
    files["toy.zarr/images/c.99.0.0.0"] = b"old"
    files["other.zarr/images/c.99.0.0.0"] = expected["other.zarr/images/c.99.0.0.0"] = b"another"
    assert invoke("data", "push", root / "toy.zarr", NAME).returncode == 0
    assert hub.repositories[NAME]["files"] == expected
