"""What lies beside the files of an export: the grid and the splits as TOML, the card, and the card for programs (Croissant)."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from harness.data.dataset import spec_of
from harness.data.store import Store
from harness.formats import official
from harness.formats.card import body, front_matter, license_of
from harness.formats.croissant import (
    IMAGE,
    INTEGER,
    TEXT,
    Node,
    column,
    file_object,
    file_set,
    of_export,
    samples,
    sides,
)
from harness.io.atomic import write_atomically
from splits import KINDS
from splits.errors import InputError
from splits.published import published_files

SIDES = ("train", "test")
TABLE, METADATA = "labels.csv", "metadata.csv"  # of pictures
HDF5 = "application/x-hdf5"
NPZ = (
    "https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"  # a type of file for which no other name is registered
)


def documents(store: Store, layout: str) -> tuple[str, str, str]:
    """The names of what `describe` writes: the grid, the card, and the card for programs."""
    return f"{store.name}.toml", "README.md" if layout == "parquet" else f"{store.name}.md", f"{store.name}.croissant.json"


def describe(out: Path, store: Store, layout: str) -> None:
    """Write them; those of earlier exports of the dataset into the same folder are told of, too.

    Args:
        out: the folder of the export, all of whose files are there.
        store: that was exported.
        layout: its name.
    """
    grid, card, document = (out / name for name in documents(store, layout))
    write_atomically(grid, spec_of(store).to_toml().encode())
    configs = _configs(out) if layout == "parquet" else ()
    text = front_matter(license_of(store), store.name, len(store), configs) + body(store)
    write_atomically(card, text.encode())

    before = _nodes(document)
    nodes = {each: nodes(out, store, before) for each, nodes in _LAYOUTS.items()}
    there = [found for each, found in nodes.items() if each == layout or any(node["@id"] in before for node in found[0])]
    files = [node for found in there for node in found[0]]
    records = [node for found in there for node in found[1]]
    write_atomically(document, of_export(store, files, records))


def _nodes(document: Path) -> dict[str, Node]:
    """What a document lists, by @id; a FileObject only while its file is the one that was listed."""
    found: dict[str, Node] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        written = document.stat().st_mtime_ns
        for node in json.loads(document.read_bytes())["distribution"]:
            found[node["@id"]] = node if _is_older(document.parent / node["@id"], written) else {}
    return found


def _is_older(path: Path, than: int) -> bool:
    return path.is_file() and path.stat().st_mtime_ns < than


def _hashed(out: Path, names: list[str], kind: str, before: dict[str, Node]) -> list[Node]:
    """FileObjects; gigabytes that are listed already are not hashed again."""
    return [before.get(name) or file_object(out, name, kind) for name in names]


def _configs(out: Path) -> list[str]:
    """What Hugging Face's `datasets` has to know: which parquet files are a kind's train and test."""
    lines = ["configs:"]
    for kind in _kinds(out, "parquet"):
        lines += [f"- config_name: {kind}", "  data_files:"]
        for side in SIDES:
            lines += [f"  - split: {side}", f"    path: {kind}/{side}-*.parquet"]
    return lines


def _kinds(out: Path, suffix: str) -> list[str]:
    """The kinds of split of which there are such files."""
    return [kind for kind in KINDS if any((out / kind).glob(f"train-*.{suffix}"))]


def _published(out: Path, store: Store, before: dict[str, Node]) -> tuple[list[Node], list[Node]]:
    spec = spec_of(store)
    names = [name for kind in spec.kinds for name in published_files(spec.split(kind)) if (out / name).is_file()]
    return _hashed(out, names, NPZ, before), []


def _official(out: Path, store: Store, before: dict[str, Node]) -> tuple[list[Node], list[Node]]:
    try:
        names = [name for name in official.files_of(store) if (out / name).is_file()]
    except InputError:  # the dataset has no such layout
        return [], []
    return [node for name in names for node in _hashed(out, [name], NPZ if name.endswith(".npz") else HDF5, before)], []


def _parquet(out: Path, store: Store, before: dict[str, Node]) -> tuple[list[Node], list[Node]]:
    kinds = _kinds(out, "parquet")
    files = [
        file_set(f"{kind}-parquet", [f"{kind}/*.parquet"], "application/x-parquet", f"The samples, by {kind}.") for kind in kinds
    ]
    records = [sides(SIDES)] if kinds else []
    for kind in kinds:
        of: Node = {"fileSet": {"@id": f"{kind}-parquet"}}
        fields = [
            column(
                kind,
                "split",
                TEXT,
                _extracted(of, fileProperty="fullpath", regex=r"(?:.*/)?(train|test)[^/]*$"),
                "sides/name",
            ),
            column(kind, "image", IMAGE, _extracted(of, column="image", jsonPath="bytes")),
            *(column(kind, factor.name, INTEGER, _extracted(of, column=factor.name)) for factor in spec_of(store).grid),
        ]
        records.append(samples(kind, f"Pictures with the indices of their factors, by the split {kind}.", fields))
    return files, records


def _webdataset(out: Path, store: Store, before: dict[str, Node]) -> tuple[list[Node], list[Node]]:
    described = "The samples, by {}, as WebDataset: a .png each, and a .json with the indices of its factors."
    return [
        file_set(f"{kind}-webdataset", [f"{kind}/*.tar"], "application/x-tar", described.format(kind))
        for kind in _kinds(out, "tar")
    ], []


def _pictures(out: Path, store: Store, before: dict[str, Node]) -> tuple[list[Node], list[Node]]:
    if not (out / TABLE).is_file():
        return [], []
    files = [
        *_hashed(out, [TABLE], "text/csv", before),
        file_set("pictures", [f"{side}/*.png" for side in SIDES], "image/png", "A picture per sample."),
    ]
    of: Node = {"fileObject": {"@id": TABLE}}
    picture: Node = {"fileSet": {"@id": "pictures"}}
    name = column("samples", "file", TEXT, _extracted(of, column="file", regex=r"(?:.*/)?([^/]+)$"))  # unique without its folder
    fields = [
        name | {"references": _extracted(picture, fileProperty="filename")},
        column("samples", "image", IMAGE, _extracted(picture, fileProperty="content")),
        column("samples", "split", TEXT, _extracted(of, column="side"), "sides/name"),
        *(column("samples", factor.name, INTEGER, _extracted(of, column=factor.name)) for factor in spec_of(store).grid),
    ]
    return files, [sides(SIDES), samples("samples", "Pictures with the indices of their factors.", fields)]


def _extracted(of: Node, *, regex: str = "", jsonPath: str = "", **how: str) -> Node:
    """A source of values: from which files, what of them, and how that is changed."""
    transform = {"regex": regex} if regex else {"jsonPath": jsonPath} if jsonPath else None
    return {**of, "extract": how, **({"transform": transform} if transform else {})}


_LAYOUTS = {"benchmark": _published, "official": _official, "parquet": _parquet, "png": _pictures, "webdataset": _webdataset}
