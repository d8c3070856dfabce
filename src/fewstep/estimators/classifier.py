"""A classifier of scikit-learn that learns from a few examples of each class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import nn

from fewstep.core import Batch, Point
from fewstep.core.modes import as_usual
from fewstep.data.images.files import Reading
from fewstep.estimators.base import Device, Estimator, Inputs, Learned, Normalised, array_of
from fewstep.estimators.model import Model, SimpleModel, one_task
from fewstep.evaluation.simple import Simple


class FewShotClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Adapts a model to a few labelled examples, and classifies others.

    ``fit`` runs the inner loop from the method's start; the model is never changed, and fitting again begins anew. Any
    names of classes and unequal numbers of examples are fine; so is any number of classes, if the method generates its
    classifier (LEO) rather than adapting a last layer of fixed width.

    Inputs with two axes, ``[rows, features]``, are features; with four, ``[rows, channels, height, width]``, images,
    in the scaling that the model was trained with. A fitted one may be asked by several threads at once.

    Args:
        model: what is adapted: the folder of a run, a :class:`~fewstep.Run`, a model's file, the name of one that ships
            with the package, a :class:`~fewstep.core.Method`, a
            :class:`~fewstep.estimators.model.TrainedModel` or a
            :class:`~fewstep.evaluation.simple.Simple` classifier. None: class means of rows that are centred by the
            support's mean and scaled to length 1, which needs no training and is hard to beat on good features.
        statistics: what a batch-normalising network normalises queries by, see
            :class:`~fewstep.estimators.model.TrainedModel`; None: as the model says.
        device: of a model that is read from a file or folder: "cpu", "cuda" or "cuda:1"; "auto" is where it was
            trained, or if this machine does not have that, a GPU or the CPU.

    Attributes:
        classes_: the labels, sorted, ``[ways]``; after ``fit``.
        n_features_in_: width of a row (of images, their channels).
        feature_names_in_: names of the columns, where ``fit`` was given a frame.
        model_: what was adapted.

    Example:
        >>> few = [[0.0, 1.0], [1.0, 0.0]]
        >>> FewShotClassifier().fit(few, ["up", "right"]).predict([[0.1, 2.0], [2.0, 0.1]]).tolist()
        ['up', 'right']
        >>> model = FewShotClassifier(maml(nn.Linear(2, 2), rate=0.5, steps=10)).fit(few, ["up", "right"])
        >>> model.classes_.tolist(), model.predict_proba(few).argmax(1).tolist()
        (['right', 'up'], [1, 0])
    """

    learns: ClassVar[str] = "classes"
    classes_: NDArray[Any]
    model_: Model
    _support: Batch
    _point: Point | None

    def __init__(self, model: Learned = None, *, statistics: Normalised = None, device: Device = "auto") -> None:
        self.model, self.statistics, self.device = model, statistics, device

    @as_usual
    def fit(self, X: Inputs, y: Inputs, sample_weight: Any = None) -> FewShotClassifier:
        """Adapt to a support set.

        Args:
            X: ``[rows, features]`` or images ``[rows, channels, height, width]``: an array, a frame or a tensor.
            y: a label a row: integers or strings, but not a mixture.
            sample_weight: ``[rows]``, ≥ 0: how much a row counts; twice is as if it were there twice. All alike when
                omitted.

        Returns:
            The classifier itself.

        Raises:
            ValueError: for labels that are missing, of one class only (but where the model is simple) or not one a
                row; inputs that are not finite or of a shape that the model does not take; and a model with another,
                fixed number of classes.
            TypeError: for a sparse matrix.
        """
        self.model_ = self._resolved()
        x = self._inputs(X, first=True)
        weight = self._weights(sample_weight, x)
        classes, index = np.unique(labels_of(y, len(x), type(self).__name__), return_inverse=True)
        if weight is not None:  # a row without weight is not there, nor is a class that has no other
            x, index, weight = x[weight > 0], index[weight > 0], weight[weight > 0]
            kept, index = np.unique(index, return_inverse=True)
            classes = classes[kept]
        order = np.argsort(index, kind="stable")  # rows of a class side by side, as in every task of the library
        rows = self._rows(x[order])
        if len(classes) < self.model_.least_classes:
            only = f"all {len(x)} rows are of one class, {classes.tolist()[0]!r}"
            raise self._error(f"{only}; at least two classes are needed")
        labels = torch.from_numpy(index[order]).to(rows.device)
        one_hot = nn.functional.one_hot(labels, len(classes))
        of = rows.dtype if rows.is_floating_point() else torch.get_default_dtype()
        scale = None if weight is None else torch.from_numpy(weight[order]).to(rows.device)
        self.classes_ = classes
        self._begin(one_task(rows, one_hot.to(of), scale))
        return self

    def _begin(self, support: Batch) -> None:
        statistics = self._statistics(self.model_)
        try:
            self.model_.check(support, statistics)
        except ValueError as error:
            raise self._error(str(error)) from error
        self._warn_of_transduction(self.model_)
        self._point, self._support = self.model_.adapt(support, statistics), support

    @property
    def reading(self) -> Reading | None:
        """How image files become images for it, where that is known: ``reading.folder(path).images / 255``."""
        return self._resolved().reading  # type: ignore[no-any-return]

    @as_usual
    def predict(self, X: Inputs) -> NDArray[Any]:
        """The most probable label of each row, ``[rows]``, as it was given to :meth:`fit`.

        Raises:
            NotFittedError: before :meth:`fit`.
            ValueError: for inputs that are not finite or unlike those given to :meth:`fit`.
        """
        index = self._logits(X).argmax(1)
        return np.asarray(self.classes_[index])

    @as_usual
    def predict_proba(self, X: Inputs) -> NDArray[Any]:
        """The softmax of the logits over the model's temperature, ``[rows, ways]``, columns as ``classes_``.

        Raises:
            As :meth:`predict`.
        """
        return np.asarray(torch.from_numpy(self._logits(X)).softmax(1).numpy())

    @as_usual
    def decision_function(self, X: Inputs) -> NDArray[Any]:
        """The logits over the temperature, ``[rows, ways]``; of two classes ``[rows]``, the second less the first.

        Raises:
            As :meth:`predict`.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _logits(self, x: Inputs) -> NDArray[Any]:
        rows = self._rows(self._query(x))
        fitted = self._support.x[0]
        if rows.shape[1:] != fitted.shape[1:]:
            raise self._error(f"X has rows of the shape {list(rows.shape[1:])}, fit was given {list(fitted.shape[1:])}")
        query = one_task(rows, self._support.y.new_zeros(len(rows), len(self.classes_)))
        found = self.model_.logits(self._point, query, self._support, self._statistics(self.model_))
        logits = np.asarray(found[0].double().cpu().numpy())
        if bad := np.flatnonzero(~np.isfinite(logits).all(1)).tolist():
            told = f"the model's predictions are not finite for {len(bad)} of {len(rows)} rows, first for row {bad[0]}"
            raise self._error(f"{told}: scale X as in training, or train with lower inner rates")
        return logits

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _default(self) -> Model:
        return SimpleModel(Simple(centre="support"))


def labels_of(y: Inputs, rows: int, where: str) -> NDArray[Any]:
    """The label of each row, ``[rows]``, of what a user gives.

    Args:
        y: labels of one kind.
        rows: how many there should be.
        where: who asks, for a message.

    Raises:
        ValueError: for labels that are missing, not one a row, of several kinds, or no classes.
    """
    if y is None:
        message = "requires y to be passed, but the target y is None: a label is needed for each row"
        raise ValueError(f"{where}: {message} of the {rows}")
    labels = array_of(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = column_or_1d(labels, warn=True)
    if labels.shape != (rows,):
        wanted = f"one label for each of the {rows} rows"
        raise ValueError(f"{where}: y must hold {wanted}, got the shape {labels.shape}")
    given = list(y) if isinstance(y, list | tuple) else list(labels)
    if absent := [i for i, label in enumerate(given) if label is None or label != label or label == ""]:
        raise ValueError(f"{where}: {len(absent)} of {rows} labels are missing, the first in row {absent[0]}")
    texts = sum(isinstance(label, str) for label in given)
    if 0 < texts < rows:
        # numpy would turn 1 and "1" into the same class.
        raise ValueError(f"{where}: {texts} of {rows} labels are text and the others are not: use one kind")
    if labels.dtype.kind == "c":  # which scikit-learn would print
        raise ValueError(f"{where}: Complex data not supported: labels are {labels.dtype}")
    check_classification_targets(labels)
    return labels
