"""What a split is, for people and for programs."""

from __future__ import annotations

from pathlib import Path

from splits.explain import explain
from splits.formatting import Report, named, table
from splits.published import compare
from splits.rules import RandomRule
from splits.split import Split


def report(split: Split, *, explained: bool = False, published: str | Path | None = None) -> Report:
    """The summary of a split, with the proof if `explained`, and compared with the published label files in a folder."""
    parts = {"summary": summary(split)}
    if explained:
        parts["explain"] = explain(split)
    if published is not None:
        parts["check"] = compare(split, published)
    data = parts["summary"].data | {name: part.data for name, part in parts.items() if name != "summary"}
    lines = tuple(line for part in parts.values() for line in part.lines)
    return Report(lines, data, all(part.ok for part in parts.values()))


def summary(split: Split) -> Report:
    """What is held out, by name where values have names, how many samples are train and test, and which factors take part."""
    train, test = split.counts
    total = f"{len(split.grid):,} samples: {train:,} train, {test:,} test (test ratio {split.test_ratio:.4f})"
    data = {
        "dataset": split.dataset,
        "kind": split.kind,
        "train": train,
        "test": test,
        "test_ratio": split.test_ratio,
        "test_if": split.test_if,
        "held_out": {name: list(values) for name, values in split.held_out.items()},
        "factors": [{"name": factor.name, "size": factor.size, "kind": factor.kind} for factor in split.grid],
    }
    return Report((f"{split.dataset}, {split.kind}", total, *_rule_lines(split)), data)


def _rule_lines(split: Split) -> tuple[str, ...]:
    if isinstance(split.rule, RandomRule):
        count_of = split.rule.test_count_of
        why = f", as many as {count_of} has" if count_of else ""
        return (f"test is drawn at random{why}: a mask shuffled by numpy.random.RandomState({split.rule.seed}).shuffle",)
    if split.test_if == "any":
        intro, others_are = "a sample is test if any factor has a held-out value:", "never held out"
    else:
        intro, others_are = "a sample is test if all of these factors have a value listed here:", "takes no part"
    rows = [("factor", "held out", "of", "values")]
    rows += [
        (name, str(len(indices)), str(split.grid[name].size), named(split.grid[name], indices))
        for name, indices in split.held_out.items()
    ]
    others = [name for name in split.grid.names if name not in split.held_out]
    return (intro, *table(rows), *([f"{others_are}: {', '.join(others)}"] if others else []))
