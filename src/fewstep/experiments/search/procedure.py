"""A search: random configurations of a space, trained by several processes, and the best of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch

from fewstep.experiments.asked import check_tasks
from fewstep.experiments.engines import Engine, Local
from fewstep.experiments.folder import all_or_nothing, claim
from fewstep.experiments.report.folders import write_own_page
from fewstep.experiments.search import report
from fewstep.experiments.search import study as shared
from fewstep.experiments.search.result import SearchResult, Trial, found_in, ranked, rows_of
from fewstep.experiments.search.study import OF_STORAGE, Plan, in_one_line, join, quiet, storage_in, without_password
from fewstep.experiments.search.worker import serve, work
from fewstep.experiments.workers import Job, Throttle
from fewstep.recipes import Config, Range, differences, with_settings
from fewstep.recipes.problems.problem import Problem
from fewstep.training.device import device_here, same_threads

logger = logging.getLogger("fewstep")

REPLACEMENTS = 3
"""How often a worker that was killed is replaced."""

MARK = "search.json"
"""The file by which the folder of a search is known."""


@dataclass(frozen=True)
class Status:
    """How far a search has come.

    Attributes:
        finished: configurations that are complete, pruned or failed.
        total: all of them.
        pruned: of the finished.
        failed: of the finished.
        running: being trained now.
        best: the best complete one so far.
    """

    finished: int
    total: int
    pruned: int
    failed: int
    running: int
    best: Trial | None


def search(
    config: Config,
    space: Sequence[Range],
    *,
    trials: int,
    out: Path,
    storage: str | None = None,
    name: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    threads: int = 1,
    engine: Engine | None = None,
    prune: bool = True,
    note: Callable[[str], None] = logger.info,
    progress: Callable[[Status], None] = lambda _: None,
) -> SearchResult:
    """Train random configurations and keep the one that validates best.

    Configuration i depends on (seed, i) alone. Without pruning, so does its score: however many processes take part
    and however often they are killed, the result is the same. A search that is given again goes on where it stood, and
    one with more ``trials`` adds the further ones; several processes, on several machines if ``storage`` is a database
    that all of them reach, share the work when they are given the same search.

    With more than one worker, a script needs the usual ``if __name__ == "__main__":``.

    Args:
        config: what the ranges' settings are changed in. Its ``training.patience`` stops a trial early.
        space: what is drawn.
        trials: how many configurations, with those of earlier calls.
        out: folder of the search. It gets a run folder for each trial, and the files of :meth:`SearchResult.write`.
        storage: URL of a database, as Optuna takes it, or of a journal in a folder that machines share,
            ``journal:///FILE``; when omitted SQLite in ``out``, or a journal there for a cluster.
        name: of the study in there; the recipe's when omitted.
        seed: of the draws.
        workers: processes; 1 trains in this one. As many as there are cores for when omitted; one on a GPU.
        threads: CPU threads of each.
        engine: where trials are computed; processes of this machine when omitted.
        prune: stop trials early by successive halving, see :class:`~fewstep.experiments.search.halving.Halving`.
        note: is given a line about what takes time before the search starts.
        progress: called about every second with where the search stands.

    Raises:
        ValueError: when there is nothing to draw or to train, ``out`` or the study is of something else, the storage
            cannot be opened, or no configuration could be trained.
        OSError: when the disk or the study's storage cannot be read or written; with room again, the same call goes on.
        KeyboardInterrupt: after the workers have stopped; the same call goes on.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}.")
    engine = engine or Local()
    workers = engine.count(workers, threads, device_here(config.device))
    if not space:
        raise ValueError(f"nothing to search: {config.recipe} has no space.")
    if len({range.setting for range in space}) < len(space):
        raise ValueError("a setting occurs twice in the space: give each one range.")
    out = out.resolve()
    storage = storage or storage_in(out, engine.shared)
    asked, times = replace(config, threads=threads), (shared.HEARTBEAT, shared.GRACE)
    plan = Plan(asked, tuple(space), seed, storage, name or config.recipe, out, prune, True, *times)
    with same_threads():
        problem, score = _opened(plan, note)
    features = str(problem.protocol.get("features", ""))
    plan = replace(plan, higher_is_better=not problem.regression, features=features)
    plan = replace(plan, data=problem.fingerprints())
    with quiet(), in_one_line(plan.storage):
        with all_or_nothing(plan.out, among="in turn"):
            _claim(plan)
            study = join(plan, trials)
        due = Throttle(0.9)

        def look(study: optuna.Study, at_once: bool = False) -> None:
            if due() or at_once:
                with suppress(*OF_STORAGE):  # what a worker waits for, or fails by
                    progress(_status(rows_of(study, plan), plan))

        look(study)
        try:
            if min(workers, trials) == 1 and not engine.shared:
                with same_threads(), _without_warnings():
                    work(plan, look)
            else:
                _work_on(engine, plan, study, min(workers, trials), look)
        finally:
            report.write_table(rows_of(study, plan), out)
        look(study, at_once=True)
        found = found_in(study, plan, _protocol(plan, problem), score)
    found = replace(found, config=replace(found.config, threads=config.threads))
    report.write(found, out)
    write_own_page(out)
    return found


