"""A trained method as a classifier for data of your own, in the style of scikit-learn."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewstep.core import Batch, Loop, Method, Point
from fewstep.core.types import Statistics
from fewstep.data.checks import check_unit_range
from fewstep.data.dataset import as_tensor
from fewstep.data.features.normalise import l2_normalise
from fewstep.data.images.files import Reading
from fewstep.estimators.base import Estimator, one_task
from fewstep.evaluation.inner_loop import evaluating

Inputs: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]
Labels: TypeAlias = Sequence[Any] | NDArray[Any] | Tensor | None  # None so that its refusal can be explained


@final
class FewShotClassifier(Estimator):
    """Adapts a meta-trained method to a few labelled examples, and classifies others.

    ``fit`` runs the inner loop from the method's start; meta-parameters are never changed, and fitting again begins
    anew. Any names of classes and unequal numbers of examples are fine; so is any number of classes, if the method
    generates its classifier (LEO) rather than adapting a last layer of fixed width.

    Inputs with two axes, ``[rows, features]``, are features; with four, ``[rows, channels, height, width]``, images,
    in the scaling that the method or the extractor was trained with. With ``tokens`` they are ``[rows, positions]``.

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
        tokens: inputs are indices into a table (``nn.Embedding``), and reach the network as int64.

    Attributes:
        classes_: the labels, sorted, ``[ways]``; after ``fit``.

    Example:
        >>> model = FewShotClassifier(maml(nn.Linear(2, 2), rate=0.5, steps=10))
        >>> model.fit([[0.0, 1.0], [1.0, 0.0]], ["up", "right"]).predict([[0.1, 2.0], [2.0, 0.1]]).tolist()
        ['up', 'right']
        >>> model.classes_.tolist()
        ['right', 'up']
    """

    learns: ClassVar[str] = "classes"
    classes_: NDArray[Any]
    _point: Point

    def __init__(
        self,
        method: Method,
        extractor: Callable[[Tensor], Tensor] | None = None,
        *,
        normalise: bool = False,
        statistics: Statistics = "support",
        reading: Reading | None = None,
        tokens: bool = False,
    ) -> None:
        super().__init__(method, statistics)
        self.extractor, self.normalise, self.reading, self.tokens = extractor, normalise, reading, tokens
        if tokens and (normalise or extractor is not None):
            raise self._error("tokens go to the network as they are: leave out normalise and extractor")

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
        classes, index = self._labels(y, len(rows))
        order = np.argsort(index, kind="stable")  # rows of a class side by side, as in every task of the library
        labels = torch.from_numpy(index[order]).to(rows.device)
        one_hot = nn.functional.one_hot(labels, len(classes)).to(next(self.method.learner.parameters()).dtype)
        support = one_task(rows[torch.from_numpy(order).to(rows.device)], one_hot)
        with evaluating(self.method.learner):
            self._check(support)
            self._point = self.method.adapt(support, Loop(), self.statistics)
        self._support, self.classes_ = support, classes
        return self

    def predict(self, x: Inputs) -> NDArray[Any]:
        """The most probable label of each row, ``[rows]``, as it was given to :meth:`fit`.

        Raises:
            ValueError: as :meth:`predict_proba` says.
        """
        index = self._logits(x).argmax(-1).cpu().numpy()
        return np.asarray(self.classes_[index])

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
        rows, support = self._query(x)
        query = one_task(rows, support.y.new_zeros(len(rows), len(self.classes_)))
        with evaluating(self.method.learner):
            return self.method.predict(self._point, query, support, Loop(), self.statistics)[0]

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _rows(self, x: Inputs, caller: str) -> Tensor:
        """What the method is given: features or images, in the dtype and on the device of its parameters."""
        given = x if isinstance(x, Tensor) else as_tensor(np.asarray(x))
        if given.dim() not in (2, 4) or not len(given):
            wanted = "features [rows, features] or images [rows, channels, height, width], with at least one row"
            raise self._error(f"x must be {wanted}; got the shape {tuple(given.shape)}", caller)
        if self.tokens:
            if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
                raise self._error(f"tokens are integers, but x is {given.dtype}: give it in an integer type", caller)
            return given.to(next(self.method.learner.parameters()).device, torch.int64)
        rows, images = given, given.dim() == 4
        if images and given.is_floating_point() and self.reading is not None:  # trained on images from 0 to 1
            check_unit_range(given, f"{type(self).__name__}.{caller}: x")
        if images and self.extractor is not None:
            mode = evaluating(self.extractor) if isinstance(self.extractor, nn.Module) else nullcontext()
            with torch.no_grad(), mode:
                rows, images = self.extractor(given), False
            if rows.dim() != 2 or len(rows) != len(given):
                wanted = f"map {len(given)} images to features [{len(given)}, features]"
                raise self._error(f"the extractor must {wanted}, but gave the shape {tuple(rows.shape)}", caller)
        elif images and not given.is_floating_point():
            scale = "scale them as in training (usually to floats in [0, 1])"
            raise self._error(f"images of type {given.dtype} reach the network as they are: {scale}", caller)
        rows = self._finite(rows, "x", caller)
        if self.normalise and images:
            raise self._error("normalise is for features, but images are given and there is no extractor", caller)
        return l2_normalise(rows) if self.normalise else rows

    def _labels(self, y: Labels, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The sorted labels, and the index of each row's."""
        if y is None:
            raise self._error(f"y is None; a label is needed for each of the {rows} rows", "fit")
        labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        if labels.shape != (rows,):
            wanted = f"one label for each of the {rows} rows"
            raise self._error(f"y must hold {wanted}, got the shape {labels.shape}", "fit")
        given = list(labels) if labels.dtype == object or isinstance(y, np.ndarray | Tensor) else list(y)
        if absent := [i for i, label in enumerate(given) if label is None or label != label or label == ""]:
            raise self._error(f"{len(absent)} of {rows} labels are missing, the first in row {absent[0]}", "fit")
        texts = sum(isinstance(label, str) for label in given)
        if 0 < texts < rows:
            # numpy would turn 1 and "1" into the same class.
            raise self._error(f"{texts} of {rows} labels are text and the others are not: use one kind", "fit")
        classes, index = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            only = f"all {rows} rows are of the class {classes[0]!r}"
            raise self._error(f"{only}; at least two classes are needed", "fit")
        return classes, index.astype(np.int64)

    def _check(self, support: Batch) -> None:
        """Find out, before an inner step, whether the method takes these rows and this number of classes."""
        features, expected = support.x.shape[2], _width(self.method)
        if expected is not None and support.x.dim() == 3 and features != expected:
            hint = "use the features that it was meta-trained on"
            raise self._error(f"rows have {features} features, but the method takes {expected}: {hint}", "fit")
        ways = support.y.shape[2]
        outputs = self._before_steps(
            support, f" in {ways} classes", ", or an extractor; tokens=True where rows are indices"
        )[-1]
        if outputs != ways:
            raise self._error(
                f"{ways} classes were given, but the network has {outputs} outputs, a number fixed in meta-training: "
                f"give {outputs} classes, or use a method that generates its classifier (leo)",
                "fit",
            )


def _width(method: Method) -> int | None:
    """The number of features that a method takes, where a part of it says so."""
    if method.learner.embedding is not None:
        return None
    declared = getattr(method.learner.start, "features", None)
    if isinstance(declared, int):
        return declared
    first = method.learner.network
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    return first.in_features if isinstance(first, nn.Linear) else None
