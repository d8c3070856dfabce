"""A run: one configuration, one folder, everything that happened in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.core import Method, generator
from fewstep.core.modes import as_usual
from fewstep.core.ranges import as_given, require_again
from fewstep.core.ranks import ALONE, Ranks
from fewstep.core.types import Statistics
from fewstep.data import KnownTasks, TaskSource
from fewstep.data.features.normalise import mean_input
from fewstep.data.storage.files import json_text, sealed
from fewstep.data.storage.lock import alone_in
from fewstep.data.storage.tensors import digest_of
from fewstep.evaluation import Evaluation, MeanOutputs, evaluate, with_inner_loop
from fewstep.evaluation.baselines import Baseline
from fewstep.evaluation.choosing import choose
from fewstep.evaluation.scoring import ADAPTED, MEAN_OF
from fewstep.evaluation.tables import task_rows, write_files
from fewstep.experiments.asked import TEST_BATCH, Baselines, baselines_of, check_tasks, check_ways, tasks_of
from fewstep.experiments.begun import (
    CENTRE,
    DATA,
    kept_extractor,
    mark_of,
    require_as_begun,
    require_same_data,
    stored_problem,
    tell_unfinished,
)
from fewstep.experiments.environment import environment, record_memory, record_resumption
from fewstep.experiments.folder import (
    BEGINNING,
    CHOICES,
    CONFIG,
    ENVIRONMENT,
    EXTRACTOR,
    PROBLEM,
    begin_again,
    best_checkpoint,
    clear,
    data_of,
    is_run,
    require_empty,
    require_same,
    stored_config,
)
from fewstep.experiments.model_file import facts_of, trained_model, write_model
from fewstep.experiments.report import report
from fewstep.experiments.results import TEST, check_name, marked, own_result
from fewstep.recipes import Config, dotted, to_json
from fewstep.recipes.problems.images import CifarImages, ImageNetImages
from fewstep.recipes.problems.problem import SPLITS, Problem, Split
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.training import State, Trainer, load_checkpoint, save_checkpoint
from fewstep.training.candidates import candidates
from fewstep.training.checkpoint import newest, read_state, read_weights
from fewstep.training.device import device_here, device_of_trained
from fewstep.training.stopping import poll
from fewstep.training.timing import timed
from fewstep.training.trackers import Tracker
from fewstep.training.trainer import Progress

logger = logging.getLogger("fewstep")


CHOICE_QUERIES = 50
"""Of each class, in the validation tasks on which settings are chosen after training; fewer where there are fewer."""


class Run:
    """A folder with the configuration, log, checkpoints, test result and report of one meta-training.

    ``config.json`` · ``problem.json`` · ``environment.json`` · ``metrics.csv`` · checkpoints ``last`` and ``best``, and
    ``best-at-STEP`` (``training.keep``) · ``extractor.safetensors`` (features only) · ``test.json`` ·
    ``test_tasks.csv`` · ``report.md`` · ``report.html`` · ``learning_curves.png``

    Args:
        config: what to run.
        folder: where.
        note: is given a line about what takes time before training starts.
        problem: opened data, where they are others than the configuration says, in memory.

    Example:
        >>> config = RECIPES["maml-sinusoid"]()
        >>> short = replace(config.training, steps=2, validate_every=2, validation_tasks=4, compile="off")
        >>> run = Run.create(replace(config, training=short), Path("run"))
        >>> trained = run.train()
        >>> sorted(path.name for path in Path("run").glob("*.safetensors"))
        ['best.safetensors', 'last.safetensors']
    """

    @as_usual
    def __init__(
        self, config: Config, folder: Path, note: Callable[[str], None] = logger.info, problem: Problem | None = None
    ) -> None:
        self.config, self.folder = config, folder
        self.place = config.prepare_device()
        self.note, self.resumed = note, is_run(folder)
        self.tested: State | None = None  # of the checkpoint whose meta-parameters are in place; a training goes on
        extractor = kept_extractor(folder) if self.resumed else None
        self.problem: Problem = problem or config.data.open(self.place, note, extractor)
        if self.resumed and (kept := stored_problem(folder).get(DATA)):
            where = getattr(config.data, "path", None) or config.recipe
            require_same_data(folder, kept, self.problem.fingerprints(), where)
        # The global generator initialises the meta-parameters, and nothing else draws from it.
        torch.manual_seed(generator(config.seed, 0, "initialisation").initial_seed())
        self.method: Method = replace(config.method.build(self.problem), task_reduction=config.training.task_reduction)
        self.method.learner.to(self.place.device, self.place.dtype)
        self.method.learner.recompute = config.training.recompute

    ranks: Ranks = ALONE
    """The processes that share its tasks out; the first one writes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """In a pickle a run is its folder, opened where it is read."""
        return Run.open, (self.folder,)

    def __sklearn_clone__(self) -> Run:
        return self

    @classmethod
    def create(
        cls,
        config: Config,
        folder: str | Path,
        note: Callable[[str], None] = logger.info,
        problem: Problem | None = None,
    ) -> Run:
        """Start a new run; on data in memory, one that is not tested.

        Raises:
            ValueError: when the folder already holds files, or the data cannot serve the run's tasks; before
                anything is written.
        """
        folder = Path(folder)
        begin_again(folder, "run", CONFIG, BEGINNING)
        run = cls(replace(config, device=device_here(config.device)), folder, note, problem)
        check_tasks(run.problem, config, SPLITS if problem is None else ("train", "val"))
        open_settings = [setting.name for setting in run.method.alternatives if len(setting.options) > 1]
        if open_settings and getattr(config.data, "train_on", "train") != "train":
            raise ValueError(
                f"validation classes are trained on, so that they cannot choose {', '.join(open_settings)}: take what "
                "a run on the training classes alone has chosen (its choices.json) by --method.choices NAME OPTION ..."
            )
        problem, extractor = run.problem, run.problem.extractor
        shape = {"inputs": problem.inputs, "outputs": problem.outputs, "regression": problem.regression}
        shape |= {"normalise": problem.normalise, "features": extractor is not None}
        shape |= {DATA: problem.fingerprints()}
        if problem.of_features and problem.examples is not None:  # for its centred baseline, wherever the data are then
            shape |= {CENTRE: mean_input(problem.examples()).tolist()}
        facts = environment(run.config.device, config.dtype)
        with alone_in(folder):
            require_empty(folder, "run", CONFIG)
            if extractor is not None:
                extractor.save(folder / EXTRACTOR)
                shape |= {"extractor": digest_of(folder / EXTRACTOR)}
            write_files(
                folder, {ENVIRONMENT: sealed(facts), PROBLEM: json.dumps(shape) + "\n", CONFIG: to_json(run.config)}
            )
        return run

    @classmethod
    def continued(
        cls,
        config: Config,
        folder: str | Path,
        note: Callable[[str], None] = logger.info,
        problem: Problem | None = None,
    ) -> Run:
        """The run of a configuration in a folder: begun there, or continued to the same bits.

        Raises:
            ValueError: when the folder holds a run of other settings, which are named, or something else.
        """
        folder = Path(folder)
        if is_run(folder):
            require_same(folder, "a run", dotted(stored_config(folder)), dotted(config))
            return cls.resume(folder, note, problem=problem)
        return cls.create(config, folder, note, problem)

    @classmethod
    def resume(
        cls,
        folder: str | Path,
        note: Callable[[str], None] = logger.info,
        device: str = "auto",
        problem: Problem | None = None,
    ) -> Run:
        """Continue a run: on the device that it was begun on, to the same bits as if it had not been stopped.

        Args:
            folder: of the run.
            note: is given a line about what takes time, or goes on elsewhere than it was begun.
            device: to compute on, see :func:`~fewstep.training.device.device_of_trained`.
            problem: opened data, where it was begun on such, or the same ones lie elsewhere now.

        Raises:
            ValueError: when the folder is not a run, its settings are no longer taken, or another process works there.
        """
        folder = Path(folder)
        config = stored_config(folder)
        try:
            require_again(config)
        except ValueError as error:
            raise ValueError(
                f"{folder} cannot be trained with settings that are no longer taken ({error}): it can be evaluated and "
                "used as it is."
            ) from error
        run = cls._stored(folder, note, device, problem)
        with alone_in(folder):
            clear(folder)
        return run

    @classmethod
    @as_usual
    def open(
        cls,
        folder: str | Path,
        note: Callable[[str], None] = logger.info,
        device: str = "auto",
        problem: Problem | None = None,
    ) -> Run:
        """A trained run, with its best meta-parameters in place.

        Args:
            folder: of the run.
            note: is given a line about what takes time, or is computed elsewhere than it was trained.
            device: to compute on, see :func:`~fewstep.training.device.device_of_trained`.
            problem: opened data, where the same ones lie elsewhere now than when it was begun.

        Raises:
            ValueError: when there is no trained run in the folder, or no such device.
        """
        folder = Path(folder)
        run = cls._stored(folder, note, device, problem)
        run.tested = load_checkpoint(best_checkpoint(folder), run.method.learner, run=mark_of(folder))
        tell_unfinished(folder, note)
        return run

    @classmethod
    def joined(cls, begin: Callable[[], Run], folder: Path, ranks: Ranks, device: str = "auto") -> Run:
        """A run that several processes work on: the first one begins it, or goes on, and the others open it then.

        Args:
            begin: what the first one does.
            folder: of the run.
            ranks: the processes.
            device: to compute on, see :meth:`resume`.

        Raises:
            ValueError: when the folder of the first one is not there for another.
            RankLost: when the first one could not.
        """
        run = begin() if ranks.first else None
        ranks.wait()
        if not is_run(folder):
            raise ValueError(
                f"process {ranks.rank} does not find {folder}, which process 0 has begun: give a folder to --out that "
                "is there on all machines."
            )
        run = cls._stored(folder, logger.debug, device) if run is None else run
        run.ranks = ranks
        return run

    @classmethod
    def _stored(cls, folder: Path, note: Callable[[str], None], device: str, problem: Problem | None = None) -> Run:
        config = stored_config(folder)
        require_as_begun(folder)
        data = config.data
        if problem is None and isinstance(data, Embeddings | CifarImages | ImageNetImages) and data.path is not None:
            with as_given():
                config = replace(config, data=replace(data, path=data_of(data.path, note)))
        with as_given():
            config = replace(config, device=device_of_trained(config.device, device, note))
            return cls(config, folder, note, problem)

    def save(self, path: str | Path, *, licence: str = "") -> Path:
        """Write the best meta-parameters, and what they belong to, to one file: ``fewstep.load`` reads it.

        Args:
            path: ``NAME.fewstep.safetensors``; the suffix is appended where there is none.
            licence: under which others may use it, in words.

        Returns:
            The file, which holds arrays and settings and no code.

        Raises:
            ValueError: when the run has not been trained.
            OSError: if the file cannot be written.
        """
        learner = read_weights(best_checkpoint(self.folder))
        facts, extractor = facts_of(self.folder, self.note), kept_extractor(self.folder)
        described = trained_model(stored_config(self.folder), stored_problem(self.folder), facts, learner, extractor)
        return write_model(path, described, {"licence": licence})

    @as_usual
    def train(self, progress: Progress | None = None, trackers: Sequence[Tracker] = ()) -> Trainer:
        """Meta-train from where the folder stands; the best meta-parameters are in place afterwards.

        Args:
            progress: is told of every meta-step.
            trackers: told of what is logged, see :func:`~fewstep.training.trackers.tracked`.

        Raises:
            ValueError: when another process works in the folder.
            Stopped: after a checkpoint, when a signal asked for it inside :func:`~fewstep.training.stoppable`.
        """
        with alone_in(self.folder) if self.ranks.first else nullcontext():
            return self._train(progress, trackers)

    def _train(self, progress: Progress | None, trackers: Sequence[Tracker]) -> Trainer:
        options, testing = self.config.training, self.config.testing
        tasks = min(options.validation_tasks, TEST_BATCH)
        validation = self.problem.source("val", tasks=tasks, seed=testing.seed, queries=testing.queries)
        if newest(self.folder) is None:
            with self.at_test():  # what validation would refuse is refused before time is spent
                self.score(validation, 1)
        names = {name for setting in self.method.alternatives for values in setting.options.values() for name in values}
        undecided = {n: tensor.clone() for n, tensor in self.method.learner.state_dict().items() if n in names}
        source = self.problem.source("train", tasks=options.tasks, seed=self.config.seed)
        start = self.method.learner.start
        trainer = Trainer(
            self.method,
            KnownTasks(source, start.knows, start.others) if start.knows else source,
            options,
            lambda _: self._validated(validation),
            folder=self.folder,
            higher_is_better=not self.problem.regression,
            seed=self.config.seed,
            trackers=trackers,
            ranks=self.ranks,
            run=mark_of(self.folder),
        )
        if self.ranks.first and not trainer.state.finished:
            (self.folder / CHOICES).unlink(missing_ok=True)  # of a training that went back to an older checkpoint
            where = self.folder, self.config.device, self.config.dtype
            if self.resumed and (told := record_resumption(*where, trainer.state.step)):
                self.note(f"going on, to other last digits perhaps ({'; '.join(told)})")
        self.resumed, steps = True, trainer.state.step
        trainer.run(progress)
        if self.ranks.first and trainer.state.step > steps:
            record_memory(self.folder, str(self.place.device))
        if self.method.alternatives:
            trainer.state.best = self._chosen(trainer.state, undecided)
        return trainer

    @timed("choice of settings")
    def _chosen(self, state: State, undecided: Mapping[str, Tensor]) -> float | None:
        """Choose on validation tasks what they are to choose, once; the score of what was chosen."""
        best = best_checkpoint(self.folder)
        if self.ranks.most(self.ranks.first and not own_result(self.folder, CHOICES, self.note)):
            options, testing = self.config.training, self.config.testing
            # There are dozens of options, to be told apart by some of many queries.
            queries = testing.queries
            if queries is None:
                queries = self.problem.most_queries("val", CHOICE_QUERIES)
            tasks = min(options.validation_tasks, TEST_BATCH)
            source = self.problem.source("val", tasks=tasks, seed=testing.seed, queries=queries)
            self.method.learner.load_state_dict(dict(undecided), strict=False)
            with self.at_test():
                decisions = choose(self.method, source, options.validation_tasks, executor=options.make_executor())
            last = decisions[-1]
            score = float(last.scores[last.labels.index(last.chosen)].mean())
            if self.ranks.first:
                save_checkpoint(best, self.method.learner, replace(state, best=score), run=mark_of(self.folder))
                told: dict[str, Any] = {"split": "val", "task seed": self.config.testing.seed}
                told |= {"decisions": [d.to_dict() for d in decisions]}
                weights = self.method.learner.state_dict()
                write_files(self.folder, {CHOICES: json_text(marked(self.folder, told, weights))})
            self.ranks.wait()
        return read_state(best).best

    def _validated(self, source: TaskSource) -> float:
        with self.at_test():
            scores = self.score(source, self.config.training.validation_tasks, progress=lambda *_: poll()).scores
            return float(scores[ADAPTED].mean())

    @as_usual
    def score(self, source: TaskSource, tasks: int, **options: Any) -> Evaluation:
        """Evaluate the method on a source of tasks, with its own steps alone and without baselines.

        Args:
            source: of the tasks.
            tasks: how many of them.
            options: what is to be otherwise, see :func:`~fewstep.evaluation.evaluate`.
        """
        executor, statistics = self.config.training.make_executor(), self.config.testing.statistics
        own: dict[str, Any] = {"unadapted": False, "baselines": False, "executor": executor, "statistics": statistics}
        own["ranks"] = self.ranks if tasks > 1 else ALONE
        return evaluate(self.method, source, tasks, **own | options)

    @timed("test")
    @as_usual
    def test(
        self,
        split: Split = "test",
        *,
        tasks: int | None = None,
        seed: int | None = None,
        ways: int | None = None,
        shots: int | None = None,
        queries: int | None = None,
        statistics: Statistics | None = None,
        baselines: Baselines = "quick",
        progress: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Evaluate the method as it stands; what is omitted is as the recipe's ``testing`` says.

        The tasks depend on ``seed``, the split, ways and shots alone, so that methods can be compared task by task.
        The quick baselines are nearest class mean and ridge regression, and on features centred nearest class mean;
        for all see :func:`~fewstep.evaluation.all_baselines`, centred by the mean input of the meta-training classes.
        Regressions have those of their problem, and with all its yardsticks.

        Raises:
            ValueError: for counts that the data or the method cannot serve.
        """
        testing = self.config.testing
        check_ways(self.problem, self.method, self.config.recipe, ways)
        tasks, seed, counts = tasks_of(testing, tasks, seed, ways, shots, queries)
        source = self.problem.source(split, tasks=min(tasks, TEST_BATCH), seed=seed, **counts)
        protocol = {
            "recipe": self.config.recipe,
            **self.problem.protocol,
            "evaluated on": split,
            "shots": getattr(source, "shots", None),
            "queries": "all remaining" if getattr(source, "queries", 0) is None else getattr(source, "queries", None),
            "task seed": seed,
            "training seed": self.config.seed,
        }
        statistics = statistics or testing.statistics
        with self.at_test():
            return self.score(
                source,
                tasks,
                unadapted=True,
                baselines=baselines_of(self.problem, baselines),
                beside=self._mean_of_kept(statistics),
                steps=testing.steps,
                statistics=statistics,
                protocol=protocol,
                progress=progress,
            )

    def _mean_of_kept(self, statistics: Statistics | None) -> dict[str, Baseline]:
        """What several checkpoints that training has kept predict together, by name."""
        several = self.config.training.keep > 1
        members = candidates(self.folder, mark_of(self.folder)) if several else ()
        if len(members) < 2:
            return {}
        executor = self.config.training.make_executor()
        return {MEAN_OF.format(len(members)): MeanOutputs(self.method, members, statistics, executor)}

    def at_test(self) -> AbstractContextManager[None]:
        """A context in which the method takes the inner steps of validation and test."""
        return with_inner_loop(self.method.learner, **self.config.at_test())

    @timed("report")
    def record(self, evaluation: Evaluation, name: str = TEST) -> None:
        """Write ``NAME_tasks.csv``, then ``NAME.json``, and bring the reports up to date.

        With them goes a word for the meta-parameters as they stand, by which it is known later what they are of.

        Raises:
            ValueError: for a name that is none of a file in the folder, or that of another file of the run.
        """
        check_name(name)
        if not is_run(self.folder):
            raise ValueError(f"{self.folder} was moved or removed meanwhile: test the run from where it is now.")
        result = marked(self.folder, evaluation.to_json(), self.method.learner.state_dict())
        # With NAME.json an evaluation is complete, and its name is taken.
        write_files(self.folder, {f"{name}_tasks.csv": task_rows(evaluation.scores), f"{name}.json": result})
        report(self.folder)
