"""A pre-training that is stopped or killed, and continued in a new object, ends with the bits of one that was not."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from pretraining_driver import CASES, pretrainer
from safetensors.torch import load_file

import fewstep.training.pretraining.pretrainer
from fewstep.training.checkpoint import State, read_state
from fewstep.training.pretraining import Standardised

DRIVER = Path(__file__).with_name("pretraining_driver.py")


class Stopped(Exception):
    pass


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(DRIVER), str(folder), *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def assert_same_end(ours: Path, theirs: Path) -> None:
    """But for wall times: weights, running statistics, moments, counters and the log."""
    for name in ("last.safetensors", "best.safetensors"):
        found, expected = load_file(ours / name), load_file(theirs / name)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name
        states = [read_state(folder / name) for folder in (ours, theirs)]
        for state in states:
            state.seconds = state.sums["waiting"] = 0.0
        assert states[0] == states[1]
    assert (ours / "metrics.csv").read_bytes() == (theirs / "metrics.csv").read_bytes()


def assert_same_weights(ours: Standardised, theirs: Standardised) -> None:
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert not ours.training


@pytest.mark.parametrize("case", ["sgd", "adamw", "dropout", "stopping"])
def test_stopped_anywhere_and_continued(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fewstep.training.pretraining.pretrainer, "LOG_EVERY", 2)
    whole = pretrainer(tmp_path / "whole", case, seconds=1e9)
    expected = whole.run()
    moments = load_file(tmp_path / "whole/last.safetensors")
    kind = "exp_avg_sq" if CASES[case][0].optimiser == "adamw" else "momentum_buffer"
    assert moments[f"optimiser/backbone.head.weight/{kind}"].abs().max() > 0
    assert whole.drops == (case == "dropout")

    resumed_at, end = [], whole.state.step
    # Before anything is written; in the middle of an epoch, at its end, in the middle of another, and when all is done
    # but to load the best.
    for stop, seconds in ((2, 1e9), (2, 0.0), (5, 0.0), (9, 0.0), (end, 0.0), (None, 0.0)):

        def stopping(state: State, _: dict[str, float], stop: int | None = stop) -> None:
            if state.step == stop:
                raise Stopped

        torch.randn(3)  # whatever else the caller draws, nothing of it matters, and nothing of it is changed
        before = torch.get_rng_state()
        run = pretrainer(tmp_path / "stopped", case, seconds)
        resumed_at.append(run.state.step)
        with pytest.raises(Stopped) if stop else nullcontext():
            found = run.run(stopping)
        assert torch.equal(torch.get_rng_state(), before)
    assert resumed_at == [0, 0, 2, 5, 9, end]
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    assert_same_weights(found, expected)
    if case == "stopping":
        assert 10 < run.state.step < run.total
        assert run.state.stale == run.patience
        assert run.state.step - run.state.best_step == 2 * len(run.batches)


def test_killed_and_continued(tmp_path: Path) -> None:
    expected = pretrainer(tmp_path / "whole", "long").run()
    assert read_state(tmp_path / "whole/last.safetensors").step > 60
    folder = tmp_path / "killed"
    with started(folder, "long", "--kill-in-write", "5") as process:  # of last or of best
        assert process.wait(timeout=120) == -signal.SIGKILL
    assert list(folder.glob(".*.part")), "the kill was meant to come in the middle of a write"
    first = read_state(folder / "last.safetensors").step
    assert first > 0
    with started(folder, "long") as process:
        assert process.stdout is not None
        steps = (int(line.split()[1]) for line in process.stdout)
        assert next(steps) > first
        assert next(step for step in steps if step >= 20)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=120) == -signal.SIGKILL
    assert first < read_state(folder / "last.safetensors").step < 60, "the kill was meant to come before the end"
    random = torch.get_rng_state()
    found = pretrainer(folder, "long").run()
    assert torch.equal(torch.get_rng_state(), random)
    assert_same_end(folder, tmp_path / "whole")
    assert_same_weights(found, expected)
