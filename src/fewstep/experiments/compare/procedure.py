"""Runs and recipes tested on the same tasks, beside each other: ``fewstep compare``.

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
from fewstep.data.storage.lock import alone_after
from fewstep.evaluation.baselines import NEAREST_MEAN, RIDGE
from fewstep.experiments.asked import TEST_BATCH, check_ways, tasks_of
from fewstep.experiments.compare.result import Comparison
from fewstep.experiments.compare.same_tasks import task_difference
from fewstep.experiments.compare.scored import WITHOUT_EFFECT, ScoredMethod, TestBar, score_run, value_text
from fewstep.experiments.engines import Engine
from fewstep.experiments.environment import machine
from fewstep.experiments.folder import CONFIG, all_or_nothing, fingerprint, is_run, stored_config
from fewstep.experiments.report.folders import write_own_page
from fewstep.experiments.run import Run
from fewstep.experiments.workers import Job, Tell
from fewstep.recipes import RECIPES, Config, dotted
from fewstep.recipes.problems.problem import Split
from fewstep.training.checkpoint import newest, read_state
from fewstep.training.device import same_threads
from fewstep.training.trainer import Progress

logger = logging.getLogger("fewstep")

TrainingBar: TypeAlias = Callable[[int], AbstractContextManager[Progress | None]]
"""Shows a training of so many meta-steps."""

OF_TRAINING = tuple(
    f"data.{name}" for name in ("queries", "queries_of", "rotations", "train_ways", "train_shots", "fewest_shots")
)
"""Settings of data that do not concern tests."""


@dataclass(frozen=True)
class Entry:
    """One argument: a run, or a recipe with the folder of the run that it becomes."""

    argument: str
    config: Config
    folder: Path
    trained_here: bool = False
    label: str = ""

    def open(self, note: Callable[[str], None], device: str) -> Run:
        """The run, trained; that of a recipe as far as it is trained."""
        if self.trained_here:
            return Run.continued(self.config, self.folder, note)
        return Run.open(self.folder, note, device)


@dataclass(frozen=True)
class Protocol:
    """The tasks, in numbers that are the same for every method."""

    split: Split
    tasks: int
    seed: int
    counts: Mapping[str, int | None]

    def source(self, run: Run) -> TaskSource:
        """The tasks as this run is given them."""
        return run.problem.source(self.split, tasks=min(self.tasks, TEST_BATCH), seed=self.seed, **self.counts)

    @property
    def last(self) -> int:
        """The last step of a source that is asked for."""
        return (self.tasks - 1) // min(self.tasks, TEST_BATCH)


def compare(
    methods: Sequence[str | Path],
    *,
    out: str | Path,
    split: Split = "test",
    reference: str | None = None,
    note: Callable[[str], None] = logger.info,
    training_bar: TrainingBar = lambda _: nullcontext(),
    test_bar: TestBar = lambda _: nullcontext(),
    tasks: int | None = None,
    seed: int | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    device: str = "auto",
    engine: Engine | None = None,
) -> Comparison:
    """Test several methods on the same tasks, and write the comparison.

    Scores are kept in ``out/scores``: a comparison that is stopped, or given more methods, tests none twice.

    Counts that are omitted are those of the first method's test, for all: its ``testing`` settings, the first of its
    ``shots`` if it has several. Tests run one after another on this machine, with one number of threads.

    Args:
        methods: folders of runs, or names of recipes. A recipe is trained in ``out/runs/RECIPE`` with its own settings
            and seed 0, from where that folder stands. A run that has not finished is tested with its best
            meta-parameters so far.
        out: folder that gets the files of :meth:`Comparison.write`; those of an earlier comparison are replaced.
        split: classes, or the stream of curves, to draw tasks from.
        reference: whose differences are shown: a method as given or as labelled, or a baseline as labelled; the first
            method when omitted.
        note: is given a line about what is being done.
        training_bar: a context that shows a training's progress.
        test_bar: a context that shows a test's progress.
        tasks: number of test tasks.
        seed: of the tasks.
        ways: N, classes in a task.
        shots: K, support examples of each class.
        queries: query examples of each class; all that remain where neither says how many.
        device: to compute on; "auto" is for each run where it was trained, see
            :func:`~fewstep.training.device.device_of_trained`.
        engine: trains recipes; when omitted this process does, one after another.

    Raises:
        ValueError: when an argument is neither a run nor a recipe, a method has other tasks than the first or cannot
            solve them, regression meets classification, or a reference is not there.
    """
    for name, number in {"tasks": tasks, "ways": ways, "shots": shots, "queries": queries}.items():
        least = 2 if name in ("tasks", "ways") else 1
        if number is not None and number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}.")
    folder, note = Path(out), _once(note)
    with all_or_nothing(folder, work="scores/*.json"):
        entries = _resolve(methods, folder, device)
        testing = entries[0].config.testing
        shots = next(iter(testing.shots), None) if shots is None else shots
        asked = Protocol(split, *tasks_of(testing, tasks, seed, ways, shots, queries))
        protocol, shown, baselines = _checked(entries, asked, note, device)
        chosen = _reference(reference, entries, [name for names in baselines.values() for name in names])
        recipes = [entry for entry in entries if entry.trained_here]
        if engine is not None and engine.shared:
            _train_on(engine, recipes, note)
        else:
            for entry in recipes:
                _train(entry, note, training_bar)
        kept = folder / "scores"
        tested = [
            _tested(entry, protocol, baselines.get(entry.label, ()), kept, note, test_bar, device) for entry in entries
        ]
        rows = [one.method for one in tested] + [row for one in tested for row in one.baselines]
        first, threads = tested[0], torch.get_num_threads()
        comparison = Comparison(rows, first.score_name, first.higher_is_better, chosen, shown, machine(), threads)
        comparison.write(folder)
        write_own_page(folder)
        return comparison


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """The same, but for lines that it was given before: a run is opened more than once."""
    told = set[str]()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            note(line)

    return tell


def _resolve(methods: Sequence[str | Path], out: Path, device: str) -> list[Entry]:
    """What the arguments name."""
    if not methods:
        raise ValueError("nothing to compare: give folders of runs, or names of recipes.")
    entries = []
    for argument in map(str, methods):
        path = Path(argument)
        if is_run(path):
            entries.append(Entry(argument, stored_config(path), path))
        elif argument in RECIPES:
            config = replace(RECIPES[argument](), seed=0, device=device)
            entries.append(Entry(argument, config, out / "runs" / argument, True))
        else:
            raise ValueError(
                f"{argument} is neither the folder of a run (it has no {CONFIG}) nor a recipe: fewstep list shows "
                "the recipes."
            )
    for i, entry in enumerate(entries):
        for other in entries[:i]:
            if entry.folder.resolve() == other.folder.resolve():
                raise ValueError(f"{other.argument} and {entry.argument} are one run: give each method once.")
    return [replace(entry, label=label) for entry, label in zip(entries, row_labels(entries), strict=True)]


def row_labels(entries: Sequence[Entry]) -> list[str]:
    """Names of rows: the recipe, and the settings or the folder that no other run of the recipe has."""
    labels = []
    settings = [dotted(entry.config) for entry in entries]
    for entry, own in zip(entries, settings, strict=True):
        recipe = entry.config.recipe
        kin = [other for other in settings if other["recipe"] == recipe]
        names = [n for n in own if n not in WITHOUT_EFFECT and any(other.get(n) != own[n] for other in kin)]
        what = ", ".join(f"{name}={value_text(own[name])}" for name in names)
        short = 0 < len(names) <= 2 and len(what) <= 40
        labels.append(recipe if len(kin) == 1 else f"{recipe} {what}" if short else f"{recipe} ({entry.folder.name})")
    return [
        label if labels.count(label) == 1 else f"{entry.config.recipe} ({entry.folder})"
        for label, entry in zip(labels, entries, strict=True)
    ]


def _checked(
    entries: Sequence[Entry], asked: Protocol, note: Callable[[str], None], device: str
) -> tuple[Protocol, dict[str, Any], dict[str, tuple[str, str]]]:
    """Open every method, and see that all have the same tasks and can solve them.

    Returns:
        The tasks; how to state them; and the labels of the baselines by that of the method that evaluates them, the
        first one of each kind of inputs.
    """
    first: tuple[Run, TaskSource] | None = None
    protocol, leader = asked, entries[0]
    inputs: list[tuple[str, str, Tensor]] = []
    for entry in entries:
        label = entry.label
        with same_threads():
            run = entry.open(note, device)
            regression = run.problem.regression
            if first is None:
                check_ways(run.problem, run.method, run.config.recipe, asked.counts.get("ways"))
                source = asked.source(run)
                first = run, source
                # From here on whatever the first source chose is asked of all.
                names = ("shots", "queries") if regression else ("ways", "shots", "queries")
                protocol = replace(asked, counts={name: getattr(source, name) for name in names})
            else:
                if first[0].problem.regression != regression:
                    kind_of = {True: "a regression", False: "a classification"}
                    raise ValueError(
                        f"{leader.label} is {kind_of[not regression]} and {label} {kind_of[regression]}: they have no "
                        "task in common. Compare each kind by itself."
                    )
                with _solving(label):
                    source = protocol.source(run)
                if words := task_difference(first[1], source, (leader.label, label), protocol.split, protocol.last):
                    advice = _advice(leader.config, entry.config)
                    raise ValueError(f"{leader.label} and {label} do not have the same tasks: {words}. {advice}")
            check_ways(run.problem, run.method, run.config.recipe, source.ways)
            with _solving(label), run.at_test():
                run.score(source, 1)
        if not regression:
            kind = "features" if run.problem.of_features else "images"
            x = source.batch(0, slice(0, 1)).support.x.detach().float().cpu()
            # Features of one network may differ by rounding from machine to machine; other features differ by far.
            if not any(x.shape == y.shape and torch.allclose(x, y, rtol=1e-3, atol=1e-4) for _, _, y in inputs):
                inputs.append((label, kind, x))
    assert first is not None
    kinds = [kind for _, kind, _ in inputs]
    described = {label: kind if kinds.count(kind) == 1 else f"{kind} of {label}" for label, kind, _ in inputs}
    baselines = {label: (f"{NEAREST_MEAN} ({what})", f"{RIDGE} ({what})") for label, what in described.items()}
    return protocol, _stated(*first, protocol), baselines


@contextmanager
def _solving(label: str) -> Iterator[None]:
    """A failure of what is inside names the method."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{label} cannot solve these tasks: {error}") from error


