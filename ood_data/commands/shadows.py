"""Whether our packages are ours: their names are common words, and another package of one of them may be found first."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HOME = Path(__file__).parents[2]  # the folder that our packages lie in
PACKAGES = ("splits", "harness", "celebglow")


def shadow() -> str:
    """A sentence about the first of our packages in whose place Python would import another; empty if there is none."""
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # imported already, and by something that left no trace of it
            continue
        found = Path(spec.origin).parent if spec is not None and spec.origin else None
        if found is None or found.parent.resolve() != HOME.resolve():
            where = "no package of that name is found" if found is None else f"it is imported from {found}"
            return (
                f"ood-data's own package {name!r} is in {HOME}, but {where}: another package of that name hides it. "
                "Take that off PYTHONPATH, run in another folder, or give ood-data a virtual environment of its own"
            )
    return ""


def replaced(error: ImportError) -> str:
    """A sentence about our package that lacks what this version of ood-data imports from it; empty if the error is another one."""
    name = (error.name or "").partition(".")[0]
    if name not in PACKAGES:
        return ""
    return (
        f"ood-data's own package {name!r} in {HOME} is not whole ({error}): another distribution of that name may have been "
        "installed over it. Give ood-data a virtual environment of its own, and install it anew"
    )
