"""A small search in a process of its own, for the tests to kill."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from fewstep.experiments.search import SearchResult, report, search, study, worker
from fewstep.recipes import RECIPES, Config, Range

SPACE = (Range("training.rate", 1e-4, 1e-1, log=True), Range("method.rate", 0.001, 0.1))


def config(steps: int = 20) -> Config:
    sinusoid = RECIPES["maml-sinusoid"]()
    training = replace(
        sinusoid.training, steps=steps, tasks=4, validate_every=5, validation_tasks=10, log_every=5, checkpoint_every=5
    )
    return replace(sinusoid, training=training)


def run(out: Path, trials: int, workers: int = 1, **options: object) -> SearchResult:
    return search(config(), SPACE, trials=trials, out=out, workers=workers, prune=False, **options)  # type: ignore[arg-type]


def without_pictures() -> None:
    """They take longer than the search."""
    report.draw = lambda *_: b""


def kill_at(index: int, step: int) -> None:
    train = worker.Run.train

    def killed(self: worker.Run, progress: object) -> object:
        def die(state: object, metrics: object) -> None:
            progress(state, metrics)  # type: ignore[operator]
            if state.step == step and index in (-1, int(self.folder.name)):  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGKILL)

        return train(self, die)

    worker.Run.train = killed  # type: ignore[method-assign,assignment]


def process(out: Path, trials: int, workers: int, kill: tuple[int, int] | None = None, together: int = 1) -> None:
    """What a process does.

    Args:
        out: the search's folder.
        trials: in all.
        workers: of this process.
        kill: it kills itself after that meta-step (the second) of that configuration (the first), or of any for −1.
        together: it begins when so many processes are ready to.
    """
    study.HEARTBEAT, study.GRACE = 1, 2
    without_pictures()
    if kill:
        kill_at(*kill)
    ready = out.parent / "ready"
    ready.mkdir(exist_ok=True)
    (ready / str(os.getpid())).touch()
    while len(list(ready.iterdir())) < together:
        time.sleep(0.01)
    run(out, trials, workers)
