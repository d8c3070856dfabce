"""A trained method as a classifier of the user's own data, in the style of scikit-learn."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.core import Batch, Loop, Method, Point
from fewstep.core.types import Statistics
from fewstep.data.features.normalise import l2_normalise
from fewstep.data.images.files import Reading
from fewstep.evaluation.inner_loop import evaluating, inner_steps

Inputs: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
Labels: TypeAlias = Sequence[Any] | NDArray[Any] | Tensor | None  # None so that its refusal can be explained


@final
class FewShotClassifier:
    """Adapts a meta-trained method to a few labelled examples, and classifies others.

    ``fit`` runs the inner loop from the method's start; meta-parameters are never changed, and fitting again begins
    anew. Any names of classes and unequal numbers of examples are fine; so is any number of classes, if the method
    generates its classifier (LEO) rather than adapting a last layer of fixed width.

    Inputs with two axes, ``[rows, features]``, are features; with four, ``[rows, channels, height, width]``, images,
    in the scaling that the method or the extractor was trained with.

    Args:
        method: meta-trained, or not.
        extractor: maps images to features ``[rows, features]``; without one, images go to the method's network.
        normalise: scale every row of features to unit length, as in LEO's training on embeddings.
        statistics: a batch-normalising network normalises queries by the rows of the ``"support"``; by those of the
            support ``"joined"`` by that one query (Reptile); by ``"running"`` statistics of the support along
            adaptation (Meta-LSTM); or by the rows of the ``"query"``, as MAML is usually meta-trained and tested, where
            a prediction depends on what else is asked (transductive).
        reading: how image files become images for it, for those who read any: ``reading.folder(path).images / 255``.
            None where that is not known, or where it takes features alone.

    Attributes:
        classes_: the labels, sorted, ``[ways]``; after ``fit``.

    Example:
        >>> model = FewShotClassifier(maml(nn.Linear(2, 2), rate=0.5, steps=10))
        >>> model.fit([[0.0, 1.0], [1.0, 0.0]], ["up", "right"]).predict([[0.1, 2.0], [2.0, 0.1]]).tolist()
        ['up', 'right']
        >>> model.classes_.tolist()
        ['right', 'up']
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        method: Method,
        extractor: Callable[[Tensor], Tensor] | None = None,
        *,
        normalise: bool = False,
        statistics: Statistics = "support",
        reading: Reading | None = None,
    ) -> None:
        if statistics not in get_args(Statistics):
            known = ", ".join(map(repr, get_args(Statistics)))
            raise ValueError(f"FewShotClassifier: statistics must be one of {known}, got {statistics!r}")
        self.method, self.extractor = method, extractor
        self.normalise, self.statistics, self.reading = normalise, statistics, reading
        self._fitted: tuple[Point, Batch] | None = None

    def fit(self, x: Inputs, y: Labels) -> "FewShotClassifier":
        """Adapt to a support set.

        Args:
            x: ``[rows, features]`` or images ``[rows, channels, height, width]``.
            y: a label a row: integers or strings, but not a mixture.

        Returns:
            The classifier itself.

        Raises:
            ValueError: for labels that are missing, of one class only or not one a row; inputs that are not finite or
                of a shape that the method does not take; and a method with another, fixed number of classes.
        """
        rows = self._rows(x, "fit")
        classes, index = _labels(y, len(rows))
        order = np.argsort(index, kind="stable")  # rows of a class side by side, as in every task of the library
        labels = torch.from_numpy(index[order]).to(rows.device)
        one_hot = nn.functional.one_hot(labels, len(classes)).to(rows.dtype)
        support = Batch(rows[torch.from_numpy(order).to(rows.device)], one_hot, rows.new_ones(len(rows)))
        with _inference(self.method.learner):
            self._probe(support)
            point = self._adapt(support)
        self._fitted, self.classes_ = (point, support), classes
        return self

    def predict(self, x: Inputs) -> NDArray[Any]:
        """The most probable label of each row, ``[rows]``, as it was given to :meth:`fit`.

        Raises:
            ValueError: as :meth:`predict_proba` says.
        """
        index = self._logits(x).argmax(-1).cpu().numpy()
        labels: NDArray[Any] = self.classes_[index]
        return labels

    def predict_proba(self, x: Inputs) -> NDArray[Any]:
        """The softmax of the logits, ``[rows, ways]``, columns in the order of ``classes_``.

        Raises:
            ValueError: before :meth:`fit`; for inputs that are not finite or unlike those given to :meth:`fit`.
        """
        return np.asarray(self._logits(x).softmax(-1).cpu().numpy())

    def score(self, x: Inputs, y: Labels) -> float:
        """The share of rows whose predicted label is right, in [0, 1]."""
        return float(np.mean(self.predict(x) == np.asarray(y)))

    def _logits(self, x: Inputs) -> Tensor:
        if self._fitted is None:
            raise ValueError("FewShotClassifier: it knows no classes yet: call fit(x, y) before predicting")
        point, support = self._fitted
        rows = self._rows(x, "predict")
        if rows.shape[1:] != support.x.shape[1:]:
            raise ValueError(
                f"FewShotClassifier.predict: rows have the shape {_shape(rows)}, but fit was given {_shape(support.x)}"
            )
        query = Batch(rows, rows.new_zeros(len(rows), len(self.classes_)), rows.new_ones(len(rows)))
        with _inference(self.method.learner):
            return self.method.learner.predict(point, query, support, statistics=self.statistics)

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _rows(self, x: Inputs, caller: str) -> Tensor:
        """What the method is given: features or images, in the dtype and on the device of its parameters."""
        where = f"FewShotClassifier.{caller}"
        like = next(self.method.learner.parameters())
        given = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
        if given.dim() not in (2, 4) or not len(given):
            raise ValueError(
                f"{where}: x must be features [rows, features] or images [rows, channels, height, width], with at "
                f"least one row; got the shape {tuple(given.shape)}"
            )
        rows, images = given, given.dim() == 4
        if images and self.extractor is not None:
            with _inference(self.extractor):
                rows, images = self.extractor(given), False
            if rows.dim() != 2 or len(rows) != len(given):
                raise ValueError(
                    f"{where}: the extractor must map {len(given)} images to features [{len(given)}, features], but "
                    f"gave the shape {tuple(rows.shape)}"
                )
        elif images and not given.is_floating_point():
            raise ValueError(
                f"{where}: images of type {given.dtype} reach the network as they are: scale them as in training "
                "(usually to floats in [0, 1])"
            )
        rows = rows.detach().to(like.device, like.dtype)
        finite = rows.flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            bad = (~finite).nonzero()[:, 0].tolist()
            raise ValueError(
                f"{where}: {len(bad)} of {len(rows)} rows of x hold NaN or infinity, the first is row {bad[0]}"
            )
        if self.normalise and images:
            raise ValueError(f"{where}: normalise is for features, but images are given and there is no extractor")
        return l2_normalise(rows) if self.normalise else rows

    def _probe(self, support: Batch) -> None:
        """Find out, before an inner step, whether the method takes these rows and this number of classes."""
        expected = _width(self.method)
        if expected is not None and support.x.dim() == 2 and support.x.shape[1] != expected:
            raise ValueError(
                f"FewShotClassifier.fit: rows have {support.x.shape[1]} features, but the method takes {expected}: "
                "use the features that it was meta-trained on"
            )
        learner = self.method.learner
        try:
            with inner_steps(learner, 0):
                outputs = learner.predict(self._adapt(support), support).shape[-1]
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(
                f"FewShotClassifier.fit: the method does not take rows of the shape {_shape(support.x)}: give what it "
                f"was meta-trained on, or an extractor ({error})"
            ) from error
        ways = support.y.shape[1]
        if outputs != ways:
            raise ValueError(
                f"FewShotClassifier.fit: {ways} classes were given, but the network has {outputs} outputs, a number "
                f"fixed in meta-training: give {outputs} classes, or use a method that generates its classifier (leo)"
            )

    def _adapt(self, support: Batch) -> Point:
        one: Batch = tree_map(lambda tensor: tensor[None], support)
        point: Point = tree_map(lambda tensor: tensor[0], self.method.adapt(one, Loop(), self.statistics))
        return point


