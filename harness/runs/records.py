"""The documents of a run folder: config.json, what was asked for and on what; scores.json, what came of it, or failure.json."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from harness.io.records import Document, Record, Upgrade
from harness.runs.config import PRESETS_OF_BEFORE, Config, Preset
from harness.scoring.baselines import BASELINES
from harness.scoring.records import (
    Baseline,
    BaselineName,
    Count,
    CountGroup,
    DistanceError,
    Errors,
    FactorName,
    Modularity,
    Number,
    PerFactor,
)
from splits import Kind
from splits.names import check_name, check_text

SCORES, CONFIG, FAILURE = "scores.json", "config.json", "failure.json"
MOST_FACTORS = 100  # int64 holds the size of no grid of more, were each of but two values

DatasetName = Annotated[str, AfterValidator(lambda name: check_name("the dataset", name))]
ModelName = Annotated[str, AfterValidator(lambda name: check_name("the model", name))]
Fingerprint = Annotated[str, AfterValidator(lambda name: check_name("the fingerprint", name))]
PositiveSize = Annotated[int, Field(strict=True, ge=1, le=2**16)]
Text = Annotated[str, AfterValidator(lambda text: check_text("the text", text))]


def _with_fingerprint(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Format 1 of scores.json left it to the folder's name, "<seed>-<fingerprint>", unless somebody renamed it."""
    return document | {"fingerprint": path.absolute().parent.name.partition("-")[2] or "unknown"}