def _stated(run: Run, source: TaskSource, protocol: Protocol) -> dict[str, Any]:
    """The protocol, for the reader of the comparison."""
    own = ("training", "features", "features normalised", "classes")  # the method's, and counts of every split
    stated = {name: value for name, value in run.problem.protocol.items() if name not in own}
    stated["evaluated on"] = protocol.split
    if isinstance(classes := run.problem.protocol.get("classes"), dict):
        stated["classes"] = classes[protocol.split]
    if source.ways is not None:
        stated["ways"] = source.ways
    queries = protocol.counts["queries"]
    stated |= {"shots": protocol.counts["shots"], "queries": "all remaining" if queries is None else queries}
    return stated | {"tasks": protocol.tasks, "task seed": protocol.seed}


def _advice(first: Config, second: Config) -> str:
    one, other = dotted(first), dotted(second)
    shared = sorted(name for name in one.keys() & other.keys() if name.startswith("data."))
    names = [name for name in shared if name not in (*OF_TRAINING, "data.kind")]
    found = [f"{n}={value_text(one[n])} and {value_text(other[n])}" for n in names if one[n] != other[n]]
    settings = f"Their settings differ in {', '.join(found)}. " if found else ""
    return f"{settings}Train one of them with the data settings of the other (fewstep train --help), and compare those."


