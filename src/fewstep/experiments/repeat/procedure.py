"""One configuration trained with several seeds and tested on the same tasks: ``fewstep repeat``.

Stage 3 of LEO's protocol (Rusu et al. 2019, section 4.2.2): the best configuration is trained anew with several seeds,
and the mean and the standard deviation of the test score over these runs are reported.
"""

from __future__ import annotations

import csv
import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch

from fewstep.data.storage.files import read_json, write_atomically
from fewstep.data.storage.lock import alone_after
from fewstep.evaluation import Evaluation
from fewstep.evaluation.scoring import is_own
from fewstep.experiments.asked import Baselines, check_tasks
from fewstep.experiments.begun import DATA, require_same_data, stored_problem
from fewstep.experiments.engines import Engine, Local
from fewstep.experiments.folder import all_or_nothing, fingerprint, is_run, require_same, stored_config
from fewstep.experiments.repeat.result import RepeatResult, TrainingSummary
from fewstep.experiments.repeat.tested import SeedScores
from fewstep.experiments.report.folders import write_own_page
from fewstep.experiments.results import tests_of
from fewstep.experiments.run import Run
from fewstep.experiments.workers import Job, Tell, Throttle
from fewstep.recipes import Config, dotted
from fewstep.training.checkpoint import LAST, State, newest, read_state
from fewstep.training.device import device_here, same_threads

__all__ = ["RepeatResult", "RunProgress", "repeat"]

logger = logging.getLogger("fewstep")

LEVELS: tuple[Baselines, ...] = ("none", "quick", "all")
"""Each has what those before it have."""

OFTEN = 0.2
"""Seconds between two messages of a run."""


class RunProgress(NamedTuple):
    """Where a run of a repetition stands.

    Attributes:
        seed: of the run.
        doing: what it does.
        done: meta-steps or test tasks.
        total: of these.
        best: its best validation score so far.
    """

    seed: int
    doing: Literal["training", "testing", "finished"]
    done: int
    total: int
    best: float | None = None


Progress: TypeAlias = Callable[[RunProgress], None]
"""Called with where a run is, several times a second while it goes on."""


