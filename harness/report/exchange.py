"""Records of results in the schema of Every Eval Ever (evaleval/every_eval_ever, version 0.3.0), which collects results of all kinds.

It was made for language models: what it has no place for, such as the settings of a training, goes into its additional details.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.formats.catalog import CATALOG
from harness.report.result_record import ResultRecord
from harness.runs.records import RunScores, finished_at

SCHEMA = "0.3.0"
OURS = "ood-data"
PAPER = "https://arxiv.org/abs/2107.08221"
WHAT = "R² of a factor's value on the test side of a split, by the benchmark's formula; the mean is over the factors"


def exchanged(record: ResultRecord, path: Path) -> tuple[Path, dict[str, Any]]:
    """A record as the schema's EvaluationLog, and its place below the folder that it goes into: data/ood-data/<developer>/<model>/.

    Args:
        record: of a run. One of before, which does not say when it was finished, is given the date of its file.
        path: it was read from.
    """
    scores, setup = record.scores, record.setup
    own = ":" in scores.model
    developer, model = "user" if own else OURS, scores.model.replace(":", ".")
    when = finished_at(scores, path)
    identity = f"{OURS}/{scores.dataset}.{scores.kind}/{model}/{scores.seed}-{scores.fingerprint}"
    log: dict[str, Any] = {
        "schema_version": SCHEMA,
        "evaluation_id": identity,
        "retrieved_timestamp": str(int(path.stat().st_mtime if when is None else when)),
        "source_metadata": {
            "source_name": OURS,
            "source_type": "evaluation_run",
            "source_organization_name": OURS,
            "evaluator_relationship": "first_party",
        },
        "eval_library": {
            "name": OURS,
            "version": setup.versions.get(OURS, "unknown"),
            "additional_details": _texts({"commit": setup.commit, **setup.versions}),
        },
        "model_info": {
            "name": scores.model,
            "id": f"{developer}/{model}",
            "developer": developer,
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                **_texts({"seed": scores.seed, "fingerprint": scores.fingerprint, "code": setup.code, **setup.settings()}),
            },
        },
        "evaluation_results": list(_results(record)),
    }
    if when is not None:
        log["evaluation_timestamp"] = datetime.fromtimestamp(when, UTC).isoformat()
    name = uuid.UUID(bytes=hashlib.sha256(identity.encode()).digest()[:16], version=4)  # the only version that is taken there
    place = Path("data", OURS, developer, model, f"{name}.json")
    return place, log


def to_bytes(log: Mapping[str, Any]) -> bytes:
    """The file of an EvaluationLog."""
    return (json.dumps(log, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _results(record: ResultRecord) -> Iterator[dict[str, Any]]:
    """R² on test, the mean and each factor's, as far as they have a meaning."""
    scores = record.scores
    numbers = {"": scores.r2.mean, **{f".{factor}": value for factor, value in scores.r2.factors.items()}}
    for suffix, value in numbers.items():
        if value is None:
            continue
        yield {
            "evaluation_name": f"{OURS}.{scores.dataset}.{scores.kind}{suffix}",
            "source_data": _source(scores),
            "metric_config": {
                "evaluation_description": WHAT,
                "metric_id": f"{OURS}.r2",
                "metric_name": "R²",
                "metric_kind": "r2",
                "metric_unit": "proportion",
                "lower_is_better": False,
                "score_type": "continuous",
                "min_score": "-Infinity",
                "max_score": 1.0,
            },
            "score_details": {"score": value, "uncertainty": {"num_samples": scores.n_test}},
            "generation_config": {
                "generation_args": {"execution_command": record.command},
                "additional_details": {"device": scores.device},
            },
        }


def _source(scores: RunScores) -> dict[str, Any]:
    """Where the dataset comes from."""
    known = CATALOG.get(scores.dataset)
    details = {"split": f"{scores.kind}, test", "splits_of": PAPER}
    where = {"source_type": "url", "url": [known.homepage]} if known else {"source_type": "other"}
    return {"dataset_name": scores.dataset, **where, "additional_details": details}


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    """Values as the schema has additional details; those that say nothing are left out."""
    return {name: str(value) for name, value in values.items() if value not in ("", None)}
