"""Runs and recipes judged on the same tasks, beside each other: ``fewstep compare``.

What is compared must have met the same tasks, and that is looked at rather than believed: the sources of all methods
are held against each other before anything is trained or tested.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fewstep.data import TaskSource
from fewstep.environment import machine
from fewstep.evaluation import evaluate, inner_steps
from fewstep.evaluation.comparison import Compared, Comparison
from fewstep.evaluation.evaluate import ADAPTED, NEAREST_MEAN, RIDGE
from fewstep.evaluation.judged import Judged
from fewstep.evaluation.modes import descents
from fewstep.evaluation.same_tasks import told_apart
from fewstep.recipes import RECIPES, Config, flat
from fewstep.recipes.problems import Split
from fewstep.run import TEST_BATCH, Run, stored_config
from fewstep.training.checkpoint import read_state
from fewstep.training.trainer import Progress

logger = logging.getLogger("fewstep")

TrainingBar: TypeAlias = Callable[[int], AbstractContextManager[Progress | None]]
"""Shows a training of so many meta-steps."""
TestBar: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int, int], None] | None]]
"""Shows a test of so many tasks."""

WITHOUT_EFFECT = (
    "recipe", "device", "threads", "testing.tasks", "testing.seed", "testing.queries", "testing.shots", "testing.steps",
    "training.log_every", "training.checkpoint_every", "training.compile", "training.recompute",
)  # fmt: skip
"""Settings that do not tell two methods apart."""

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

    What was judged is kept in ``out/judged``: a comparison that is stopped, or given more methods, judges none twice.

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
        judgements: list[Judged] = []
        for entry, label in zip(entries, labels, strict=True):
            plain = kinds.get(label, ())
            kept = folder / "judged" / f"{_key(entry, protocol, plain, threads)}.json"
            judged = Judged.read(kept)
            if judged is None:
                note(f"testing {label}")
                torch.set_num_threads(threads)
                run = Run.open(entry.folder, note)
                torch.set_num_threads(threads)  # a run's own number is for its training
                judged = _judge(run, label, protocol, plain, test_bar)
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
        if (path / "config.json").exists():
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
    settings = [flat(entry.config) for entry in entries]
    for entry, own in zip(entries, settings, strict=True):
        recipe = entry.config.recipe
        kin = [other for other in settings if other["recipe"] == recipe]
        apart = [name for name in own if any(other.get(name) != own[name] for other in kin)]
        apart = [name for name in apart if name not in WITHOUT_EFFECT]
        what = ", ".join(f"{name}={_value(own[name])}" for name in apart)
        short = 0 < len(apart) <= 2 and len(what) <= 40
        labels.append(recipe if len(kin) == 1 else f"{recipe} {what}" if short else f"{recipe} ({entry.folder.name})")
    return [
        label if labels.count(label) == 1 else f"{entry.config.recipe} ({entry.folder})"
        for label, entry in zip(labels, entries, strict=True)
    ]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
            words = told_apart(first, source, (labels[0], label), split, protocol.last)
            if words is not None:
                raise ValueError(
                    f"{labels[0]} and {label} do not have the same tasks: {words}. "
                    + _advice(entries[0].config, entry.config)
                )
        run.check_ways(source.ways)
        with _solving(label), run.at_test():
            evaluate(
                run.method, source, 1, unadapted=False, baselines=False, statistics=run.config.testing.statistics
            )  # fmt: skip
        if not regression:
            kind = "features" if run.problem.of_features else "images"
            x = source.batch(0, slice(0, 1)).support.x.detach().float().cpu()
            # Features of one network may differ by rounding from machine to machine; other features differ by far.
            if not any(x.shape == y.shape and torch.allclose(x, y, rtol=1e-3, atol=1e-4) for _, _, y in inputs):
                inputs.append((label, kind, x))
    kinds = [kind for _, kind, _ in inputs]
    described = {label: kind if kinds.count(kind) == 1 else f"{kind} of {label}" for label, kind, _ in inputs}
    return protocol, shown, {
        label: (f"{NEAREST_MEAN} ({what})", f"{RIDGE} ({what})") for label, what in described.items()
    }  # fmt: skip


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
    one, other = flat(first), flat(second)
    names = sorted(name for name in one.keys() | other.keys() if name.startswith("data.") and name not in OF_TRAINING)
    apart = [f"{n}={_value(one[n])} and {_value(other[n])}" for n in names if n in one and n in other
             and one[n] != other[n] and n != "data.kind"]  # fmt: skip
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
    last = entry.folder / "last.safetensors"
    if last.exists() and read_state(last).finished:
        note(f"{label}: trained already, in {entry.folder}")
        return
    note(f"training {label} in {entry.folder}")
    torch.set_num_threads(threads)
    run = Run.resume(entry.folder, note)
    with training_bar(entry.config.training.steps) as progress:
        run.train(progress)


def _key(entry: _Entry, protocol: _Protocol, baselines: Sequence[str], threads: int) -> str:
    """What a judgement depends on, in sixteen digits."""
    files = [(entry.folder / name) for name in ("config.json", "best.safetensors", "last.safetensors")]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "" for file in files]
    facts = [version("fewstep"), asdict(protocol), list(baselines), threads, *digests]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _judge(run: Run, label: str, protocol: _Protocol, baselines: Sequence[str], test_bar: TestBar) -> Judged:
    """The row of a method, and those of the baselines on its inputs."""
    source, learner, config = protocol.source(run), run.method.learner, run.config
    executor = config.training.make_executor()

    def scored(plain: bool) -> Any:
        with test_bar(protocol.tasks) as progress:
            return evaluate(
                run.method, source, protocol.tasks, unadapted=False, baselines=plain, executor=executor,
                statistics=config.testing.statistics, progress=progress,
            )  # fmt: skip

    unadapted, rivals = None, None
    with run.at_test():
        taken = tuple(stage.steps for stage in descents(learner))
        began = time.perf_counter()
        adapted = scored(False)
        seconds = (time.perf_counter() - began) / protocol.tasks
        # In two passes, so that the time is that of the method alone.
        if taken:
            with inner_steps(learner, 0):
                rivals = scored(bool(baselines))
            unadapted = rivals.scores[ADAPTED]
        elif baselines:
            rivals = scored(True)
    row = Compared(
        label=label,
        scores=adapted.scores[ADAPTED],
        unadapted=unadapted,
        algorithm=type(config.method).__name__,
        inputs="" if run.problem.regression else "features" if run.problem.of_features else "images",
        inner_steps=taken,
        statistics=adapted.protocol.get("batch statistics"),
        transductive=adapted.transductive,
        test_seconds=seconds,
        **_training(run),
    )
    rows = []
    for name, score in zip(baselines, (NEAREST_MEAN, RIDGE), strict=False):
        assert rivals is not None
        kind = name.partition("(")[2].rstrip(")")
        rows.append(
            Compared(label=name, scores=rivals.scores[score], algorithm="no meta-learning", baseline=True, inputs=kind)
        )
    return Judged(row, tuple(rows), adapted.score_name, adapted.higher_is_better)


def _training(run: Run) -> dict[str, Any]:
    """What the run's folder says of its training."""
    config, best = run.config, read_state(run.folder / "best.safetensors")
    last = run.folder / "last.safetensors"
    state = read_state(last) if last.exists() else best
    notes = []
    if best.step != state.step:
        notes.append(f"tested as of meta-step {best.step:,}, the best in validation")
    if state.nonfinite:
        notes.append(f"{state.nonfinite:,} non-finite meta-steps")
    if changed := _changed(config):
        notes.append(f"settings of its own, not the recipe's ({changed})")
    facts = _json(run.folder / "environment.json")
    trained_on = run.problem.protocol.get("training") or f"{getattr(config.data, 'shots', '?')}-shot"
    return {
        "trained_on": trained_on,
        "steps": state.step,
        "planned": config.training.steps,
        "finished": state.finished,
        "best_step": best.step,
        "tasks_per_step": config.training.tasks,
        "training_seconds": state.seconds,
        "threads": facts.get("threads"),
        "machine": facts.get("machine"),
        "notes": tuple(notes),
        "published": tuple(map(str, RECIPES[config.recipe].published)) if config.recipe in RECIPES else (),
    }


def _changed(config: Config) -> str:
    """Settings in which a run differs from the recipe of its name, as that is in this version; briefly."""
    if config.recipe not in RECIPES:
        return ""
    own, recipe = flat(config), flat(RECIPES[config.recipe]())
    apart = [n for n in own if n not in WITHOUT_EFFECT and n != "seed" and n in recipe and own[n] != recipe[n]]
    shown = [f"{name}={_value(own[name])}" for name in apart[:3]]
    return ", ".join([*shown, *([f"and {len(apart) - 3} more"] if len(apart) > 3 else [])])


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
