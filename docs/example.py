"""The live example of the docs, docs/_static/example.html: runs of records in results/, made again, and their report.

    ood-data generate dsprites --out data/
    python docs/example.py

It takes half an hour of a core. A replay has what the records have not: where a run errs, and its network's weights. Where the
processor is another one than the record's, its numbers come out as with another seed; `bench replay` says how far.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.io.atomic import write_atomically  # noqa: E402

PAGE = ROOT / "docs/_static/example.html"
MOST_BYTES = 3_000_000
KINDS = {"extrapolation": ("cnn", "pcl", "rotation-eq", "mlp"), "interpolation": ("cnn", "rotation-eq")}
LIVE = ("extrapolation", "pcl")


def main(data: str = "data/", replays: str = "replays/example", out: str = "report/example") -> None:
    command = [sys.executable, str(ROOT / "cli.py")]
    records = [
        str(path) for kind, models in KINDS.items() for model in models for path in _in(ROOT / "results", kind, model, "*.json")
    ]
    subprocess.run([*command, "bench", "replay", *records, "--data", data, "--out", replays], check=False)  # 1 where one differs
    (live,) = _in(Path(replays), *LIVE, "*")
    subprocess.run([*command, "report", replays, "--out", out, "--data", data, "--live", str(live)], check=True)
    page = (Path(out) / "index.html").read_bytes()
    if len(page) > MOST_BYTES:
        sys.exit(f"the page has {len(page):,} bytes, and {MOST_BYTES:,} are allowed: take fewer runs")
    write_atomically(PAGE, page)


def _in(folder: Path, kind: str, model: str, name: str) -> list[Path]:
    return sorted((folder / "dsprites" / kind / model).glob(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
