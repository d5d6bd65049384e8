"""Results that are kept: one small file a run, with all that is needed to make it again and nothing that is large.

`<results>/<dataset>/<kind>/<model>/<seed>-<fingerprint>.json` holds a run's scores, its config and what it was run on, the curve of
its log, and the command that makes it again. A folder of them reports as a folder of runs does.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from harness.io.atomic import write_atomically
from harness.io.checkpoints import LOG
from harness.io.records import Document, Record, Upgrade, explained
from harness.models import MODELS, Model, find
from harness.models.lookup import is_own
from harness.runs.presets import override_value, resolve
from harness.runs.records import CONFIG, SCORES, RunScores, RunSetup
from harness.scoring.records import Count, Number
from splits.errors import InputError, MissingError

if TYPE_CHECKING:
    from torch import nn

MOST_LINES = 10_000  # of a log that is kept


class LogLine(Record):
    """A line of a log: the mean loss over the steps since the last one."""

    phase: str = Field(max_length=20)
    step: Count
    loss: Number


class ResultRecord(Document):
    """A finished run, without its weights.

    Attributes:
        scores, setup: its scores.json and config.json.
        log: the curve of its loss, by phases.
        command: makes it again.
    """

    FORMAT: ClassVar[int] = 1
    UPGRADES: ClassVar[dict[int, Upgrade]] = {}
    ADVICE: ClassVar[str] = "make it again from the run: ood-data results submit RUN"

    format: int = FORMAT
    scores: RunScores
    setup: RunSetup
    log: tuple[LogLine, ...] = Field(max_length=MOST_LINES)
    command: str = Field(max_length=10_000)

    @model_validator(mode="after")
    def _of_one_run(self) -> Self:
        for name in ("dataset", "kind", "model", "seed", "protocol"):
            if getattr(self.scores, name) != getattr(self.setup, name):
                raise ValueError(f"scores and setup are of runs that differ in their {name}")
        if self.scores.steps != self.setup.config.train.steps:
            raise ValueError("scores and setup differ in the steps of training")
        return self

    @classmethod
    def of(cls, folder: Path) -> ResultRecord:
        """The record of a finished run.

        Raises:
            FileNotFoundError: if it is not finished.
            ValueError: if a document of it is damaged; if no command makes it again.
        """
        if not (folder / SCORES).exists():
            raise MissingError(f"{folder} has no {SCORES}: a folder of a finished run is expected")
        setup = RunSetup.read(folder / CONFIG)
        scores, log, command = RunScores.read(folder / SCORES), _log(folder / LOG, setup), command_of(setup)
        try:
            return cls(scores=scores, setup=setup, log=log, command=command)
        except ValidationError as error:
            raise InputError(f"{folder}: its record would be none: {explained(error)}") from error

    @property
    def path(self) -> Path:
        """Its place in a folder of records."""
        scores = self.scores
        return Path(scores.dataset, scores.kind, scores.model.replace(":", "."), f"{scores.seed}-{scores.fingerprint}.json")

    def write(self, path: Path, write: Callable[[Path, bytes], None] = write_atomically) -> None:
        """Replace the file, or make it, atomically: a line for each part, which is what a diff of two then shows."""
        parts = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in self.to_dict().items())
        write(path, ("{\n" + ",\n".join(parts) + "\n}\n").encode())

    @classmethod
    def _upgraded(cls, document: Any, path: Path) -> dict[str, Any]:
        upgraded = super()._upgraded(document, path)
        parts: dict[str, type[Document]] = {"scores": RunScores, "setup": RunSetup}
        return upgraded | {name: kind._upgraded(upgraded.get(name), path) for name, kind in parts.items()}


def problem_of(path: Path, folder: Path) -> str:
    """What is wrong with a file in a folder of records, "" if nothing: that it is none, not in its place, or not as its command says."""
    try:
        record = ResultRecord.read(path)
    except (InputError, OSError) as error:
        return str(error)
    if path.relative_to(folder) != record.path:
        return f"it belongs to {record.path}"
    scores = record.scores
    for name, each in {"r2": scores.r2, "mse": scores.mse, "train.r2": scores.train.r2, "train.mse": scores.train.mse}.items():
        values = [value for value in each.factors.values() if value is not None]
        if values and (each.mean is None or not math.isclose(each.mean, sum(values) / len(values), rel_tol=1e-9, abs_tol=1e-9)):
            return f"scores.{name}: its mean is not of its factors"
    if not is_own(record.setup.model):
        if record.setup.model not in MODELS:
            return f"{record.setup.model} is no model"
        try:
            if command_of(record.setup) != record.command:
                return "its command is not of its config"
        except InputError as error:
            return str(error)
    return ""


def command_of(setup: RunSetup) -> str:
    """The command that makes a run again, with every setting in which it differs from its preset.

    Raises:
        ValueError: if there is none: a setting has a value that no command can say.
    """
    config = setup.config
    # Of a user's model nothing is run: its preset is that of any, and all its options are said.
    model = Model(setup.model, _not_built, "user", "") if is_own(setup.model) else find(setup.model)
    ours, theirs = config.to_dict(), resolve(model, config.preset, ["train.precision=fp32"]).to_dict()
    changes = [f"train.precision={config.train.precision}"]
    for section in ("train", "readout", "score", "model"):
        for name, value in ours[section].items():
            key = f"{section}.{name}"
            if value == theirs[section].get(name) or key in ("train.precision", "train.checkpoint_seconds"):
                continue
            try:
                changes.append(f"{key}={override_value(value)}")
            except InputError as error:
                if is_own(setup.model):  # then it is the default: nobody can have set it
                    continue
                raise InputError(f"no command makes a run of {setup.model} again that has {key}: {error}") from None
    run = f"ood-data bench --model {setup.model} --dataset {setup.dataset} --kind {setup.kind} --preset {config.preset} --seeds {setup.seed},"
    return " --set ".join([run, *map(shlex.quote, changes)])


def _not_built(**options: Any) -> nn.Module:
    raise NotImplementedError("a user's model, of which nothing is run")


def _log(path: Path, setup: RunSetup) -> tuple[LogLine, ...]:
    if setup.config.train.steps == 0 and not path.exists():  # nothing was trained
        return ()
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return tuple(LogLine.model_validate(line) for line in lines[-MOST_LINES:])
    except (OSError, ValueError) as error:
        what = explained(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} is missing or damaged ({what}): delete the folder and bench again") from error