def _reference(wanted: str | None, entries: Sequence[Entry], baselines: Sequence[str]) -> str:
    """The label that ``--reference`` means."""
    labels = [entry.label for entry in entries]
    if wanted is None:
        return labels[0]
    if wanted in labels or wanted in baselines:
        return wanted
    for entry in entries:
        if wanted in (entry.argument, entry.folder.name, str(entry.folder)):
            return entry.label
    raise ValueError(f"there is no method {wanted!r} to refer to; there are {', '.join([*labels, *baselines])}.")


def _train(entry: Entry, note: Callable[[str], None], training_bar: TrainingBar) -> None:
    """Train a recipe from where its folder stands."""
    last = newest(entry.folder)
    if last is not None and read_state(last).finished:
        note(f"{entry.label}: trained already, in {entry.folder}")
        return
    note(f"training {entry.label} in {entry.folder}")
    with same_threads():
        run = Run.resume(entry.folder, note)
        with training_bar(entry.config.training.steps) as progress:
            run.train(progress)


def _train_on(engine: Engine, recipes: Sequence[Entry], note: Callable[[str], None]) -> None:
    """Train recipes on a cluster, from where their folders stand."""
    jobs = [Job(entry.label, _train_there, (entry.config, entry.folder.resolve())) for entry in recipes]
    note(f"training {', '.join(entry.label for entry in recipes)} on the cluster")
    threads = torch.get_num_threads()
    engine.run(jobs, workers=engine.count(None, threads, "cpu"), threads=threads)


def _train_there(config: Config, folder: Path, tell: Tell) -> None:
    with alone_after(folder, lambda: tell("waiting for another process that works in its folder")):
        Run.continued(config, folder, tell).train()


def _tested(
    entry: Entry,
    protocol: Protocol,
    baselines: Sequence[str],
    kept: Path,
    note: Callable[[str], None],
    test_bar: TestBar,
    device: str,
) -> ScoredMethod:
    """The scores of a method: those of an earlier test of the same, where they are kept."""
    with same_threads() as threads:
        facts = asdict(protocol), list(baselines), threads, *(() if device == "auto" else (device,))
        file = kept / f"{fingerprint(entry.folder, *facts)}.json"
        scored = ScoredMethod.read(file)
        if scored is None:
            note(f"testing {entry.label}")
            run = Run.open(entry.folder, note, device)
            torch.set_num_threads(threads)  # a run's own number is for its training
            scored = score_run(run, entry.label, protocol.source(run), protocol.tasks, baselines, test_bar)
            scored.write(file)
    # A label depends on what else is compared.
    return replace(scored, method=replace(scored.method, label=entry.label))