def repeat(
    config: Config,
    *,
    seeds: Sequence[int],
    out: Path,
    workers: int | None = None,
    threads: int = 1,
    engine: Engine | None = None,
    baselines: Baselines = "quick",
    note: Callable[[str], None] = logger.info,
    progress: Progress = lambda _: None,
) -> RepeatResult:
    """Train a configuration once per seed, test every run on the same tasks, and write the result.

    Every run is an ordinary one in ``out/seed-S``, in a process of its own. With the same ``out`` a repetition goes on
    where it was stopped: finished runs and their tests are kept, interrupted ones resume to the same bits, and seeds
    can be added. It must be called from under ``if __name__ == "__main__":`` in a script, as its processes import it.

    Args:
        config: what to train; its ``seed`` and ``threads`` are replaced.
        seeds: of the runs, distinct; the test tasks are of ``config.testing.seed``, whatever the seed of a run.
        out: folder of the runs, and of the files of :meth:`RepeatResult.write`.
        workers: runs at once; when omitted, as many as cores and ``threads`` allow, and one on an accelerator.
        threads: CPU threads of each run.
        engine: where the runs are computed; processes of this machine when omitted.
        baselines: what else is scored on the tasks, once, in the test of one of the runs.
        note: is given a line about what takes time.
        progress: see :data:`Progress`.

    Raises:
        ValueError: for no seeds, seeds that repeat or are negative, numbers that are not positive, a configuration that
            cannot be run, an ``out`` that holds runs with other settings, or a run that failed (after the others).
        RuntimeError: when a run failed for a reason that does not explain itself.
        KeyboardInterrupt: when interrupted; what has been done up to the last checkpoints is kept.
    """
    out, seeds = Path(out), tuple(seeds)
    if not seeds:
        raise ValueError("there are no seeds to repeat the training with: give at least one, and two for an s.d.")
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct and not negative, got {', '.join(map(str, seeds))}.")
    engine = engine or Local()
    workers = engine.count(workers, threads, device_here(config.device))
    config = replace(config, seed=seeds[0], threads=threads)
    with all_or_nothing(out):
        wanted = dotted(config)
        for folder in filter(is_run, sorted(out.glob("seed-*"))):  # those of other seeds included
            require_same(folder, "a run", dotted(stored_config(folder)) | {"seed": config.seed}, wanted)
        folders = tuple(out / f"seed-{seed}" for seed in seeds)
        for seed, folder in zip(seeds, folders, strict=True):
            if is_run(folder) and (own := stored_config(folder).seed) != seed:
                raise ValueError(f"{folder} holds the run of seed {own}: rename it to seed-{own}.")
        names, asked = tests_of(config), LEVELS.index(baselines)
        kept = [min(_kept(folder, name) for name in names) for folder in folders]
        left = [(seed, folder) for seed, folder, level in zip(seeds, folders, kept, strict=True) if level < 0]
        scorer = None
        if max(kept) < asked:  # a run that is to be tested anyway, or else one whose test is done again
            left = left or [(seeds[0], folders[0])]
            scorer = left[0][0]
        if left:
            _open_once(config, folders, note)
            if len(left) < len(seeds):
                note(f"{len(seeds) - len(left)} of {len(seeds)} runs have been trained and tested already")

        def on_message(i: int, message: Any) -> None:
            if isinstance(message, str):
                note(f"seed {left[i][0]}: {message}")
            else:
                progress(message)

        jobs = []
        for seed, folder in left:
            arguments = replace(config, seed=seed), folder, baselines if seed == scorer else "none"
            jobs.append(Job(f"seed {seed}", _train_and_test, arguments))

        def look() -> None:
            for seed, folder in left if due() else []:
                at = seen(config, seed, folder)
                if at is not None and at != told.get(seed):
                    told[seed] = at
                    progress(at)

        due, told = Throttle(1.0), dict[int, RunProgress]()
        engine.run(jobs, workers=workers, threads=threads, on_message=on_message, look=look if engine.shared else None)
        result = collect(config, seeds, folders)
        result.write(out)
        write_own_page(out)
        return result


def seen(config: Config, seed: int, folder: Path) -> RunProgress | None:
    """Where a run on another machine is, from its folder; None where it is not begun."""
    file, steps = folder / "metrics.csv", config.training.steps
    lines = file.read_text(encoding="utf-8").split() if file.exists() else []
    if all(_kept(folder, name) >= 0 for name in tests_of(config)):
        return RunProgress(seed, "finished", 1, 1)
    if len(lines) < 2:
        return None
    step = int(lines[-1].partition(",")[0])
    return RunProgress(seed, "training", step, steps) if step < steps else RunProgress(seed, "testing", 0, steps)


def _open_once(config: Config, folders: Sequence[Path], note: Callable[[str], None]) -> None:
    """Fetch and prepare the data, which the processes would otherwise do all at once; errors come before training.

    Raises:
        ValueError: when they are not the data that the runs there are of, among others.
    """
    with same_threads():
        run = Run(replace(config, threads=None), Path("there is nothing here"), note)
        check_tasks(run.problem, config)
    now = run.problem.fingerprints()
    for folder in filter(is_run, folders):
        require_same_data(folder, stored_problem(folder).get(DATA, {}), now, config.recipe)
    del run
    gc.collect()  # the images and the network are of no use here
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _train_and_test(config: Config, folder: Path, baselines: Baselines, tell: Tell) -> None:
    """Train and test one run, from where its folder stands."""
    # A process of a repetition that was killed outlives it by a moment.
    with alone_after(folder, lambda: tell("waiting for another process that works in its folder")):
        _train_and_test_alone(config, folder, baselines, tell)