@contextmanager
def _inference(function: object) -> Iterator[None]:
    """No graph, and evaluation mode where there are modes."""
    with torch.no_grad():
        if isinstance(function, nn.Module):
            with evaluating(function):
                yield
        else:
            yield


def _labels(y: Labels, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The sorted labels, and the index of each row's."""
    where = "FewShotClassifier.fit"
    if y is None:
        raise ValueError(f"{where}: y is None; a label is needed for each of the {rows} rows")
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.shape != (rows,):
        raise ValueError(f"{where}: y must hold one label for each of the {rows} rows, got the shape {labels.shape}")
    given = list(labels) if labels.dtype == object or isinstance(y, np.ndarray | Tensor) else list(y)
    absent = [i for i, label in enumerate(given) if label is None or label != label]
    if absent:
        raise ValueError(f"{where}: {len(absent)} of {rows} labels are missing, the first in row {absent[0]}")
    texts = sum(isinstance(label, str) for label in given)
    if 0 < texts < rows:
        # numpy would turn 1 and "1" into the same class.
        raise ValueError(f"{where}: {texts} of {rows} labels are text and the others are not: use one kind")
    classes, index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{where}: all {rows} rows are of the class {classes[0]!r}; at least two classes are needed")
    return classes, index.astype(np.int64)


def _width(method: Method) -> int | None:
    """The number of features that a method takes, where a part of it says so."""
    if method.learner.embedding is not None:
        return None
    declared = getattr(method.learner.start, "features", None)
    if isinstance(declared, int):
        return declared
    layers = (m for m in method.learner.network.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    first = next(layers, None)
    return first.in_features if isinstance(first, nn.Linear) else None


def _shape(rows: Tensor) -> str:
    return "×".join(map(str, rows.shape[1:]))
