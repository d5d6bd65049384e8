"""Jobs that are killed again and again, at random moments, end in the bytes of one that was not, and leave nothing over."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import pytest
from attack import chance, differences, many
from jobs import JOBS, Inputs, inputs, result

__all__ = ["chance", "inputs"]

pytestmark = pytest.mark.slow
ATTEMPTS = 8  # then it may come to its end: a report begins anew each time
SAID = 1000  # bytes of messages, which go to a file of limited length too


@pytest.mark.parametrize("name", JOBS)
def test_a_killed_job_ends_as_an_unbroken_one(name: str, chance: random.Random, inputs: Inputs, tmp_path: Path) -> None:
    job, killed = JOBS[name], 0
    job.begin(tmp_path / "whole", inputs)
    whole = job.run(tmp_path / "whole", inputs)
    assert whole.code == 0, whole
    expected = result(job, tmp_path / "whole")
    while killed < many(4, 60):
        job.begin(tmp_path / "out", inputs)
        kills: list[dict[str, Any]] = []
        ended = whole
        for attempt in range(ATTEMPTS + 1):
            kill: dict[str, Any] = (
                {"kill_at": chance.randint(1, whole.changes)}
                if chance.random() < 0.5
                else {"kill_after": chance.uniform(0, whole.cpu)}
            )
            ended = job.run(tmp_path / "out", inputs, **(kill if attempt < ATTEMPTS else {}))
            if not ended.killed:
                break
            kills.append(kill)
        assert ended.code == 0, (kills, ended)
        assert not differences(result(job, tmp_path / "out"), expected), kills
        killed += max(1, len(kills))


@pytest.mark.parametrize("name", JOBS)
def test_a_job_that_may_write_no_more_says_so_and_is_continued(
    name: str, chance: random.Random, inputs: Inputs, tmp_path: Path
) -> None:
    """A limit of the length of files, as of a quota."""
    job = JOBS[name]
    job.begin(tmp_path / "whole", inputs)
    assert job.run(tmp_path / "whole", inputs).code == 0
    largest = max(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    for _ in range(many(1, 4)):
        job.begin(tmp_path / "out", inputs)
        limit = chance.randrange(1, min(largest, 5000))
        ended = job.run(tmp_path / "out", inputs, limits={resource.RLIMIT_FSIZE: limit})
        ended.assert_fine(1, lines=12)
        assert "too large" in ended.said or limit < SAID, ended
        assert not [*(tmp_path / "out").rglob("*.partial")]
        assert job.run(tmp_path / "out", inputs).code == 0
        assert not differences(result(job, tmp_path / "out"), result(job, tmp_path / "whole"))
