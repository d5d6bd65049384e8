"""The page of a report: one file that needs nothing else, from its parts in `page/`."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable
from importlib import resources

from harness.report.payload import Payload

# In this order they make one script, in which each knows those before it.
SCRIPTS = (
    "dom.js", "grid.js", "dsprites.js", "canvas.js", "picture.js", "state.js", "strip.js", "heatmap.js", "story.js", "failures.js",
    "explorer.js", "leaderboard.js", "network.js", "livestrip.js", "live.js", "main.js",
)  # fmt: skip
PARTS = resources.files("harness.report") / "page"


def script() -> str:
    """The page's script, in a scope of its own."""
    parts = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();'


def page(made: Payload, notes: Iterable[str], figures: str) -> str:
    """The page as HTML.

    Args:
        made: what it shows.
        notes: about the numbers, in plain text, a paragraph each.
        figures: HTML of what is drawn beforehand.
    """
    code, style = script(), (PARTS / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    # Whatever a name may hold, no other script runs, and nothing is fetched.
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    index = json.dumps(made.index, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    blobs = "".join(f'<script type="text/plain" id="blob-{name}">{content}</script>' for name, content in made.blobs.items())
    body = (PARTS / "body.html").read_text(encoding="utf-8")
    body = body.replace("<!-- notes -->", "".join(f"<p>{html.escape(note)}</p>" for note in notes))
    before, _, after = body.partition("<!-- figures -->")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>ood-data report</title>'
        f"<style>{style}</style></head><body>{before}"
        f'<script type="application/json" id="index">{index}</script><script>{code}</script>{blobs}{figures}{after}</body></html>'
    )
