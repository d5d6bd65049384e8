"""What a bench plans and finds, for people and for programs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from harness.bench.estimate import lacking
from harness.bench.outcome import Outcome, outcome_of
from harness.bench.plan import Gap, Plan
from harness.formats.catalog import CATALOG
from harness.models import MODELS, families
from harness.report.leaderboard import Source, leaderboard, with_sources
from harness.report.tables import notes, score_table
from harness.runs.presets import is_plain
from harness.runs.records import CONFIG, SCORES, RunSetup, settings
from harness.runs.run import Run
from harness.scoring.baselines import EXPLAINED
from splits.errors import InputError, how_many
from splits.formatting import Report, table, wrapped_table

WORDS = {
    "impossible": "{0.dataset} can't have {0.kind}: {0.reason}",
    "unfinished": "{0} is not whole: {0.reason}",
    "absent": "{0} is not there; to get it: {0.reason}",
}


def summarize_models() -> Report:
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
        "representation. Ours: what the paper leaves open, and we chose.",
    )
    return Report((*wrapped_table(rows), *notes), {"models": data})


def summarize_plan(plan: Plan, in_full: bool = True) -> Report:
    """The runs by model and dataset, how many are done, and what is missing.

    Args:
        plan: the runs.
        in_full: read the scores of runs that are done, which may be damaged, and say how to get each well-known dataset that nobody
            asked for.
    """
    states: list[str] = [run.state for run in plan.runs]
    told = [outcome_of(run).error if in_full and state == "done" else "" for run, state in zip(plan.runs, states, strict=True)]
    states = ["damaged" if error else state for error, state in zip(told, states, strict=True)]
    groups: dict[tuple[str, str, int], list[Run]] = {}
    for run in plan.runs:
        groups.setdefault((run.model, run.dataset, run.config.train.steps), []).append(run)
    rows = [("model", "dataset", "kinds", "seeds", "settings", "steps")]
    for (model, dataset, steps), members in groups.items():
        kinds = ", ".join(dict.fromkeys(run.kind for run in members))
        seeds, settings = (len({getattr(run, name) for run in members}) for name in ("seed", "fingerprint"))
        rows.append((model, dataset, kinds, str(seeds), str(settings), f"{steps:,}"))
    counted_states = Counter(states)
    counts = ", ".join(
        f"{counted_states[state]:,} {state}" for state in ("done", "resumable", "new", "damaged") if counted_states[state]
    )
    todo = [run for run, state in zip(plan.runs, states, strict=True) if state in ("resumable", "new")]
    lines = [*table(rows)] if groups else []
    lines += [f"{how_many(len(plan.runs), 'run')}{f': {counts}' if counts else ''}", *_missing(plan, in_full)]
    lines += [f"not done: {run}: {error}" for run, error in zip(plan.runs, told, strict=True) if error]
    lacks = lacking(todo)
    for model, what in lacks.items():
        lines.append(f"{how_many(sum(run.model == model for run in todo), 'run')} of {model} may fail: {what}")
    data = {
        "runs": [
            {"run": str(run), "folder": str(run.folder), "state": state, "steps": run.steps}
            for run, state in zip(plan.runs, states, strict=True)
        ],
        **_gaps(plan.gaps),
        "lacking": lacks,
    }
    return Report(tuple(lines), data, not plan.refused and not any(told))


def summarize_outcomes(plan: Plan, outcomes: Sequence[Outcome]) -> Report:
    """The score table, and what failed. Not ok if anything that was asked for has no scores."""
    scores = [outcome.scores for outcome in outcomes if outcome.scores is not None]
    failed = [outcome for outcome in outcomes if outcome.scores is None]
    plain = {run.fingerprint for run in plan.runs if run.model in MODELS and is_plain(MODELS[run.model], run.config)}
    rows = leaderboard(scores, plain, {run.fingerprint: settings(run.config) for run in plan.runs})
    setups = {id(outcome.scores): Source(outcome.run.folder / SCORES, _setup(outcome.run)) for outcome in outcomes}
    rows = with_sources(rows, lambda each: setups[id(each)])  # what they ran on, which may be several machines
    lines = [*table(score_table(rows)), EXPLAINED, *notes(rows)] if scores else []
    if any(each.preset == "quick" for each in scores):
        lines.append("quick: few steps, and a sample of the images scored.")
    # The same reason once: a model without weights fails alike on every split.
    for (model, error), count in Counter((outcome.run.model, outcome.error) for outcome in failed).items():
        lines.append(f"not done: {model}, {how_many(count, 'run')}: {error}")
    lines += [f"not done: {_why(gap)}" for gap in plan.refused]
    data = {
        "runs": [each.to_dict() for each in scores],
        "failed": [{"run": str(outcome.run), "error": outcome.error} for outcome in failed],
        **_gaps(gap for gap in plan.gaps if gap.asked or gap.state == "impossible"),
    }
    return Report(tuple(lines), data, not failed and not plan.refused)


def _setup(run: Run) -> RunSetup | None:
    """What a run was made on, if its folder can tell."""
    with contextlib.suppress(InputError, OSError):
        return RunSetup.read(run.folder / CONFIG)
    return None


def _gaps(gaps: Iterable[Gap]) -> dict[str, Any]:
    """The gaps as JSON has them."""
    gaps = list(gaps)
    return {
        "absent": {gap.dataset: gap.reason for gap in gaps if gap.state == "absent"},
        "unfinished": {gap.dataset: gap.reason for gap in gaps if gap.state == "unfinished"},
        "impossible": [[gap.dataset, gap.kind, gap.reason] for gap in gaps if gap.state == "impossible"],
    }


def _missing(plan: Plan, in_full: bool) -> list[str]:
    shown = [gap for gap in plan.gaps if in_full or gap.asked or gap.state != "absent"]
    lines = [_why(gap) for state in WORDS for gap in shown if gap.state == state]
    if others := [gap.dataset for gap in plan.gaps if gap not in shown]:
        lines.append(f"not there: {', '.join(others)}")
    return lines


def _why(gap: Gap) -> str:
    """Why something has no runs, and what to do."""
    return WORDS[gap.state].format(gap) + _instead(gap)


def _instead(gap: Gap) -> str:
    """What can be had of an absent dataset for less."""
    if gap.state != "absent" or not any(file.stored for file in CATALOG[gap.dataset].files):
        return ""
    return " (or, to look at 64 of its images, with `cells` 64: about 1 MB instead of many GB)"