def _status(rows: Sequence[Trial], plan: Plan) -> Status:
    states, best = Counter(row.state for row in rows), next(iter(ranked(rows, plan.higher_is_better)), None)
    finished = states["complete"] + states["pruned"] + states["failed"]
    return Status(finished, len(rows), states["pruned"], states["failed"], states["running"], best)


def _opened(plan: Plan, note: Callable[[str], None]) -> tuple[Problem, str]:
    """The data, for what is wrong with it or with the settings is better said once, and early."""
    problem = plan.config.data.open(plan.config.prepare_device(), note, None)
    with torch.random.fork_rng(devices=()):
        for index in range(2):
            method = with_settings(plan.config, plan.draw(index)).method.build(problem)
    check_tasks(problem, plan.config, ("train", "val"))
    return problem, str(method.learner.loss.score_name)


def _claim(plan: Plan) -> None:
    """See that the folder is this search's, or make it so.

    Raises:
        ValueError: when it holds something else.
    """
    mark = {"recipe": plan.config.recipe, "study": plan.name, "storage": without_password(plan.storage)}
    if (place := Path(plan.storage.partition("///")[2])).is_relative_to(plan.out):
        mark["storage"] = str(place.relative_to(plan.out))  # so that the folder can be moved
    if others := differences(claim(plan.out, MARK, mark, "a search"), mark):
        raise ValueError(f"{plan.out} is the folder of another search ({others}): give another --out.")


def _protocol(plan: Plan, problem: Problem) -> Mapping[str, Any]:
    training, testing = plan.config.training, plan.config.testing
    queries: Any = testing.queries
    if queries is None:
        queries = "100" if problem.regression else "all remaining"
    return {
        **problem.protocol,
        "scored on": f"{training.validation_tasks} validation tasks, the same ones for every trial (task seed "
        f"{testing.seed}, queries: {queries})",
        "meta-steps": f"at most {training.steps} in a trial, a validation every {training.validate_every}"
        + (f", early stopping after {training.patience} without a new best" if training.patience else ""),
        "pruning": str(plan.halving or "none"),
        "seed of the draws": plan.seed,
        "training seed": plan.config.seed,
    }


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hundreds of trials would warn of their non-finite meta-steps; the table has the scores."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _work_on(
    engine: Engine, plan: Plan, study: optuna.Study, workers: int, look: Callable[[optuna.Study], None]
) -> None:
    """Have processes train until the study is done; one that is killed is replaced.

    Raises:
        ChildProcessError: when all have ended and there is still work.
    """
    jobs = [Job(f"worker {i + 1}", serve, (plan,), REPLACEMENTS) for i in range(workers)]
    failed = "they were stopped"  # by somebody else
    try:
        with _without_warnings():
            engine.run(jobs, workers=workers, threads=plan.config.threads_of_each, look=lambda: look(study))
    except (ValueError, RuntimeError) as error:  # the others have gone on
        failed = str(error)
    if left := sum(row.state in ("waiting", "running") for row in rows_of(study, plan)):
        raise ChildProcessError(
            f"the workers of the search have ended, with {left} trials to go ({failed}): give the same command again."
        )
