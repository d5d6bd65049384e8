"""What a bench plans and finds, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.bench.execute import Outcome
from harness.bench.plan import Gap, Plan
from harness.models import families
from harness.report.results import leaderboard, score_table
from harness.scoring.baselines import EXPLAINED
from splits.formatting import Report, table


def summarize_models() -> Report:
    """Every model: what it is, its size, what of it is our reconstruction."""
    rows = [("model", "family", "parameters", "what it is", "our reconstruction")]
    data = []
    for family, models in families():
        for model in models:
            size = f"{model.parameters:,}" if model.parameters else ""
            rows.append((model.name, family, size, model.summary, model.reconstruction or "–"))
            data.append(
                {
                    "name": model.name,
                    "family": family,
                    "parameters": model.parameters,
                    "summary": model.summary,
                    "reconstruction": model.reconstruction,
                    "options": model.options,
                    "quick_steps": model.quick_steps,
                }
            )
    note = "Parameters are for 3 channels and 7 outputs, without the readout of a representation."
    return Report((*table(rows), note), {"models": data})


def summarize_plan(plan: Plan) -> Report:
    """The runs by model and dataset, how many are done, and what is missing."""
    states = [run.state for run in plan.runs]
    kinds: dict[tuple[str, str, int], Counter[str]] = {}
    for run in plan.runs:
        kinds.setdefault((run.model, run.dataset, run.config.train.steps), Counter())[run.kind] += 1
    rows = [("model", "dataset", "kinds", "seeds", "steps")]
    for (model, dataset, steps), counted in kinds.items():
        rows.append((model, dataset, ", ".join(counted), str(max(counted.values())), f"{steps:,}"))
    counted_states = Counter(states)
    counts = ", ".join(f"{counted_states[state]} {state}" for state in ("done", "resumable", "new") if counted_states[state])
    lines = [*table(rows), f"{len(plan.runs)} run{'' if len(plan.runs) == 1 else 's'}: {counts or 'none'}", *_missing(plan)]
    data = {
        "runs": [
            {"run": str(run), "folder": str(run.folder), "state": state, "steps": run.steps}
            for run, state in zip(plan.runs, states, strict=True)
        ],
        **_gaps(plan.gaps),
    }
    return Report(tuple(lines), data, not plan.refused)


def summarize_outcomes(plan: Plan, outcomes: Sequence[Outcome]) -> Report:
    """The score table, and what failed. Not ok if anything that was asked for has no scores."""
    scores = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    failed = [outcome for outcome in outcomes if outcome.scores is None]
    lines = [*table(score_table(leaderboard(scores))), EXPLAINED] if scores else []
    if any(each.preset == "quick" for each in scores):
        lines.append("quick is not the paper's budget: few steps, and a sample of the images scored.")
    # The same reason once: a model whose weights can't be had fails alike on every split.
    for (model, error), count in Counter((outcome.run.model, outcome.error) for outcome in failed).items():
        lines.append(f"not done: {model}, {count} run{'s' if count > 1 else ''}: {error}")
    lines += [f"not done: {gap}: {gap.reason}" for gap in plan.refused]
    data = {
        "runs": [each.to_dict() for each in scores],
        "failed": [{"run": str(outcome.run), "error": outcome.error} for outcome in failed],
        **_gaps(gap for gap in plan.gaps if gap.asked or gap.state == "impossible"),
    }
    return Report(tuple(lines), data, not failed and not plan.refused)


def _gaps(gaps: Iterable[Gap]) -> dict[str, Any]:
    """As JSON has them."""
    gaps = list(gaps)
    return {
        "absent": {gap.dataset: gap.reason for gap in gaps if gap.state == "absent"},
        "unfinished": {gap.dataset: gap.reason for gap in gaps if gap.state == "unfinished"},
        "impossible": [[gap.dataset, gap.kind, gap.reason] for gap in gaps if gap.state == "impossible"],
    }


def _missing(plan: Plan) -> list[str]:
    words = {"impossible": "{0.dataset} can't have {0.kind}: {0.reason}", "unfinished": "{0} is not whole: {0.reason}"}
    words["absent"] = "{0} is not there; to get it: {0.reason}"
    return [text.format(gap) for state, text in words.items() for gap in plan.gaps if gap.state == state]
