"""An export, or a store, as a dataset repository on the Hugging Face Hub: what a Croissant document beside it lists, and nothing else.

The document may be a stranger's. So only names are taken from it that an export writes, no links, and bytes that have the listed hash.

`huggingface_hub` does the talking, and finds the token: of the variable HF_TOKEN, or of its own login. Files that the Hub has are not sent
again, so that a push that was interrupted is continued by the same call.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.store import Store
from harness.data.verify import verify
from harness.formats.beside import METADATA, SIDES, TABLE
from harness.io.atomic import sha256
from harness.io.web import in_one_line
from splits import KINDS
from splits.errors import DependencyError, InputError, MissingError, OodDataError, missing_in, shown
from splits.vocabulary import PUBLISHED_NAMES

logger = logging.getLogger(__name__)

MOST_FILES = 10_000  # in a folder of a repository, as the Hub allows
CROISSANT = ".croissant.json"
CARD = "README.md"
_PART = r"(?!\.|-)(?!.*(?:--|\.\.))[A-Za-z0-9._-]{1,96}(?<![.-])"
_REPOSITORY = re.compile(f"{_PART}/{_PART}")
# The sets of files that exports list, and the names that they give them: what else fits the pattern is the user's.
_SETS = {
    **{f"{kind}/*.tar": rf"{kind}/(train|test)-\d{{5}}\.tar" for kind in KINDS},
    **{f"{kind}/*.parquet": rf"{kind}/(train|test)-\d{{5}}-of-\d{{5}}\.parquet" for kind in KINDS},
    **{f"{side}/*.png": rf"{side}/\d+\.png" for side in SIDES},
}
_SHARD = re.compile(r"([^/]+\.zarr/images)/c[.\d]+")  # of a store
_OFFICIAL = r"dsprites_ndarray_\w+\.(npz|hdf5)|3dshapes\.h5|mpi3d_\w+\.npz"
_WHAT_TO_DO = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class PushError(OodDataError, OSError):
    """A dataset was not pushed: one sentence that says why, and what to do."""


@dataclass(frozen=True)
class Push:
    """What would be pushed.

    Attributes:
        name: of the dataset.
        repository: USER/NAME.
        files: on this machine, by their path in the repository.
    """

    name: str
    repository: str
    files: Mapping[str, Path]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.files.values())


def plan_push(source: str | Path, repository: str) -> Push:
    """Find what is to be pushed, without asking anybody.

    Args:
        source: the folder of an export, or a store (`data/celebglow.zarr`), which is verified.
        repository: USER/NAME, or ORGANISATION/NAME.

    Raises:
        ValueError: for what is no name of a repository; for a folder with exports of several datasets, or too many files.
        FileNotFoundError: for what is no finished export or store, or lacks a file.
        PushError: for a store or an export that is damaged, or has a link in the place of a file.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository!r} is no name of a repository: USER/NAME is expected, of letters, digits, '-', '_' and '.'")
    source = Path(source)
    name, files = _of_store(source) if source.suffix == ".zarr" else _of_export(source)
    folders: dict[str, int] = {}
    for path in files:
        folder = path.rpartition("/")[0]
        folders[folder] = folders.get(folder, 0) + 1
    if too_many := [folder for folder, count in folders.items() if count > MOST_FILES]:
        raise InputError(
            f"{source / too_many[0]} has {folders[too_many[0]]:,} files, and the Hub takes {MOST_FILES:,} in a folder: "
            "export parquet or webdataset instead"
        )
    return Push(name, repository, dict(sorted(files.items())))


