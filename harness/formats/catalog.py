"""What is known of each dataset: where its official files are, how to know them, whose they are and under which terms.

Checksums: tfds and disent (the dataset loaders), read in November 2026. Those of mpi3d are of the files before 2024. The server's
real.npz was corrupt from August 2024 to April 2025 and was uploaded anew, to the Hugging Face Hub (rr-learning/disentanglement_dataset,
issue 5), so a good file may have another one: see `harness.formats.fetch`, which asks hosts for theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from splits.errors import InputError, did_you_mean
from splits.vocabulary import PUBLISHED_NAMES


@dataclass(frozen=True)
class File:
    """An official file.

    Attributes:
        name: under which it is kept.
        urls: where to get it, the first one first.
        checksums: as "md5:…" or "sha256:…"; one that fits is enough; empty where none is known.
        size: bytes, if known.
        most: bytes that it can have, if their number is not known: a server that sends more has another file; None where `size` is.
        listing: where its host lists checksums (`harness.formats.listing`); empty where none does.
        stored: whether it is known to hold its images uncompressed, so that single ones can be had (`harness.formats.cells`).
    """

    name: str
    urls: tuple[str, ...]
    checksums: tuple[str, ...] = ()
    size: int | None = None
    most: int | None = None
    listing: str = ""
    stored: bool = False


@dataclass(frozen=True)
class License:
    """A licence elsewhere: its name on the Hugging Face Hub, and its page."""

    hub: str
    url: str


LICENSES = {
    "Apache-2.0": License("apache-2.0", "https://spdx.org/licenses/Apache-2.0.html"),
    "CC BY 4.0": License("cc-by-4.0", "https://spdx.org/licenses/CC-BY-4.0.html"),
}


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as its authors publish it, and how it gets here.

    Attributes:
        name: of its store and its splits.
        title: for people.
        files: that make it up, the one to give to `ood-data data convert` first.
        license: what its authors say.
        citation: the paper or page to cite.
        homepage: of the dataset.
        year: of the publication that its citation names.
        compress: whether its stores are: where compression at least halves them (renderings, not photographs).
        part: of their images' bytes, that its stores are expected to take at most; None: all, or half of them if compressed.
        variant: which of several recordings it is, `variant_of` the name of the recording that the paper has.
        command: that gets it, without --out.
        by_first_factor: whether a shard holds the images of one value of the first factor, as of a person, and not about 16 MiB.
        note: what its card says of a store that `generate` made; empty where that has a card of its own.
    """

    name: str
    title: str
    files: tuple[File, ...]
    license: str
    citation: str
    homepage: str
    year: int
    compress: bool
    command: str
    part: float | None = None
    variant: str = ""
    variant_of: str = ""
    by_first_factor: bool = False
    note: str = ""

    @property
    def convert(self) -> str:
        """The file to give to `ood-data data convert`."""
        return self.files[0].name


MPI3D_MOST = 13_000_000_000  # its 1,036,800 images of 64 x 64 x 3 bytes are 12,740,198,400 unpacked, beside labels


_MPI3D_COMPLEX = File(  # its authors' README has the page of this id on Google Drive; that the file itself is here is a guess
    "mpi3d_real_complex.npz",
    ("https://drive.usercontent.google.com/download?id=1Tp8eTdHxgUMtsZv5uAoYAbJR1BOa_OQm&export=download&confirm=t",),
    most=MPI3D_MOST,
)
_MPI3D_HUB = "https://huggingface.co/{}datasets/waleedgondal/mpi3d/{}/main"  # since April 2025; its authors' README


def _mpi3d_file(variant: str, before: str, md5: str) -> File:
    """A recording on the Hub, at Google's storage before under another name."""
    name = f"mpi3d_{variant}.npz"
    old = f"https://storage.googleapis.com/mpi3d_disentanglement_dataset/data/{before}"
    addresses = (f"{_MPI3D_HUB.format('', 'resolve')}/{name}", old)
    listing, stored = _MPI3D_HUB.format("api/", "tree"), variant == "realistic"  # as public scripts read it; 12,740,198,762 bytes
    return File(name, addresses, (f"md5:{md5}",), most=MPI3D_MOST, listing=listing, stored=stored)


def _mpi3d(variant: str, file: File, compress: bool) -> DatasetInfo:
    real = variant == "real"
    return DatasetInfo(
        name="mpi3d" if real else f"mpi3d_{variant}",
        title=f"MPI3D ({variant})",
        files=(file,),
        license="CC BY 4.0",
        citation="Gondal et al., On the Transfer of Inductive Bias from Simulation to the Real World: a New Disentanglement "
        "Dataset (NeurIPS 2019, arXiv 1906.03292)",
        homepage="https://github.com/rr-learning/disentanglement_dataset",
        year=2019,
        compress=compress,
        command="ood-data data fetch mpi3d" if real else f"ood-data data fetch mpi3d --variant {variant}",
        variant=variant,
        variant_of="mpi3d",
    )


