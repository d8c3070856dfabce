"""A meta-learner of scikit-learn: learns to learn from the classes of its ``y``, and adapts to others."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor

from fewstep.core import Batch
from fewstep.core.modes import as_usual
from fewstep.data import Dataset, EpisodeSampler, l2_normalise
from fewstep.data.checks import check_lengths
from fewstep.data.dataset import as_tensor
from fewstep.estimators.base import Inputs, array_of, rows_of_numbers
from fewstep.estimators.classifier import FewShotClassifier, labels_of
from fewstep.estimators.model import TrainedModel
from fewstep.estimators.opened import opened
from fewstep.evaluation import Evaluation, evaluate
from fewstep.evaluation.calibration import error_at, fit_temperature, query_logits
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, Config, dotted, to_json
from fewstep.recipes.config import from_text
from fewstep.recipes.problems.problem import Split
from fewstep.recipes.problems.stored_features import Embeddings

CALIBRATION_TASKS = 300


class ClassKFold(GroupKFold):  # type: ignore[misc]
    """Folds of classes: what is tested on is of classes that were not trained on.

    :class:`sklearn.model_selection.GroupKFold` whose groups are the labels.

    Args:
        n_splits: how many folds, at most as many as classes.
        shuffle: divide the classes at random instead of by their sizes.
        random_state: of that.

    Example:
        >>> y = np.array(list("aabbccdd"))
        >>> [np.unique(y[test]).tolist() for _, test in ClassKFold(2).split(np.zeros((8, 1)), y)]
        [['b', 'd'], ['a', 'c']]
    """

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        """Indices of training and test rows of each fold; ``groups`` is not looked at.

        Raises:
            ValueError: without labels, or with fewer classes than folds.
        """
        if y is None:
            raise ValueError("ClassKFold divides classes: give their labels as y.")
        return super().split(X, y, array_of(y))


class MetaLearner(BaseEstimator):  # type: ignore[misc]
    """Meta-trains a recipe on base classes, and makes classifiers of new ones from a few examples.

    ``fit`` holds some classes out by itself, by which the best meta-step, and what the method leaves to be chosen, are
    found. ``adapt`` gives a fitted :class:`~fewstep.FewShotClassifier` of other classes, and ``score`` is the mean
    accuracy over tasks of such.

    Args:
        recipe: on features of one's own, such as "leo-features-1shot" or "residual-prototypes-features-5shot";
            ``fewstep list`` has them.
        validation: the share of classes that is held out for validation, at least as many as a task has; or the labels
            of these classes. They should be as new to the network that made the features as those of a later task: of
            classes that it was trained on, features are tighter, and validation is too kind.
        calibrate: divide logits by a temperature, fitted on validation tasks, before they become probabilities.
        tasks: of a score.
        folder: of the run, where ``fit`` of the same data and settings goes on; in a temporary one when None.
        random_state: of the division of classes, of training and of the tasks of a score: a number.
        settings: of the recipe, by dotted names: ``MetaLearner(**{"training.rate": 1e-3})``. They are parameters like
            the others, for ``set_params`` and ``GridSearchCV``; ``fewstep show RECIPE`` has them all.

    Attributes:
        model_: what was trained; :class:`~fewstep.FewShotClassifier` takes it.
        classes_: the labels that it was trained on, those of validation included.
        validation_classes_: those that were held out.
        n_features_in_: width of a row.
        calibration_error_: expected calibration error on validation tasks "without" and "with" the temperature.

    Example:
        >>> rows, labels = classes.gather(np.arange(100)).numpy(), np.repeat(np.arange(5), 20)
        >>> short = {"training.steps": 4, "training.validate_every": 2, "training.validation_tasks": 4}
        >>> learner = MetaLearner("protonet-features-1shot", validation=0.4, **short | {"data.ways": 2})
        >>> new = learner.fit(rows, labels).adapt(rows[[0, 25, 50]], ["a", "b", "c"])
        >>> new.predict(rows[[1, 26, 51]]).shape
        (3,)
    """

    def __init__(
        self,
        recipe: Any = "leo-features-1shot",
        *,
        validation: Any = 0.25,
        calibrate: Any = True,
        tasks: Any = 1000,
        folder: Any = None,
        random_state: Any = 0,
        **settings: Any,
    ) -> None:
        self.recipe, self.validation, self.calibrate, self.tasks = recipe, validation, calibrate, tasks
        self.folder, self.random_state, self.settings = folder, random_state, settings

    # -- parameters ------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Arguments and given settings; ``deep``: all settings of the recipe too."""
        own: dict[str, Any] = super().get_params(deep)
        known = self._known() if deep and self.recipe in RECIPES else {}
        return own | known | self.settings

    def set_params(self, **params: Any) -> MetaLearner:
        """Change arguments and settings.

        Raises:
            ValueError: for one that there is not.
        """
        own = {name: value for name, value in params.items() if name in self._get_param_names()}
        super().set_params(**own)
        settings = {name: value for name, value in params.items() if name not in own}
        self._check(settings)
        self.settings = self.settings | settings
        return self

    def _known(self) -> dict[str, Any]:
        settings = dotted(RECIPES[self.recipe]())
        owned = ("seed", "recipe", "data.path")
        return {name: value for name, value in settings.items() if name not in owned and not name.endswith(".kind")}

    def _check(self, settings: Mapping[str, Any]) -> None:
        if self.recipe not in RECIPES:
            near = difflib.get_close_matches(str(self.recipe), RECIPES, 1)
            raise ValueError(f"MetaLearner: there is no recipe {self.recipe!r}{f'; {near[0]}?' if near else ''}")
        for name in settings.keys() - self._known().keys():
            near = difflib.get_close_matches(name, self._known(), 1)
            raise ValueError(f"MetaLearner: {self.recipe} has no setting {name!r}{f'; {near[0]}?' if near else ''}")

    def _config(self) -> Config:
        self._check(self.settings)
        if not isinstance(self.random_state, int | np.integer):
            raise ValueError(f"MetaLearner: random_state is a whole number, got {self.random_state!r}")
        config = RECIPES[self.recipe]()
        if not isinstance(config.data, Embeddings):
            raise ValueError(f"MetaLearner: {self.recipe} is not of features: take one named …-features-…")
        whole = json.loads(to_json(replace(config, seed=int(self.random_state))))
        for name, value in self.settings.items():
            *path, last = name.split(".")
            place = whole
            for step in path:
                place = place[step]
            place[last] = value
        return from_text(json.dumps(whole), "MetaLearner: what was given")

    # -- meta-training -----------------------------------------------------------------------------------------------

    @as_usual
    def fit(self, X: Inputs, y: Inputs) -> MetaLearner:
        """Meta-train on the classes in y.

        Args:
            X: features ``[rows, features]``.
            y: the class of each row.

        Returns:
            The meta-learner itself.

        Raises:
            ValueError: for rows that are not finite, settings that the recipe does not have, or too few classes or
                rows of a class for its tasks; the message says which.
        """
        x, labels = self._rows(X, y)
        classes = np.unique(labels)
        validation = self._validation(classes)
        held_out = np.isin(labels, validation)
        parts: dict[Split, tuple[NDArray[Any], NDArray[Any]]] = {
            "train": (x[~held_out], labels[~held_out]),
            "val": (x[held_out], labels[held_out]),
        }
        with tempfile.TemporaryDirectory() if self.folder is None else nullcontext(self.folder) as folder:
            self._train(Path(folder), parts)
        self.classes_, self.validation_classes_, self.n_features_in_ = classes, validation, x.shape[1]
        return self

    def _validation(self, classes: NDArray[Any]) -> NDArray[Any]:
        """The classes that are held out."""
        data = self._config().data
        assert isinstance(data, Embeddings), "it was checked"
        if np.ndim(self.validation):
            found = np.unique(array_of(self.validation))
            if unknown := sorted({*found.tolist()} - {*classes.tolist()}):
                raise ValueError(f"MetaLearner: validation names {len(unknown)} classes that y has not: {unknown[0]!r}")
        elif not 0 < float(self.validation) < 1:
            given = f"got {self.validation}"
            raise ValueError(f"MetaLearner: validation is a share of the classes, between 0 and 1, or classes; {given}")
        else:
            held = max(data.ways, round(float(self.validation) * len(classes)))
            found = np.sort(np.random.default_rng(int(self.random_state)).permutation(classes)[:held])
        if min(len(found), len(classes) - len(found)) < data.ways:
            raise ValueError(
                f"MetaLearner: y has {len(classes)} classes, of which validation takes {len(found)}: too few for "
                f"{data.ways}-way tasks in training and in validation; give more, or lower data.ways"
            )
        return found

    def _train(self, folder: Path, parts: Mapping[Split, tuple[NDArray[Any], NDArray[Any]]]) -> None:
        config = self._config()
        data, place = config.data, config.prepare_device()
        assert isinstance(data, Embeddings), "it was checked"
        examples = {split: self._dataset(x, labels, split, data.normalise) for split, (x, labels) in parts.items()}
        problem = replace(data.problem_of(examples, place, {}), normalise=data.normalise)
        run = Run.continued(config, folder, lambda _: None, problem)
        run.train()
        model = opened(run)
        assert isinstance(model, TrainedModel), "a run holds one"
        temperature, errors = 1.0, {}
        if self.calibrate:
            source = problem.source(
                "val", tasks=25, seed=config.testing.seed + 1, queries=problem.most_queries("val", 15)
            )
            logits, truth = query_logits(partial(_predict, model), source, CALIBRATION_TASKS)
            # The one of the greatest likelihood may be the worse calibrated one.
            temperature = min(1.0, fit_temperature(logits, truth), key=lambda t: error_at(logits, truth, t))
            errors = {"without": error_at(logits, truth, 1.0), "with": error_at(logits, truth, temperature)}
        self.model_, self.calibration_error_ = replace(model, temperature=temperature), errors

    @staticmethod
    def _dataset(x: NDArray[Any], labels: NDArray[Any], split: str, normalise: bool) -> Dataset:
        given = as_tensor(x)
        rows = given.float()
        rows = l2_normalise(rows) if normalise else rows
        check_lengths(rows, given, "X")
        return Dataset.from_labels(rows, labels.tolist(), name="X", split=split)

    @as_usual
    def adapt(self, X: Inputs, y: Inputs, sample_weight: Any = None) -> FewShotClassifier:
        """A classifier of new classes, fitted to a few examples; see :meth:`FewShotClassifier.fit`.

        Raises:
            NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self)
        return FewShotClassifier(self.model_).fit(X, y, sample_weight)

    @as_usual
    def evaluate(self, X: Inputs, y: Inputs) -> Evaluation:
        """Score tasks of classes that it was not trained on: ways, shots and queries are the recipe's.

        Beside it are nearest class mean, ridge regression and the method's own unadapted start, on the same tasks.

        Raises:
            NotFittedError: before :meth:`fit`.
            ValueError: for classes that it was trained on, or too few classes or rows of a class for the tasks.
        """
        check_is_fitted(self)
        x, labels = self._rows(X, y)
        if seen := sorted({*labels.tolist()} & {*self.classes_.tolist()}):
            raise ValueError(f"MetaLearner: {len(seen)} classes were trained on, such as {seen[0]!r}: score others")
        data, testing = self._config().data, self._config().testing
        assert isinstance(data, Embeddings), "it was checked"
        dataset = Dataset.from_labels(self.model_.rows(x), labels.tolist(), name="X")
        source = EpisodeSampler(
            dataset,
            ways=min(data.ways, dataset.classes),
            shots=data.shots,
            queries=testing.queries,
            tasks=min(100, int(self.tasks)),
            seed=int(self.random_state),
        )
        return evaluate(self.model_.own, source, int(self.tasks), statistics=self.model_.statistics)

    def score(self, X: Inputs, y: Inputs) -> float:
        """The mean accuracy of :meth:`evaluate`."""
        return float(self.evaluate(X, y).scores["adapted"].mean())

    def save(self, path: str | Path, *, licence: str = "") -> Path:
        """Write what was trained to a file, see :meth:`FewShotClassifier.save`."""
        check_is_fitted(self)
        return FewShotClassifier(self.model_).save(path, licence=licence)

    def _rows(self, x: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        rows: NDArray[Any] = check_array(rows_of_numbers(x, "X"), dtype=[np.float64, np.float32], input_name="X")
        return rows, labels_of(y, len(rows), "MetaLearner")


def _predict(model: TrainedModel, support: Batch, query: Batch) -> Tensor:
    points = model.own.adapt(support, statistics=model.statistics)
    return model.own.predict(points, query, support, statistics=model.statistics)
