"""Table 2 of LEO's paper on any features: ``fewstep ablate``.

Every row gets what LEO gets: a random search of its own with as many trials of as many meta-steps, the best
configuration trained with the same seeds, and the same test tasks (Rusu et al. 2019, sections 4.2.2 and 4.3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from fewstep.core import Backprop, Learner, Method, Prototypes
from fewstep.data.storage.cache import npz
from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.reading import reading
from fewstep.evaluation.scoring import ADAPTED
from fewstep.evaluation.tables import write_files
from fewstep.experiments.ablate import AblatedRow, AblationResult, Budget
from fewstep.experiments.ablate.rows import Ablation, table_2
from fewstep.experiments.asked import TEST_BATCH, check_tasks
from fewstep.experiments.compare.scored import TestBar
from fewstep.experiments.engines import Engine
from fewstep.experiments.folder import all_or_nothing, claim, is_run, require_same, stored_config
from fewstep.experiments.repeat.procedure import Progress, RepeatResult, repeat
from fewstep.experiments.repeat.tested import Scores
from fewstep.experiments.report.folders import write_own_page
from fewstep.experiments.run import Run
from fewstep.experiments.search import SearchResult, Status, search
from fewstep.networks import Generated
from fewstep.recipes import Config, differences, dotted
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.training.device import same_threads

__all__ = ["SEEDS", "Ablation", "AblationResult", "ablate"]

logger = logging.getLogger("fewstep")

SEEDS = (1, 2, 3)
"""Of the final runs; 0 is that of the trials, whose luck is not to be tested again."""

PLAN = "ablation.json"
"""The file that says what a folder holds."""

SearchBar: TypeAlias = Callable[[], AbstractContextManager[Callable[[Status], None]]]
"""Shows a search."""
RunBars: TypeAlias = Callable[[], AbstractContextManager[Progress]]
"""Shows final runs."""

TrainOn = Literal["train", "trainval"]


def ablate(
    config: Config,
    *,
    out: Path,
    trials: int = 16,
    seeds: Sequence[int] = SEEDS,
    rows: Sequence[str] = (),
    final_steps: int | None = None,
    train_on: TrainOn | None = None,
    prune: bool = True,
    workers: int | None = None,
    engine: Engine | None = None,
    note: Callable[[str], None] = logger.info,
    search_bar: SearchBar = lambda: nullcontext(lambda _: None),
    run_bars: RunBars = lambda: nullcontext(lambda _: None),
    test_bar: TestBar = lambda _: nullcontext(),
) -> AblationResult:
    """Search, train and test every row of the paper's Table 2 with the same budget, and write the table.

    A row is in ``out/rows/SLUG``: ``search``, see :func:`~fewstep.experiments.search.search`, and ``runs``, see
    :func:`~fewstep.experiments.repeat.procedure.repeat`. With the same ``out`` everything goes on where it was
    stopped, and more trials, rows or seeds can be asked for; final runs of settings that more trials have bettered
    are set aside, not deleted. The table is written anew after every row. A row that fails is missing from it, and
    the others go on.

    Args:
        config: LEO on features; its data, outer loop and test are those of all rows, its seed that of the searches.
        out: folder of all of this, and of the files of :meth:`AblationResult.write`.
        trials: configurations in the search of each row.
        seeds: of the final runs of each row.
        rows: slugs of the rows wanted; all of them when empty.
        final_steps: meta-steps of the final runs; those of a trial when omitted.
        train_on: classes of the final runs; when omitted, "trainval" for stored features, as in the last stage of the
            paper, and "train" for other data. The searches are on training classes alone.
        prune: let a search stop trials early, by successive halving.
        workers: processes of a search, and runs at once; as many as there are cores for when omitted.
        engine: where trials and runs are computed; processes of this machine when omitted.
        note: is given a line about what takes time, and about the budget before anything else.
        search_bar: see :data:`SearchBar`.
        run_bars: see :data:`RunBars`.
        test_bar: see :data:`~fewstep.experiments.compare.scored.TestBar`.

    Raises:
        ValueError: when ``config`` is not LEO, cannot be run, or would be tested at several numbers of shots; for
            unknown rows; when ``out`` holds an ablation with other settings or more trials.
        KeyboardInterrupt: when interrupted; what has been done is kept.
    """
    out, seeds = Path(out), tuple(seeds)
    chosen = _chosen(table_2(config), rows, out)
    final = _final(config, final_steps, train_on)
    _check(config, trials, seeds)
    budget = Budget(len(chosen), trials, config.training.steps, len(seeds), final.training.steps, config.training.tasks)
    note(f"budget: {budget}")
    drawn: dict[str, Any] = {"trials": trials, "seed": config.seed, "prune": prune}
    spent: dict[str, Any] = {"workers": workers, "threads": config.threads_of_each, "engine": engine, "note": note}
    with all_or_nothing(out):
        _claim(out, config, final, trials, prune)
        baselines, protocol, score_name = _baselines(final, out, note, test_bar)
        trainval = isinstance(final.data, Embeddings) and final.data.train_on == "trainval"
        note(f"final runs are trained on {'training and validation' if trainval else 'training'} classes")
        blank = [AblatedRow(name=row.name, slug=row.slug, seeds=seeds) for row in chosen]
        table = AblationResult(blank, baselines, budget, protocol, score_name, prune, trainval)
        # What is done already comes first, so that a table that is begun again loses no row for long.
        for i, row in enumerate(sorted(chosen, key=lambda row: not _finished(out, row))):
            note(f"row {i + 1} of {len(chosen)}, {row.name}: search")
            done, folder = table.row(row.slug), out / "rows" / row.slug
            try:
                with search_bar() as progress:
                    found = search(row.config, row.space, out=folder / "search", progress=progress, **drawn, **spent)
                done = _searched(done, found)
                note(f"{row.name}: the best of {trials} trials validates at {found.value:.4f}; training it anew")
                steps = replace(found.config.training, steps=final.training.steps)
                best = replace(found.config, data=final.data, training=steps)
                _set_aside(folder / "runs", best, note)
                with run_bars() as shown:
                    repeated = repeat(best, seeds=seeds, out=folder / "runs", baselines="none", progress=shown, **spent)
                _check_tasks(row, repeated, protocol)
                nonfinite = sum(run.nonfinite for run in repeated.trained)
                done = replace(done, tested=repeated.tests[0], nonfinite=nonfinite)
            except Exception as error:  # a full disk, a locked database: the other rows have no part in it
                note(f"{row.name} failed: {error}")
                done = replace(done, failure=f"{error}")
            table = replace(table, rows=[done if one.slug == row.slug else one for one in table.rows])
            table.write(out)
        write_own_page(out)
        return table


def _finished(out: Path, row: Ablation) -> bool:
    return (out / "rows" / row.slug / "runs" / "repeat.json").exists()


def _chosen(all_rows: Sequence[Ablation], slugs: Sequence[str], out: Path) -> list[Ablation]:
    """The rows wanted, and those that are there already: one table has them all."""
    known = [row.slug for row in all_rows]
    if strange := [slug for slug in slugs if slug not in known]:
        raise ValueError(f"there is no row {strange[0]!r} in the ablation; there are {', '.join(known)}.")
    return [row for row in all_rows if not slugs or row.slug in slugs or _finished(out, row)]


def _final(config: Config, steps: int | None, train_on: TrainOn | None) -> Config:
    """What the final runs have instead of the searches' settings."""
    data = config.data
    if isinstance(data, Embeddings):
        if data.train_on != "train":
            raise ValueError(
                f"the searches are scored on validation classes, which their trials must not be trained on: leave "
                f"data.train-on={data.train_on} out. --train-on is of the final runs."
            )
        data = replace(data, train_on=train_on or "trainval")
    elif train_on == "trainval":
        raise ValueError(f"{type(data).__name__} cannot be trained on validation classes too: leave --train-on out.")
    training = config.training if steps is None else replace(config.training, steps=steps)
    return replace(config, data=data, training=training)