def _named_today(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The preset `full` was called `paper`, and nothing said by which version of the protocol a run was made: it was the first."""
    config = document.get("config")
    if isinstance(config, dict):
        document = document | {
            "config": config | {"preset": PRESETS_OF_BEFORE.get(str(config.get("preset")), config.get("preset"))}
        }
    if "preset" in document:
        document = document | {"preset": PRESETS_OF_BEFORE.get(str(document["preset"]), document["preset"])}
    return document | {"protocol": {"model": 1, "score": 1}}


FIRST_DATE, LAST_DATE = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)  # that every platform can write


class Protocol(Record):
    """The versions of the protocol by which a run was made: `harness.models.Model.protocol`, `harness.runs.config.scoring_protocol`."""

    model: Count
    score: Count


class Weights(Record):
    """The file of pretrained weights that a training started from.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        revision: the commit of the hub's repository, "" for a file that was given.
    """

    name: Text
    sha256: Text
    revision: Text


class Seconds(Record):
    """What a run took."""

    train: Number
    score: Number


class RunScores(Document):
    """The document scores.json: what a run scored on test, with its groups; on train; and what baselines score on test.

    Attributes:
        dataset, kind, model, seed, preset: of the run.
        fingerprint: of the config, the images and the code of a user's model; runs that differ in the seed alone share it.
        protocol: by which versions of it.
        steps: of training, without those of a readout.
        n_test: images of test that were scored.
        r2, r2_sklearn, mse: see `Errors`.
        train: the same on train.
        reference: what baselines score.
        modularity, by_held_out_count, by_distance: see `Groups`.
        images_per_second: in training.
        device: in words.
        finished: when, to the second; None in a run of before.
    """

    FORMAT: ClassVar[int] = 3
    UPGRADES: ClassVar[dict[int, Upgrade]] = {1: _with_fingerprint, 2: _named_today}
    ADVICE: ClassVar[str] = "delete the folder and bench again"

    format: int = FORMAT
    dataset: DatasetName
    kind: Kind
    model: ModelName
    seed: Count
    fingerprint: Fingerprint
    preset: Preset
    protocol: Protocol
    steps: Count
    n_test: Count
    r2: PerFactor
    r2_sklearn: PerFactor
    mse: PerFactor
    train: Errors
    reference: dict[BaselineName, Baseline]
    modularity: dict[FactorName, Modularity] | None
    by_held_out_count: dict[str, CountGroup]
    by_distance: tuple[DistanceError, ...]
    seconds: Seconds
    images_per_second: Number
    device: Text
    finished: Annotated[AwareDatetime, Field(ge=FIRST_DATE, lt=LAST_DATE)] | None = None

    @model_validator(mode="after")
    def _of_one_grid(self) -> Self:
        factors = list(self.r2.factors)
        if not 0 < len(factors) <= MOST_FACTORS:
            raise ValueError(f"1 to {MOST_FACTORS} factors are expected, got {len(factors):,}")
        if missing := [name for name in BASELINES if name not in self.reference]:
            raise ValueError(f"reference has no {', '.join(missing)}")
        numbers = (self.r2_sklearn, self.mse, self.train.r2, self.train.r2_sklearn, self.train.mse, *self.reference.values())
        if any(list(each.factors) != factors for each in numbers):
            raise ValueError("its parts are of different factors")
        distances = (*self.by_distance, *(error for each in self.reference.values() for error in each.by_distance))
        if {*(self.modularity or {}), *(error.factor for error in distances)} - set(factors):
            raise ValueError("a factor is scored by groups, but not as a whole")
        return self


def finished_at(scores: RunScores, path: Path) -> float | None:
    """When a run was finished, in seconds since 1970: by the date of its file if it does not say; None for a record of before.

    Args:
        scores: of the run.
        path: they were read from.
    """
    if scores.finished is not None:
        return scores.finished.timestamp()
    return path.stat().st_mtime if path.name == SCORES else None


class RunSetup(Document):
    """The document config.json: a run, resolved, and what it is run on. Written before the training.

    Attributes:
        images: of the dataset.
        image_shape: (height, width, channels); None where an older version trained it.
        source: what the images were made from.
        code: hash of a user's model's code, "" for a reference model.
        protocol: by which versions of it.
        lineage: hash of all that determines the training but its seed and length (`harness.runs.config.lineage`), "" in a run of before.
        weights: the pretrained weights that the training started from.
        versions: of Python and packages.
        commit: of this project's code, with "+changes" if there were some; "" where it is not a checkout.
        device: in words.
    """

    FORMAT: ClassVar[int] = 3
    UPGRADES: ClassVar[dict[int, Upgrade]] = {1: lambda document, path: {"image_shape": None} | document, 2: _named_today}
    ADVICE: ClassVar[str] = "delete the folder and bench again"

    format: int = FORMAT
    dataset: DatasetName
    kind: Kind
    model: ModelName
    seed: Count
    images: Count
    image_shape: tuple[PositiveSize, PositiveSize, PositiveSize] | None
    source: dict[str, Any]
    config: Config
    code: Text
    protocol: Protocol
    lineage: Text = ""
    weights: Weights | None = None
    versions: dict[str, Text]
    commit: Text = ""
    device: Text

    def settings(self) -> dict[str, str]:
        """The settings {"preset": "quick", "model.beta": "4.0", …, "images": "216,000"}: what a row of a table can differ in from another."""
        return settings(self.config) | {"images": f"{self.images:,}"}


def settings(config: Config) -> dict[str, str]:
    """A config as {"preset": "quick", "model.beta": "4.0", …}."""
    sections = config.to_dict()
    flat = {"preset": sections.pop("preset")}
    for section, values in sections.items():
        flat |= {f"{section}.{name}": value for name, value in values.items()}
    return {_printable(name): _printable(value) for name, value in flat.items()}


class Failure(Document):
    """The document failure.json: why a run has no scores. The next try removes it.

    Attributes:
        error: in a line.
        machine: where it was tried, by its name.
        log: the last lines of the traceback, none where the process died.
    """

    FORMAT: ClassVar[int] = 1
    UPGRADES: ClassVar[dict[int, Upgrade]] = {}
    ADVICE: ClassVar[str] = "delete it"

    format: int = FORMAT
    error: str
    machine: str
    log: tuple[str, ...]


def _printable(value: Any) -> str:
    """Any value as text in one line."""
    return "".join(character if character.isprintable() else "?" for character in str(value))
