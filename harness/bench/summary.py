"""What a bench plans and finds, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.bench.estimate import lacking
from harness.bench.execute import Outcome
from harness.bench.plan import Plan
from harness.models import families
from harness.report.results import entries, score_table
from harness.scoring.baselines import EXPLAINED
from splits.formatting import Report, table, wrapped_table


def models_told() -> Report:
    """Every model: what it is, its size, what of it is our reconstruction."""
    rows, data = [("model", "parameters", "what it is")], []
    for family, models in families():
        rows.append((family, "", ""))
        for model in models:
            size = f"{model.parameters:,}" if model.parameters else ""
            what = f"{model.summary}\nOurs: {model.reconstruction}" if model.reconstruction else model.summary
            rows.append((f"  {model.name}", size, what))
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
    notes = (
        "Parameters are for 3 channels and 7 outputs, without the readout of a",
        "representation. Ours: what the paper leaves open, and we chose. The options of a",
        "model: ood-data bench --settings MODEL.",
    )
    return Report((*wrapped_table(rows), *notes), {"models": data})


def plan_told(plan: Plan, in_full: bool = True) -> Report:
    """The runs by model and dataset, how many are done, and what is missing.

    Args:
        plan: the runs.
        in_full: say how to get each well-known dataset that nobody asked for, too.
    """
    states = Counter(run.state for run in plan.runs)
    kinds: dict[tuple[str, str], Counter[str]] = {}
    for run in plan.runs:
        kinds.setdefault((run.model, run.dataset), Counter())[run.kind] += 1
    rows = [("model", "dataset", "kinds", "seeds", "steps")]
    for (model, dataset), counted in kinds.items():
        steps = next(run.config.train.steps for run in plan.runs if run.model == model)
        rows.append((model, dataset, ", ".join(counted), str(max(counted.values())), f"{steps:,}"))
    counts = ", ".join(f"{states[state]} {state}" for state in ("done", "resumable", "new") if states[state])
    todo = [run for run in plan.runs if run.state != "done"]
    lines = [
        *table(rows),
        f"{len(plan.runs)} run{'' if len(plan.runs) == 1 else 's'}: {counts or 'none'}",
        *_missing(plan, in_full),
    ]
    lacks = lacking(todo)
    for model, what in lacks.items():
        lines.append(f"{_count(run.model == model for run in todo)} of these, of {model}, may not be done: {what}")
    data = {
        "runs": [{"run": str(run), "folder": str(run.folder), "state": run.state, "steps": run.steps} for run in plan.runs],
        "absent": plan.absent | plan.also,
        "unfinished": plan.unfinished,
        "impossible": [list(entry) for entry in plan.impossible],
        "lacking": lacks,
    }
    return Report(tuple(lines), data, not plan.refused)


def _count(these: Iterable[bool]) -> str:
    """`1 run` or `3 runs`."""
    number = sum(these)
    return f"{number} run{'' if number == 1 else 's'}"


def outcomes_told(plan: Plan, outcomes: Sequence[Outcome]) -> Report:
    """The score table, and what failed. Not ok if anything that was asked for has no scores."""
    scored = [(outcome.run.folder.name, outcome.scores) for outcome in outcomes if outcome.scores is not None]
    failed = [outcome for outcome in outcomes if outcome.scores is None]
    lines = [*table(score_table(entries(scored))), EXPLAINED] if scored else []
    presets = {scores["preset"] for _, scores in scored}
    if "quick" in presets:
        lines.append("quick is not the paper's budget: few steps, and a sample of the images scored.")
    # The same reason once: a model without weights fails alike on every split.
    for reason, count in Counter((outcome.run.model, outcome.error) for outcome in failed).items():
        lines.append(f"not done: {reason[0]}, {count} run{'s' if count > 1 else ''}: {reason[1]}")
    lines += [f"not done: {name}: {command}" for name, command in plan.refused.items()]
    data = {
        "runs": [scores for _, scores in scored],
        "failed": [{"run": str(outcome.run), "error": outcome.error} for outcome in failed],
        "absent": plan.absent,
        "unfinished": plan.unfinished,
        "impossible": [list(entry) for entry in plan.impossible],
    }
    return Report(tuple(lines), data, not failed and not plan.refused)


def _missing(plan: Plan, in_full: bool) -> list[str]:
    lines = [f"{dataset} can't have {kind}: {reason}" for dataset, kind, reason in plan.impossible]
    lines += [f"{name} is not whole: {reason}" for name, reason in plan.unfinished.items()]
    absent = plan.absent | plan.also if in_full else plan.absent
    lines += [f"{name} is not there; to get it: {command}" for name, command in absent.items()]
    if plan.also and not in_full:
        lines.append(f"not there: {', '.join(plan.also)}; ood-data bench … --dry-run says how to get them")
    return lines
