"""Long work without a terminal, as in a file or a scheduler's log: lines instead of bars."""

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from fewstep.commands import console, progress
from fewstep.experiments.fit.procedure import Status as FitStatus
from fewstep.experiments.repeat.procedure import RunProgress
from fewstep.training import State
from fewstep.training.pretraining.report import how_far


class Clock:
    """Hours that take no time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> Callable[[], list[str]]:
    """What is printed from here on, on a wide terminal or none."""
    printed = io.StringIO()
    wide = Console(file=printed, force_terminal=terminal, width=200, log_path=False)
    for module in (console, progress):
        monkeypatch.setattr(module, "console", wide)
    return lambda: printed.getvalue().splitlines()


def test_how_far() -> None:
    assert how_far(300, 5000, 0.5, "batches") == "300 of 5,000 batches (6%), 0:39:10 left"
    assert how_far(0, 0, 1.0) == "0 of 0 (0%), 0:00:00 left"


def test_pretraining_says_total_share_and_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, state = shown(monkeypatch, terminal=False), State(step=400, seconds=800.0)  # resumed, slower then
    with progress.training_bar(1000, "pre-training", "batches") as advance:
        for step in range(420, 1020, 20):
            state.step = step
            advance(state, {"loss": 2.0})
            clock.now += 20.0  # for twenty batches
    said = [line for line in lines() if " of 1,000 batches" in line]
    assert len(said) == 15, "one in thirty seconds, of six hundred"
    assert "pre-training: 420 of 1,000 batches (42%), 0:18:25 left, loss 2.0000" in said[0]
    assert "pre-training: 460 of 1,000 batches (46%), 0:09:00 left" in said[1]


def test_a_terminal_has_its_bar_and_no_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=True)
    with progress.training_bar(100) as advance:
        advance(State(step=50, seconds=1.0), {"loss": 2.0})
    assert not [line for line in lines() if "50 of 100" in line]


def test_tests_and_repetitions_speak_when_they_take_long(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, terminal=False)
    with progress.test_bar(100) as test, progress.seed_bars() as seeds:
        for done in (10, 20):
            test(done, 100)
            seeds(RunProgress(3, "training", done, 200, 0.5))
            clock.now += 40.0
    said = [re.sub(r"^\[.*?\]\s*|^\s+", "", line).strip() for line in lines() if " of " in line]
    assert said == [
        "testing: 20 of 100 (20%), 0:05:20 left",
        "seed 3, training: 20 of 200 (10%), 0:12:00 left, best validation 0.5000",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_fit_shows_the_time_left_and_what_is_being_done(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    lines = shown(monkeypatch, terminal=terminal)
    with progress.fit_bar() as fit:
        for passed in (0.0, 10.0, 40.0):
            clock.now = 1000.0 + passed
            fit(FitStatus("search", passed, 165.0, {"LEO, trial 0": f"meta-step {passed:.0f}", "ProtoNet": ""}))
    said = re.sub(r"\x1b\[[\d;?]*\w", "", "".join(lines()))
    assert re.search(r"2:05 left:? LEO, trial 0: meta-step 40; ProtoNet", said)
    assert terminal or said.count("left") == 1