def push(planned: Push, private: bool = False) -> str:
    """Upload to the Hub, in one commit; the repository is made if it isn't there.

    The commit also removes what an earlier push of the same sets of files (a kind's tars, say) left and this one has not: readers take
    every file of a set, so that of another number of shards, or another split, train and test images would be mixed.

    Args:
        planned: what `plan_push` found.
        private: whether only its owners see it. A repository that is there and public is left as it is, and nothing uploaded.

    Returns:
        the address of the commit.

    Raises:
        DependencyError: without huggingface_hub.
        PushError: without a token, or if the Hub refuses it; if the Hub can't be reached, or answers something else.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise DependencyError(
            "pushing needs huggingface_hub: pip install 'ood-data[hub]', or -e '.[hub]' in its checkout"
        ) from error
    if hub.get_token() is None:
        raise PushError(f"there is no token for the Hugging Face Hub: {_WHAT_TO_DO}")
    if not sys.stderr.isatty():
        hub.utils.disable_progress_bars()
    api = hub.HfApi(library_name="ood-data")
    try:
        api.create_repo(planned.repository, repo_type="dataset", private=private or None, exist_ok=True)
        if private and not api.repo_info(planned.repository, repo_type="dataset").private:
            raise InputError(
                f"{planned.repository} is there and public: nothing was uploaded; make it private on its page, or leave out `private`"
            )
        old = _left_over(planned, api)
        if old:
            logger.info("%s: %d files of an earlier push are removed, first %s", planned.repository, len(old), in_one_line(old[0]))
        operations = [hub.CommitOperationAdd(path, str(file)) for path, file in planned.files.items()]
        operations += [hub.CommitOperationDelete(path, is_folder=False) for path in old]
        message = f"{planned.name}, by ood-data"
        return str(api.create_commit(planned.repository, operations, commit_message=message, repo_type="dataset").commit_url)
    except OodDataError:
        raise
    except Exception as error:  # the library's own, of the HTTP client beneath, and of the threads that upload
        raise _told(error, planned.repository, api.endpoint) from error


def _left_over(planned: Push, api: Any) -> list[str]:
    """What is in the repository of the sets of files that are pushed, and is not among them."""
    sets = {_set_of(path) for path in planned.files} - {None}
    if not sets:
        return []
    there = api.list_repo_files(planned.repository, repo_type="dataset")
    return sorted(path for path in there if path not in planned.files and _set_of(path) in sets)


def _set_of(path: str) -> str | None:
    """The set to which a file of an export or a store belongs; None if it is one of its own."""
    shard = _SHARD.fullmatch(path)
    return shard[1] if shard else next((pattern for pattern, names in _SETS.items() if re.fullmatch(names, path)), None)


def _of_store(source: Path) -> tuple[str, dict[str, Path]]:
    """The name and the files of a store that is whole."""
    store = Store(source.parent, source.stem)
    if problems := verify(source.parent, source.stem):
        raise PushError(f"{source} is not whole ({problems[0]}): `ood-data data verify {source.stem}` says more")
    paths = store.paths
    inside = [_own(paths.group, path) for path in paths.group.rglob("*") if path.is_file() and not path.name.startswith(".")]
    beside = [_own(paths.root, path) for path in (paths.manifest, paths.preview, paths.croissant) if path.is_file()]
    files = {path.relative_to(paths.root).as_posix(): path for path in (*beside, *inside)}
    return store.name, files | {CARD: _own(paths.root, paths.card)}


def _of_export(folder: Path) -> tuple[str, dict[str, Path]]:
    """The dataset and the files of an export: those that its Croissant document lists, and what lies beside them."""
    documents = sorted(folder.glob(f"*{CROISSANT}"))
    if not documents:
        raise missing_in(
            folder, f"{folder} has no finished export: the folder of an export is expected, or a store, such as data/celebglow.zarr"
        )
    names = [document.name.removesuffix(CROISSANT) for document in documents]
    if len(names) > 1:
        raise InputError(
            f"{folder} has exports of {' and '.join(names)}: a repository is for one dataset, so export into a folder each"
        )
    if (store := folder / f"{names[0]}.zarr").is_dir():
        return _of_store(store)
    files = {path.relative_to(folder).as_posix(): path for path in _listed(documents[0], names[0])}
    card = folder / f"{names[0]}.md"
    beside = [documents[0], folder / f"{names[0]}.toml", card]
    if any(path.endswith(".parquet") for path in files):  # else a README.md is the user's
        beside.append(folder / CARD)
    if TABLE in files:
        beside += [folder / side / METADATA for side in SIDES]
    files |= {path.relative_to(folder).as_posix(): _own(folder, path) for path in beside if path.is_file()}
    if CARD not in files and card.name in files:
        files[CARD] = files.pop(card.name)
    return names[0], files


def _listed(document: Path, dataset: str) -> Iterator[Path]:
    """The files that a document lists, and an export of the dataset has written."""
    published = rf"{re.escape(PUBLISHED_NAMES.get(dataset, dataset))}_({'|'.join(KINDS)})_(train|test)_(images|labels)\.npz"
    try:
        for node in json.loads(document.read_bytes())["distribution"]:
            if "includes" in node:
                yield from _included(document, node["includes"])
                continue
            name = node["contentUrl"]
            if not re.fullmatch(f"{published}|{_OFFICIAL}|{re.escape(TABLE)}", name):
                raise PushError(f"{document} lists {shown(name)}, a name that no export of {dataset} writes: repeat the export")
            path = _own(document.parent, document.parent / name)
            if not path.is_file():
                raise MissingError(f"{path} is listed in {document.name}, and not there: repeat the export")
            if sha256(path) != node["sha256"]:
                raise PushError(f"{path} is not the file that {document.name} lists, its sha256 differs: repeat the export")
            yield path
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MissingError(f"{document} is damaged ({in_one_line(error)}): repeat the export") from None


def _included(document: Path, patterns: Any) -> Iterator[Path]:
    """The files of the sets of these patterns."""
    if not isinstance(patterns, list):
        raise TypeError(f"includes is {shown(patterns)}, and a list is expected")
    for pattern in patterns:
        if pattern not in _SETS:
            raise PushError(f"{document} lists {shown(pattern)}, files that no export writes: repeat the export")
        for path in document.parent.glob(pattern):
            if re.fullmatch(_SETS[pattern], path.relative_to(document.parent).as_posix()):
                yield _own(document.parent, path)


def _own(folder: Path, path: Path) -> Path:
    """A file in a folder; PushError if a link leads there, whose target may be anything."""
    inside = path.relative_to(folder)
    if link := next((each for each in (inside, *inside.parents[:-1]) if (folder / each).is_symlink()), None):
        raise PushError(f"{folder / link} is a link, which is not followed: put the file or the folder in its place")
    return path


def _told(error: BaseException, repository: str, endpoint: str) -> PushError:
    """What went wrong, in a sentence."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    status = next((code for each in chain if (code := _status(each))), None)
    kinds = {kind.__name__ for each in chain for kind in type(each).__mro__}
    if status == 401:
        return PushError(f"{endpoint} does not accept the token (401): {_WHAT_TO_DO}")
    if status == 403:
        return PushError(f"{endpoint} does not let this token write to {repository} (403): it needs the right to write there")
    if status is None and kinds & {"TransportError", "ConnectionError", "Timeout"}:
        return PushError(
            f"{endpoint} cannot be reached ({in_one_line(chain[-1]) or type(chain[-1]).__name__}): is there a network?"
        )
    told = next((text for each in chain if (text := getattr(each, "server_message", None))), None)
    told = told or ": ".join(dict.fromkeys(in_one_line(each) for each in (chain[0], chain[-1])))
    return PushError(
        f"{repository} was not pushed: {f'{endpoint} answers {status}: ' if status else ''}{in_one_line(told)}; run it again to continue"
    )


def _status(error: Any) -> int | None:
    """The HTTP status that an error is about."""
    return getattr(getattr(error, "response", None), "status_code", None)