def _check(config: Config, trials: int, seeds: Sequence[int]) -> None:
    """What would otherwise fail in every row."""
    if trials < 1:
        raise ValueError(f"--trials must be at least 1, got {trials}.")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct and not negative, at least one; got {', '.join(map(str, seeds))}.")
    if len(config.testing.shots) > 1:
        raise ValueError(f"the table is of one number of shots, not of {config.testing.shots}: give one, or none.")
    if config.testing.tasks < 2:
        raise ValueError(f"an interval needs at least 2 test tasks, got {config.testing.tasks}.")


def _claim(out: Path, config: Config, final: Config, trials: int, prune: bool) -> None:
    """See that the folder is this ablation's, or make it so.

    Raises:
        ValueError: when it holds another one, or something else.
    """
    settings = dotted(config) | {
        "threads": config.threads_of_each,
        "--final-steps": final.training.steps,
        "--train-on": getattr(final.data, "train_on", None),
        "--prune": prune,
    }
    plan = {"trials": trials, "settings": settings}
    kept = claim(out, PLAN, plan, "an ablation")
    require_same(out, "an ablation", kept["settings"], settings)
    if trials < kept["trials"]:
        raise ValueError(
            f"{out} holds searches of {kept['trials']} trials, {trials} were asked for: every row must have had "
            f"as many, so give --trials {kept['trials']} or more, or another --out."
        )
    if trials > kept["trials"]:
        write_files(out, {PLAN: plan})


