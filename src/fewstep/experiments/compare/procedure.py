"""Runs and recipes judged on the same tasks, beside each other: ``fewstep compare``.

What is compared must have met the same tasks, and that is looked at rather than believed: the sources of all methods
are held against each other before anything is trained or tested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fewstep.data import TaskSource
from fewstep.evaluation import evaluate
from fewstep.evaluation.scoring import NEAREST_MEAN, RIDGE
from fewstep.experiments.compare.result import Comparison
from fewstep.experiments.compare.same_tasks import task_difference
from fewstep.experiments.compare.scored import WITHOUT_EFFECT, ScoredMethod, TestBar, judge_run, setting_text
from fewstep.experiments.environment import machine
from fewstep.experiments.folder import fingerprint, is_run, stored_config
from fewstep.experiments.run import TEST_BATCH, Run
from fewstep.recipes import RECIPES, Config, dotted
from fewstep.recipes.problems.problem import Split
from fewstep.training.checkpoint import LAST, read_state
from fewstep.training.trainer import Progress

logger = logging.getLogger("fewstep")

TrainingBar: TypeAlias = Callable[[int], AbstractContextManager[Progress | None]]
"""Shows a training of so many meta-steps."""

OF_TRAINING = ("data.queries", "data.rotations", "data.train_ways", "data.train_shots")
"""Settings of data that do not concern tests."""


@dataclass(frozen=True)
class _Entry:
    """One argument: a run, or a recipe with the folder of the run that it becomes."""

    argument: str
    config: Config
    folder: Path
    trained_here: bool


@dataclass(frozen=True)
class _Protocol:
    """The tasks, in numbers that are the same for every method."""

    split: Split
    tasks: int
    seed: int
    counts: Mapping[str, int | None]

    def source(self, run: Run) -> TaskSource:
        return run.problem.source(self.split, tasks=min(self.tasks, TEST_BATCH), seed=self.seed, **self.counts)

    @property
    def last(self) -> int:
        """The last step that is asked for."""
        return (self.tasks - 1) // min(self.tasks, TEST_BATCH)


def compare(
    methods: Sequence[str | Path],
    *,
    out: str | Path,
    split: Split = "test",
    tasks: int | None = None,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    reference: str | None = None,
    note: Callable[[str], None] = logger.info,
    training_bar: TrainingBar = lambda _: nullcontext(),
    test_bar: TestBar = lambda _: nullcontext(),
) -> Comparison:
    """Judge several methods on the same tasks, and write the comparison.

    Scores are kept in ``out/judged``: a comparison that is stopped, or given more methods, tests none twice.

    Counts that are omitted are those of the first method's test, for all: its ``testing`` settings, the first of its
    ``shots`` if it has several. Tests run one after another on this machine, with one number of threads.

    Args:
        methods: folders of runs, or names of recipes. A recipe is trained in ``out/runs/RECIPE`` with its own settings
            and seed 0, from where that folder stands. A run that has not finished is judged by its best meta-parameters
            so far.
        out: folder that gets the files of :meth:`Comparison.write`; those of an earlier comparison are replaced.
        split: classes, or the stream of curves, to draw tasks from.
        tasks: how many.
        seed: of the tasks.
        ways: N, classes in a task.
        shots: K, support examples of each class.
        queries: query examples of each class; all that remain when omitted there too.
        reference: whose differences are shown: a method as given or as labelled, or a baseline as labelled; the first
            method when omitted.
        note: told, in a line, what is being done.
        training_bar: a context that shows a training's progress.
        test_bar: a context that shows a test's progress.

    Raises:
        ValueError: when an argument is neither a run nor a recipe, a method has other tasks than the first or cannot
            solve them, regression meets classification, or a reference is not there.
    """
    folder = Path(out)
    entries = _resolve(methods, folder)
    labels = _labels(entries)
    threads = torch.get_num_threads()
    try:
        protocol, shown, kinds = _checked(entries, labels, split, tasks, seed, ways, shots, queries, threads, note)
        chosen = _reference(reference, entries, labels, [name for names in kinds.values() for name in names])
        for entry, label in zip(entries, labels, strict=True):
            if entry.trained_here:
                _train(entry, label, threads, note, training_bar)
        judgements: list[ScoredMethod] = []
        for entry, label in zip(entries, labels, strict=True):
            plain = kinds.get(label, ())
            key = fingerprint(entry.folder, asdict(protocol), list(plain), threads)
            kept = folder / "judged" / f"{key}.json"
            judged = ScoredMethod.read(kept)
            if judged is None:
                note(f"testing {label}")
                torch.set_num_threads(threads)
                run = Run.open(entry.folder, note)
                torch.set_num_threads(threads)  # a run's own number is for its training
                judged = judge_run(run, label, protocol.source(run), protocol.tasks, plain, test_bar)
                judged.write(kept)
            # A label depends on what else is compared.
            judgements.append(replace(judged, method=replace(judged.method, label=label)))
    finally:
        torch.set_num_threads(threads)
    rows = [judged.method for judged in judgements] + [row for judged in judgements for row in judged.baselines]
    first = judgements[0]
    comparison = Comparison(rows, first.score_name, first.higher_is_better, chosen, shown, machine(), threads)
    comparison.write(folder)
    return comparison


def _resolve(methods: Sequence[str | Path], out: Path) -> list[_Entry]:
    """What the arguments name."""
    if not methods:
        raise ValueError("nothing to compare: give folders of runs, or names of recipes.")
    entries = []
    for argument in map(str, methods):
        path = Path(argument)
        if is_run(path):
            entries.append(_Entry(argument, stored_config(path), path, False))
        elif argument in RECIPES:
            config = replace(RECIPES[argument](), seed=0)
            entries.append(_Entry(argument, config, out / "runs" / argument, True))
        else:
            raise ValueError(
                f"{argument} is neither the folder of a run (it has no config.json) nor a recipe: fewstep list shows "
                "the recipes."
            )
    for i, entry in enumerate(entries):
        for other in entries[:i]:
            if entry.folder.resolve() == other.folder.resolve():
                raise ValueError(f"{other.argument} and {entry.argument} are one run: give each method once.")
    return entries


def _labels(entries: Sequence[_Entry]) -> list[str]:
    """Names of rows: the recipe, and what tells apart runs that share it."""
    labels = []
    settings = [dotted(entry.config) for entry in entries]
    for entry, own in zip(entries, settings, strict=True):
        recipe = entry.config.recipe
        kin = [other for other in settings if other["recipe"] == recipe]
        apart = [name for name in own if any(other.get(name) != own[name] for other in kin)]
        apart = [name for name in apart if name not in WITHOUT_EFFECT]
        what = ", ".join(f"{name}={setting_text(own[name])}" for name in apart)
        short = 0 < len(apart) <= 2 and len(what) <= 40
        labels.append(recipe if len(kin) == 1 else f"{recipe} {what}" if short else f"{recipe} ({entry.folder.name})")
    return [
        label if labels.count(label) == 1 else f"{entry.config.recipe} ({entry.folder})"
        for label, entry in zip(labels, entries, strict=True)
    ]


def _checked(
    entries: Sequence[_Entry],
    labels: Sequence[str],
    split: Split,
    tasks: int | None,
    seed: int | None,
    ways: int | None,
    shots: int | None,
    queries: int | None,
    threads: int,
    note: Callable[[str], None],
) -> tuple[_Protocol, dict[str, Any], dict[str, tuple[str, str]]]:
    """Open every method, and see that all have the same tasks and can solve them.

    Returns:
        The tasks; how to state them; and the labels of the baselines by that of the method that evaluates them, the
        first one of each kind of inputs.
    """
    testing = entries[0].config.testing
    wanted = {"tasks": tasks, "ways": ways, "shots": shots, "queries": queries}
    for name, number in wanted.items():
        if number is not None and number < (2 if name == "tasks" else 1):
            raise ValueError(f"{name} must be at least {2 if name == 'tasks' else 1}, got {number}.")
    given: dict[str, int | None] = {
        "shots": shots or next(iter(testing.shots), None),
        "queries": queries or testing.queries,
    }
    protocol = _Protocol(split, tasks or testing.tasks, testing.seed if seed is None else seed, given)
    first: TaskSource | None = None
    shown: dict[str, Any] = {}
    regression = False
    inputs: list[tuple[str, str, Tensor]] = []
    for entry, label in zip(entries, labels, strict=True):
        torch.set_num_threads(threads)
        run = _opened(entry, label, note)
        if first is None:
            regression = run.problem.regression
            run.check_ways(ways)
            if ways is not None:
                protocol = replace(protocol, counts={**given, "ways": ways})
            first = source = protocol.source(run)
            # From here on whatever the first source chose is asked of all.
            names = ("shots", "queries") if regression else ("ways", "shots", "queries")
            counts = {name: getattr(source, name) for name in names}
            protocol = replace(protocol, counts=counts)
            shown = _stated(run, source, protocol)
        else:
            if run.problem.regression != regression:
                kinds_of = {True: "a regression", False: "a classification"}
                raise ValueError(
                    f"{labels[0]} is {kinds_of[regression]} and {label} {kinds_of[not regression]}: they have no task "
                    "in common. Compare each kind by itself."
                )
            with _solving(label):
                source = protocol.source(run)
            words = task_difference(first, source, (labels[0], label), split, protocol.last)
            if words is not None:
                raise ValueError(
                    f"{labels[0]} and {label} do not have the same tasks: {words}. "
                    + _advice(entries[0].config, entry.config)
                )
        run.check_ways(source.ways)
        with _solving(label), run.at_test():
            evaluate(run.method, source, 1, unadapted=False, baselines=False, statistics=run.config.testing.statistics)
        if not regression:
            kind = "features" if run.problem.of_features else "images"
            x = source.batch(0, slice(0, 1)).support.x.detach().float().cpu()
            # Features of one network may differ by rounding from machine to machine; other features differ by far.
            if not any(x.shape == y.shape and torch.allclose(x, y, rtol=1e-3, atol=1e-4) for _, _, y in inputs):
                inputs.append((label, kind, x))
    kinds = [kind for _, kind, _ in inputs]
    described = {label: kind if kinds.count(kind) == 1 else f"{kind} of {label}" for label, kind, _ in inputs}
    return (
        protocol,
        shown,
        {label: (f"{NEAREST_MEAN} ({what})", f"{RIDGE} ({what})") for label, what in described.items()},
    )


def _opened(entry: _Entry, label: str, note: Callable[[str], None]) -> Run:
    if not entry.trained_here:
        return Run.open(entry.folder, note)
    return Run.continued(entry.config, entry.folder, note)


@contextmanager
def _solving(label: str) -> Iterator[None]:
    """A failure of what is inside names the method."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{label} cannot solve these tasks: {error}") from error


