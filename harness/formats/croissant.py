"""Croissant 1.1 (mlcommons.org/croissant): what a dataset is, and its files, as JSON-LD for search engines and the library `mlcroissant`.

That library reads tables and pictures, not zarr, HDF5 or npz: of these it knows the files, and gives the factors, the splits and the
source. Where an export has tables or pictures, it gives the samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.data.description import ARRAY, GROUP
from harness.data.store import Store
from harness.formats.card import known_as
from harness.formats.catalog import LICENSES
from harness.io.atomic import sha256
from splits import SplitSpec, spec_from_dict

Node = dict[str, Any]

VERSION = "1.0.0"  # of a dataset's content: what the same parameters give is the same bytes
CONFORMS = "http://mlcommons.org/croissant/1.1"
CONFORMS_RAI = "http://mlcommons.org/croissant/RAI/1.0"
_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileProperty fileObject fileSet format includes isArray "
    "isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source subField "
    "transform"
)
CONTEXT: Node = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
TEXT, INTEGER, IMAGE = "sc:Text", "sc:Integer", "sc:ImageObject"
_KNOWN = ("name", "description", "license", "url", "citeAs", "datePublished", "keywords", "conformsTo")  # that an export takes over


def of_store(store: Store, about: Mapping[str, Any] | None = None, proof: str = "") -> bytes:
    """The document that lies beside a store.

    Args:
        store: whose other files are all there.
        about: what is known of the dataset, by Croissant's names; what `known_as` says if None.
        proof: how its file is known to be the official one; "" where there is no such file.
    """
    group, paths = store.paths.group.name, store.paths
    files = [
        file_object(paths.root, f"{group}/{GROUP}", "application/json", "The zarr group: grid, splits and source."),
        file_object(paths.root, f"{group}/{ARRAY}", "application/json", "The zarr array: shape, type and codecs of the images."),
        file_object(paths.root, paths.card.name, "text/markdown", "The dataset card."),
        file_object(paths.root, paths.preview.name, "image/png", "A preview."),
        file_set("shards", [f"{group}/images/c.*"], "application/octet-stream", "The images, in shards of a zarr version 3 array."),
    ]
    known = about_of(store) if about is None else about
    derived = {"prov:wasDerivedFrom": f"{store.source.get('file')}; proof that it is the official file: {proof}"} if proof else {}
    return document({**known, **derived}, files, tables_of(store))


def of_export(store: Store, files: Iterable[Node], samples: Iterable[Node]) -> bytes:
    """The document that lies beside an export: what the store's says of the dataset, and other files and samples.

    Args:
        store: that was exported.
        files: FileObjects and FileSets.
        samples: the record sets that give them.
    """
    try:
        there = json.loads(store.paths.croissant.read_bytes())
        about = {key: value for key, value in there.items() if key in _KNOWN or key.startswith(("rai:", "prov:"))}
    except (OSError, ValueError, AttributeError):  # a store of before has none
        about = about_of(store)
    return document(about, files, [*tables_of(store), *samples])


def about_of(store: Store) -> Node:
    """What is known of a dataset, by Croissant's names."""
    info, images = known_as(store), "{:,} images of {} × {}, one for every combination of the factors of variation"
    about: Node = {
        "name": store.name,
        "description": images.format(len(store), *store.images.shape[1:3]) + "." + (f" {info.note}" if info and info.note else ""),
        "keywords": ["out-of-distribution generalization", "disentanglement", "factors of variation"],
    }
    if info:
        about |= {"url": info.homepage, "citeAs": info.citation, "datePublished": str(info.year)}
        if info.license in LICENSES:
            about["license"] = LICENSES[info.license].url
    return about


def document(about: Mapping[str, Any], files: Iterable[Node], record_sets: Iterable[Node]) -> bytes:
    """The bytes of a document."""
    return json.dumps(
        {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": CONFORMS,
            "version": VERSION,
            "isLiveDataset": False,
            **about,
            "distribution": list(files),
            "recordSet": list(record_sets),
        },
        ensure_ascii=False,
        indent=1,
    ).encode()


def tables_of(store: Store) -> list[Node]:
    """The factors, the splits, the names of the sides and the source of a store, as record sets with their data."""
    spec = spec_from_dict(store.spec)
    factors: list[Mapping[str, str | int]] = [
        {"name": factor.name, "size": factor.size, "kind": factor.kind, "values": json.dumps(factor.values, ensure_ascii=False)}
        for factor in spec.grid
    ]
    source = [{"key": key, "value": json.dumps(value, ensure_ascii=False)} for key, value in sorted(store.source.items())]
    return [
        table("factors", "The factors of variation, in the order of the grid; the last one varies fastest.", factors),
        table("splits", "How many samples are train and test by each kind of split, and which values are held out.", _splits(spec)),
        table("source", "Everything that determines the images' bytes; values are JSON.", source),
    ]


def _splits(spec: SplitSpec) -> list[Node]:
    rows = []
    for kind in spec.kinds:
        split = spec.split(kind)
        held_out = json.dumps({name: list(values) for name, values in split.held_out.items()}, ensure_ascii=False)
        rows.append({"kind": kind, "train": split.counts.train, "test": split.counts.test, "held_out": held_out})
    return rows


def table(name: str, description: str, rows: Sequence[Mapping[str, str | int]], of: str = "") -> Node:
    """A record set that has its data with it; nothing but its description if there are no rows.

    Args:
        name: its @id.
        description: for people.
        rows: all with the same columns.
        of: the Croissant type of its rows, such as cr:Split.
    """
    columns = rows[0] if rows else {}
    fields = [
        {"@type": "cr:Field", "@id": f"{name}/{column}", "name": column, "dataType": INTEGER if isinstance(value, int) else TEXT}
        for column, value in columns.items()
    ]
    kind = {"dataType": of, "key": {"@id": fields[0]["@id"]}} if of else {}
    data = [{f"{name}/{column}": value for column, value in row.items()} for row in rows]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, **kind, "field": fields, "data": data}


def sides(names: Sequence[str]) -> Node:
    """The record set of the names of a split's sides, to which samples refer."""
    return table("sides", "The sides of a split.", [{"name": name} for name in names], "cr:Split")


def samples(name: str, description: str, fields: Iterable[Node]) -> Node:
    """A record set whose fields are read from files."""
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": description, "field": list(fields)}


def column(of: str, name: str, kind: str, source: Node, references: str = "") -> Node:
    """A field of a record set.

    Args:
        of: the record set.
        name: of the field; whatever a factor is called.
        kind: `TEXT`, `INTEGER` or `IMAGE`.
        source: where its values are read.
        references: the @id of the field that its values are those of.
    """
    node = {"@type": "cr:Field", "@id": f"{of}/{name}", "name": name, "dataType": kind, "source": source}
    return node | ({"references": {"field": {"@id": references}}} if references else {})


def file_object(root: Path, name: str, kind: str, description: str = "") -> Node:
    """A file in the folder of the document, with its hash."""
    path = root / name
    node: Node = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "encodingFormat": kind}
    node |= {"contentSize": f"{path.stat().st_size} B", "sha256": sha256(path)}
    return node | ({"description": description} if description else {})


def file_set(name: str, includes: Sequence[str], kind: str, description: str = "") -> Node:
    """Files in the folder of the document, by patterns."""
    node: Node = {"@type": "cr:FileSet", "@id": name, "name": name, "includes": list(includes), "encodingFormat": kind}
    return node | ({"description": description} if description else {})