# The records in which the benchmark's authors publish its split files: the README of bethgelab/InDomainGeneralizationBenchmark.
ZENODO_RECORDS = {"dsprites": 4835774, "shapes3d": 4898937, "mpi3d": 4899346, "celebglow": 5512188}
_MOST_PUBLISHED = {  # of a side's images and labels, unpacked, with room: those of a whole dataset
    "dsprites": (3_100_000_000, 100_000_000),
    "shapes3d": (6_000_000_000, 100_000_000),
    "mpi3d": (13_000_000_000, 100_000_000),
    "celebglow": (3_000_000_000, 100_000_000),
}


def published(dataset: str, kind: str) -> tuple[File, ...]:
    """The benchmark's four files of a dataset's split: the images and the labels of train, then of test.

    Raises:
        InputError: for a dataset of which it has published none.
    """
    if dataset not in ZENODO_RECORDS:
        raise InputError(f"no split files of {dataset!r} are published; of {', '.join(ZENODO_RECORDS)} they are")
    record = ZENODO_RECORDS[dataset]
    stem = f"{PUBLISHED_NAMES.get(dataset, dataset)}_{kind}"
    return tuple(
        File(
            name := f"{stem}_{side}_{what}.npz",
            (f"https://zenodo.org/record/{record}/files/{name}?download=1",),
            most=most,
            listing=f"https://zenodo.org/api/records/{record}",
        )
        for side in ("train", "test")
        for what, most in zip(("images", "labels"), _MOST_PUBLISHED[dataset], strict=True)
    )


_INFOS = (
    DatasetInfo(
        name="dsprites",
        title="dSprites",
        files=(
            File(
                "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5",
                (
                    "https://raw.githubusercontent.com/google-deepmind/dsprites-dataset/master/"
                    "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5",
                    "https://github.com/deepmind/dsprites-dataset/raw/master/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5",
                ),
                (
                    "sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb",
                    "md5:b331c4447a651c44bf5e8ae09022e230",
                ),
                28_024_106,
            ),
        ),
        license="Apache-2.0",  # its repository's LICENSE
        citation="Matthey, Higgins, Hassabis, Lerchner, dSprites: Disentanglement testing Sprites dataset (2017)",
        homepage="https://github.com/google-deepmind/dsprites-dataset",
        year=2017,
        compress=True,
        part=1 / 300,  # measured as we render it: 1/950 of the whole grid, 1/530 of one orientation, 1/320 of the worst shard
        command="ood-data generate dsprites",
        note="Re-rendered by recovered rules, verified on real images and the published mean; not converted from the original file.",
    ),
    DatasetInfo(
        name="shapes3d",
        title="3D Shapes",
        files=(
            File(
                "3dshapes.h5",
                ("https://storage.googleapis.com/3d-shapes/3dshapes.h5",),
                (
                    "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
                    "md5:099a2078d58cec4daad0702c55d06868",
                ),
                267_573_662,
            ),
        ),
        license="Apache-2.0",  # its repository's LICENSE
        citation="Burgess and Kim, 3D Shapes Dataset (2018); Kim and Mnih, Disentangling by Factorising (ICML 2018)",
        homepage="https://github.com/google-deepmind/3d-shapes",
        year=2018,
        compress=True,
        command="ood-data data fetch shapes3d",
    ),
    _mpi3d("real", _mpi3d_file("real", "real.npz", "0f33f609918fb5c97996692f91129802"), compress=False),
    _mpi3d("realistic", _mpi3d_file("realistic", "mpi3d_realistic.npz", "59a6225b88b635365f70c91b3e52f70f"), compress=False),
    _mpi3d("toy", _mpi3d_file("toy", "mpi3d_toy.npz", "55889cb7c7dfc655d6e0277beee88868"), compress=True),
    _mpi3d("complex", _MPI3D_COMPLEX, compress=False),
    DatasetInfo(
        name="celebglow",
        title="CelebGlow",
        files=published("celebglow", "random"),
        license="see the record's page",
        citation="Schott et al., Visual Representation Learning Does Not Generalize Strongly Within the Same Domain "
        "(ICLR 2022, arXiv 2107.08221)",
        homepage="https://zenodo.org/record/5512188",
        year=2022,
        compress=False,
        command="ood-data generate celebglow",
        by_first_factor=True,
    ),
)
CATALOG = {info.name: info for info in _INFOS}


def info_of(name: str, variant: str | None = None) -> DatasetInfo:
    """What is known of a dataset.

    Args:
        name: of the dataset.
        variant: which of its recordings, see `variants`; the one of that name if None.

    Raises:
        InputError: for a name that is not in `CATALOG`, with the close ones; for a variant that it does not have.
    """
    if name not in CATALOG:
        raise InputError(f"no official files of {name!r} are known{did_you_mean(name, CATALOG)}")
    if variant is None:
        return CATALOG[name]
    if variant not in variants(name):
        having = dict.fromkeys(info.variant_of for info in CATALOG.values() if info.variant_of)
        known = "; ".join(f"{each} has {', '.join(variants(each))}" for each in having)
        raise InputError(f"{name} has no variant {variant!r}: {known}")
    return variants(name)[variant]


def variants(name: str) -> dict[str, DatasetInfo]:
    """The recordings of one grid by what they are called; none for a dataset that has but one."""
    return {info.variant: info for info in CATALOG.values() if info.variant_of == name}


def command(name: str, out: str | Path) -> str:
    """The command that puts a dataset's store into the folder `out`."""
    return f"{CATALOG[name].command} --out {out}"