def _stated(run: Run, source: TaskSource, protocol: _Protocol) -> dict[str, Any]:
    """The protocol, for the reader of the comparison."""
    data = dict(run.problem.protocol)
    for name in ("training", "features", "features normalised"):  # these are the method's own
        data.pop(name, None)
    classes = data.pop("classes", None)
    stated = {**data, "evaluated on": protocol.split}
    if isinstance(classes, dict):
        stated["classes"] = classes[protocol.split]
    if source.ways is not None:
        stated["ways"] = source.ways
    queries = protocol.counts["queries"]
    return {
        **stated,
        "shots": protocol.counts["shots"],
        "queries": "all remaining" if queries is None else queries,
        "tasks": protocol.tasks,
        "task seed": protocol.seed,
    }


def _advice(first: Config, second: Config) -> str:
    one, other = dotted(first), dotted(second)
    names = sorted(name for name in one.keys() | other.keys() if name.startswith("data.") and name not in OF_TRAINING)
    apart = [
        f"{n}={setting_text(one[n])} and {setting_text(other[n])}"
        for n in names
        if n in one and n in other and one[n] != other[n] and n != "data.kind"
    ]
    settings = f"Their settings differ in {', '.join(apart)}. " if apart else ""
    return f"{settings}Train one of them with the data settings of the other (fewstep train --help), and compare those."


def _reference(wanted: str | None, entries: Sequence[_Entry], labels: Sequence[str], baselines: Sequence[str]) -> str:
    """The label that ``--reference`` means."""
    if wanted is None:
        return labels[0]
    if wanted in labels or wanted in baselines:
        return wanted
    for entry, label in zip(entries, labels, strict=True):
        if wanted in (entry.argument, entry.folder.name, str(entry.folder)):
            return label
    raise ValueError(f"there is no method {wanted!r} to refer to; there are {', '.join([*labels, *baselines])}.")


def _train(entry: _Entry, label: str, threads: int, note: Callable[[str], None], training_bar: TrainingBar) -> None:
    """Train a recipe from where its folder stands."""
    last = entry.folder / LAST
    if last.exists() and read_state(last).finished:
        note(f"{label}: trained already, in {entry.folder}")
        return
    note(f"training {label} in {entry.folder}")
    torch.set_num_threads(threads)
    run = Run.resume(entry.folder, note)
    with training_bar(entry.config.training.steps) as progress:
        run.train(progress)
