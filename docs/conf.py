"""The documentation's build: pages in Markdown (MyST), commands and Python from the code. `make docs` builds it, warnings as errors."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
from sphinx.application import Sphinx

from harness.models import families
from splits import DATASETS, load_spec

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project, author, release = _project["name"], _project["authors"][0]["name"], _project["version"]
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_static_path = ["_static"]
html_title = f"{project} {release}"

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "

smartquotes = False  # two hyphens are two hyphens
default_role = "code"  # docstrings name code in single backticks, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def models_table() -> str:
    """A row per reference model, as `ood-data bench --list` prints them."""
    rows = ["| model | family | parameters | what it is | our reconstruction |", "|---|---|---|---|---|"]
    for family, models in families():
        for model in models:
            size = f"{model.parameters:,}" if model.parameters else ""
            rows.append(f"| `{model.name}` | {family} | {size} | {model.summary} | {model.reconstruction or '–'} |")
    return "\n".join(rows)


def datasets_table() -> str:
    """A row per shipped spec: its factors, and the train and test counts of its splits."""
    rows = [
        "| dataset | factors (values) | images | train / test: random, interpolation, extrapolation | composition |",
        "|---|---|---|---|---|",
    ]
    for name in DATASETS:
        spec = load_spec(name)
        factors = ", ".join(f"{factor.name} ({factor.size})" for factor in spec.grid)
        same, corner = spec.split("extrapolation").counts, spec.split("composition").counts
        assert spec.split("random").counts == spec.split("interpolation").counts == same
        counts = [f"{train:,} / {test:,}" for train, test in (same, corner)]
        rows.append(f"| `{name}` | {factors} | {len(spec.grid):,} | {' | '.join(counts)} |")
    return "\n".join(rows)


myst_substitutions = {"models": models_table(), "datasets": datasets_table()}


def plain_help(app: Sphinx, ctx: click.Context, lines: list[str]) -> None:
    """Help is plain text: a star is a star, and the examples that follow click's \\b (lines here that begin with |) are code."""
    plain: list[str] = []
    for line in lines:
        if not line.startswith("| "):
            plain.append(line.replace("*", r"\*"))
        elif line.startswith("|   "):
            plain.append("   " + line.removeprefix("|   "))
        else:
            plain += [line.removeprefix("| "), "", ".. code-block:: sh", ""]
    lines[:] = plain


def setup(app: Sphinx) -> None:
    app.connect("sphinx-click-process-description", plain_help)
