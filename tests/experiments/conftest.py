from collections.abc import Sequence
from typing import Any

import pytest

from fewstep.experiments.repeat.result import RepeatResult
from fewstep.experiments.workers import Job


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions without processes, and no pictures."""

    def in_this_process(jobs: Sequence[Job], **_: Any) -> list[Any]:
        return [job.function(*job.arguments, lambda _: None) for job in jobs]

    monkeypatch.setattr("fewstep.experiments.engines.Local.run", staticmethod(in_this_process))
    monkeypatch.setattr("fewstep.experiments.search.report.draw", lambda *_: b"")
    monkeypatch.setattr(RepeatResult, "picture", lambda *_: b"")