def _train_and_test_alone(config: Config, folder: Path, baselines: Baselines, tell: Tell) -> None:
    run = Run.continued(config, folder, tell)
    due = Throttle(OFTEN)
    best: float | None = None

    def training(state: State, _: dict[str, float]) -> None:
        if due():
            tell(RunProgress(config.seed, "training", state.step, config.training.steps, state.best))

    def testing(done: int, total: int) -> None:
        if due():
            tell(RunProgress(config.seed, "testing", done, total, best))

    best = run.train(training).state.best
    for name, shots in tests_of(config).items():
        if _kept(folder, name) < LEVELS.index(baselines):
            tell(RunProgress(config.seed, "testing", 0, config.testing.tasks, best))
            run.record(run.test(shots=shots, baselines=baselines, progress=testing), name)
            write_atomically(folder / f"{name}.key", f"{_key(folder, name)} {baselines}\n")
    tell(RunProgress(config.seed, "finished", 1, 1, best))


def _kept(folder: Path, name: str) -> int:
    """What baselines a test of this run as it stands has, in :data:`LEVELS`; −1 where it is absent or was replaced."""
    file = folder / f"{name}.key"
    key, _, baselines = file.read_text().strip().partition(" ") if file.exists() else ("", "", "")
    return LEVELS.index(baselines) if key == _key(folder, name) else -1


def _key(folder: Path, name: str) -> str:
    """What a test depends on, and what it found, in sixteen digits. The configuration has the tasks, seed and queries.

    A run that is trained on, an edited file, and another test in place of this one all change it.
    """
    return fingerprint(folder, files=(f"{name}.json", f"{name}_tasks.csv"))


def collect(config: Config, seeds: Sequence[int], folders: Sequence[Path]) -> RepeatResult:
    """The result of finished runs, from their folders."""
    tested = []
    for name in tests_of(config):
        found = [_read(folder, name) for folder in folders]
        first = found[0]
        # A run that has kept fewer checkpoints than another has no such mean to put beside that one's.
        own = [s for s in first.scores if is_own(s) and all(s in one.scores for one in found)]
        plain = {score: values for one in found[::-1] for score, values in one.scores.items() if not is_own(score)}
        protocol = [{n: v for n, v in one.protocol.items() if n != "training seed"} for one in found]
        for folder, one, stated in zip(folders, found, protocol, strict=True):
            # Features of one network may differ by rounding between machines, which now and then moves a query.
            others = [s for s in plain if s in one.scores and abs(one.scores[s] - plain[s]).mean() > 1e-3]
            if stated != protocol[0] or others:
                raise ValueError(
                    f"{folder} and {folders[0]} were not tested on the same tasks ({', '.join(others) or 'protocol'}): "
                    f"delete {folder / (name + '.key')}, and repeat to test that run again."
                )
        tested.append(
            SeedScores(
                name=name,
                scores={score: np.stack([one.scores[score] for one in found]) for score in own},
                baselines=plain,
                score_name=first.score_name,
                higher_is_better=first.higher_is_better,
                transductive=first.transductive,
                protocol=protocol[0],
            )
        )
    return RepeatResult(config, tuple(seeds), tuple(folders), tuple(map(_trained, folders)), tuple(tested))


def _read(folder: Path, name: str) -> Evaluation:
    """What :meth:`Run.record` wrote."""
    summary = read_json(folder / f"{name}.json")
    with (folder / f"{name}_tasks.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    columns = np.array([row[1:] for row in rows], np.float64).T.copy()
    return Evaluation(
        dict(zip(head[1:], columns, strict=True)),
        summary["score"],
        summary["higher_is_better"],
        summary["transductive"],
        summary["protocol"],
    )


def _trained(folder: Path) -> TrainingSummary:
    state = read_state(newest(folder) or folder / LAST)
    return TrainingSummary(state.step, state.best_step, state.best, state.seconds, state.nonfinite)