def _baselines(
    config: Config, out: Path, note: Callable[[str], None], test_bar: TestBar
) -> tuple[Mapping[str, Scores], Mapping[str, Any], str]:
    """Classifiers without meta-learning on the test tasks: scores by name, what the tasks are, and the score's name.

    This is also where data that cannot be opened, or cannot give such tasks, are found out before any training.
    """
    testing, file = config.testing, out / "baselines.npz"
    counted = replace(config, threads=config.threads_of_each, testing=replace(testing, steps=()))
    with same_threads():
        run = Run(counted, out / "no run", note)  # which is never written
        check_tasks(run.problem, config)
        score_name = run.method.learner.loss.score_name
        # Prototypes of the inputs themselves: of what can be tested beside the baselines, it costs the least.
        run.method = Method(Learner(Generated(), Prototypes(), []), Backprop())
        shots = testing.shots[0] if testing.shots else None
        if not file.exists():
            note(f"baselines on {testing.tasks:,} test tasks")
            with test_bar(testing.tasks) as progress:
                result = run.test(shots=shots, baselines="all", progress=progress)
            plain = {name: values for name, values in result.scores.items() if name != ADAPTED}
            write_atomically(file, npz(plain, compressed=False))
        anew = "delete it, and the same command makes it again"
        with reading(file, "holds no scores", anew), np.load(file, allow_pickle=False) as kept:
            scores = dict(kept)
        first = run.test(tasks=min(testing.tasks, TEST_BATCH), shots=shots)
    for name in first.scores.keys() & scores.keys():
        # Rounding may move a query now and then.
        if abs(scores[name][: first.tasks] - first.scores[name]).mean() > 1e-3:
            raise ValueError(
                f"the test tasks are no longer those that {out} was begun with ({name} scores otherwise on them): have "
                "the features changed? Give those of the beginning, or another --out."
            )
    return scores, _of_tasks(first.protocol) | {"tasks": testing.tasks}, score_name


_OF_A_RUN = ("recipe", "training", "trained on", "training seed", "evaluated on", "support rows", "query rows")
"""What :meth:`Run.test` says of a run rather than of its test tasks, or says twice."""


def _of_tasks(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What the protocol of a test says of its tasks."""
    protocol = {name: value for name, value in stated.items() if name not in _OF_A_RUN}
    classes = protocol.pop("classes", None)
    if isinstance(classes, dict):
        protocol["test classes"] = classes.get("test")
    return protocol


def _searched(row: AblatedRow, found: SearchResult) -> AblatedRow:
    best = next(one for one in found.rows if one.index == found.index)
    return replace(
        row,
        validation=found.value,
        found=dict(best.settings),
        best_step=best.best_step,
        trials=dict(found.trials),
        steps=sum(one.steps or 0 for one in found.rows),
    )


def _set_aside(runs: Path, best: Config, note: Callable[[str], None]) -> None:
    """Move runs of settings that were the best of fewer trials out of the way; the plan has made sure of the rest."""
    kept = [stored_config(folder) for folder in runs.glob("seed-*") if is_run(folder)]
    wanted = dotted(replace(best, seed=0, threads=None))
    if any(differences(dotted(replace(one, seed=0, threads=None)), wanted) for one in kept):
        number = 1
        while (aside := runs.with_name(f"runs-before-{number}")).exists():
            number += 1
        runs.rename(aside)
        note(f"{runs}: more trials have found a better configuration; runs of the former one are kept in {aside}")


def _check_tasks(row: Ablation, repeated: RepeatResult, protocol: Mapping[str, Any]) -> None:
    """See that the runs were tested on the tasks of this table.

    Raises:
        ValueError: when their protocol says something else of them.
    """
    stated = _of_tasks(repeated.first.protocol) | {"tasks": repeated.first.tasks}
    others = [name for name, value in protocol.items() if stated.get(name) != value]
    if others:
        words = "; ".join(f"{name}: {stated.get(name)}, not {protocol[name]}" for name in others)
        raise ValueError(f"{row.name} was not tested on the tasks of this table ({words}).")
