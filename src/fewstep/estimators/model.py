"""What an estimator adapts: a trained method with all that rows need on their way to it, or a simple classifier."""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewstep.core import Batch, Loop, Method, Point
from fewstep.core.loss import cross_entropy
from fewstep.core.network.contextual import Contextual
from fewstep.core.network.heads import MemoryHead
from fewstep.core.types import Statistics
from fewstep.data.checks import check_unit_range
from fewstep.data.dataset import as_tensor
from fewstep.data.features.normalise import l2_normalise
from fewstep.data.images.files import Reading
from fewstep.evaluation.arrays import take
from fewstep.evaluation.baselines import CENTRED, LOGISTIC, NEAREST_MEAN, RIDGE
from fewstep.evaluation.inner_loop import evaluation_copy
from fewstep.evaluation.simple import Rule, Simple
from fewstep.experiments.begun import CENTRE
from fewstep.recipes import Config


class Model(ABC):
    """What an estimator adapts to its user's rows. Predictions write nothing into it: threads may share one."""

    reading: Reading | None = None
    """How image files become rows for it; None where that is not known, or where it takes features alone."""
    statistics: Statistics = "support"
    """What a batch-normalising network normalises queries by, where its user does not say."""
    least_classes: int = 2
    """Of a support."""

    @abstractmethod
    def rows(self, x: NDArray[Any]) -> Tensor:
        """Rows as it takes them, on its device and in its dtype, of inputs ``[rows, *features]``.

        Raises:
            ValueError: for inputs that it cannot take.
        """

    def placed(self, tensor: Tensor) -> Tensor:
        """A tensor on the device that it computes on."""
        return tensor

    @abstractmethod
    def check(self, support: Batch, statistics: Statistics) -> None:
        """Find out, before an inner step, whether it takes such rows and so many classes.

        Raises:
            ValueError: if not.
        """

    @abstractmethod
    def adapt(self, support: Batch, statistics: Statistics) -> Point | None:
        """Adapt to a batch of one task; None where nothing is kept but the support."""

    @abstractmethod
    def logits(self, point: Point | None, query: Batch, support: Batch, statistics: Statistics) -> Tensor:
        """Predictions ``[1, rows, ways]`` of the queries of one task."""


@final
class SimpleModel(Model):
    """A simple classifier, which is fitted anew for every prediction: that takes a millisecond.

    Args:
        simple: the classifier.
        facts: what there is to know of it, for a file.
        extractor: maps images to the features that it is of; without one, images are flattened.
        reading: how image files become images for the extractor.
    """

    least_classes = 1

    def __init__(
        self,
        simple: Simple,
        facts: Mapping[str, Any] | None = None,
        extractor: Callable[[Tensor], Tensor] | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.simple, self.facts, self.extractor, self.reading = simple, facts or {}, extractor, reading

    def __repr__(self) -> str:
        return str(self.simple)

    def rows(self, x: NDArray[Any]) -> Tensor:
        """Rows of features, in float64 unless they are float32."""
        rows = as_tensor(x)
        if rows.dim() == 4 and self.extractor is not None:
            rows = _features(self.extractor, rows, self.reading)
        rows = rows.flatten(1)
        return rows if rows.dtype in (torch.float32, torch.float64) else rows.double()

    def check(self, support: Batch, statistics: Statistics) -> None:
        """Rows must be as wide as the centre, where there is one."""
        self.simple(support, support)

    def adapt(self, support: Batch, statistics: Statistics) -> None:
        """Nothing is kept."""

    def logits(self, point: Point | None, query: Batch, support: Batch, statistics: Statistics) -> Tensor:
        """See :class:`~fewstep.evaluation.simple.Simple`; in the dtype of the support."""
        return self.simple(support, query._replace(x=query.x.to(support.x.dtype)))


@dataclass(frozen=True)
class Origin:
    """Where a trained model comes from: what a file of it holds besides its numbers.

    Attributes:
        config: of its run.
        problem: the shape of its tasks, as ``problem.json`` of a run has it.
        facts: what there is to know of it: protocol, test result, versions, licence.
    """

    config: Config
    problem: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel(Model):
    """A meta-trained method, with all that rows need on their way to it.

    It holds a copy of the method, in evaluation mode: what is trained afterwards is not seen. A network that runs has
    the task's weights in place of its own, so that each thread has a copy to run (:attr:`own`), of the same parameters.

    Attributes:
        method: meta-trained, or not.
        extractor: maps images to features ``[rows, features]``; without one, images go to the method's network.
        normalise: scale every row of features to unit length, as in LEO's training on embeddings.
        statistics: a batch-normalising network normalises queries by the rows of the ``"support"``; by those of the
            support ``"joined"`` by that one query (Reptile); by ``"running"`` statistics of the support along
            adaptation (Meta-LSTM); or by the rows of the ``"query"``, as MAML is usually meta-trained and tested, where
            a prediction depends on what else is asked (transductive). A method that answers queries together by design
            has these alone.
        reading: how image files become images for it, for those who read any: ``reading.folder(path).images / 255``.
            None where that is not known, or where it takes features alone.
        tokens: inputs are indices into a table (``nn.Embedding``), and reach the network as int64.
        temperature: logits are divided by it before they become probabilities.
        origin: where it comes from; with one it can be saved to a file.

    Raises:
        ValueError: for tokens with an extractor or normalised, or a temperature that is not positive and finite.

    Example:
        >>> model = TrainedModel(maml(nn.Linear(4, 2), rate=0.5), extractor=lambda images: images.flatten(1))
        >>> images = np.random.default_rng(0).random((6, 1, 2, 2))
        >>> FewShotClassifier(model).fit(images, list("ababab")).predict(images).shape
        (6,)
    """

    method: Method
    extractor: Callable[[Tensor], Tensor] | None = None
    normalise: bool = False
    statistics: Statistics = "support"
    reading: Reading | None = None
    tokens: bool = False
    temperature: float = 1.0
    origin: Origin | None = None
    _copies: threading.local = field(init=False)

    def __post_init__(self) -> None:
        if self.tokens and (self.normalise or self.extractor is not None):
            raise ValueError("TrainedModel: tokens reach the network as they are: leave out normalise and extractor.")
        if self.method.learner.transductive:  # which has no other statistics
            object.__setattr__(self, "statistics", "query")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"TrainedModel: the temperature must be positive and finite, got {self.temperature}.")
        object.__setattr__(self, "method", evaluation_copy(self.method))
        object.__setattr__(self, "_copies", threading.local())
        if isinstance(self.extractor, nn.Module) and self.extractor.training:
            object.__setattr__(self, "extractor", copy.deepcopy(self.extractor).eval())

    def __sklearn_clone__(self) -> TrainedModel:
        return self  # it never changes

    def __deepcopy__(self, memo: Any) -> TrainedModel:
        return self

    def __repr__(self) -> str:
        start = type(self.method.learner.start).__name__
        return f"TrainedModel({start if self.origin is None else self.origin.config.recipe})"

    def __getstate__(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self) if part.init}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    @property
    def own(self) -> Method:
        """The method, to run in this thread alone: its parameters are those of all."""
        if not hasattr(self._copies, "method"):
            self._copies.method = evaluation_copy(self.method, shared=True)
        return self._copies.method  # type: ignore[no-any-return]

    @property
    def _stepless(self) -> Method:
        """The same with no inner step."""
        if not hasattr(self._copies, "stepless"):
            self._copies.stepless = evaluation_copy(self.method, steps=0, shared=True)
        return self._copies.stepless  # type: ignore[no-any-return]

    def baseline(self, name: str) -> SimpleModel:
        """A baseline of its test, of rows on their way to this model: for whoever finds it the better one.

        Args:
            name: as tests have it: "nearest class mean", "nearest class mean, centred", "ridge" or "logistic
                regression". The centre is the mean of the meta-training classes, which runs on features keep.

        Raises:
            ValueError: for another one, a regression, and the centred one of a model that keeps no centre.
        """
        rules: dict[str, Rule] = {
            NEAREST_MEAN: "class means",
            CENTRED: "class means",
            RIDGE: "ridge",
            LOGISTIC: "logistic regression",
        }
        if self.regression or name not in rules:
            known = "a regression has none" if self.regression else f"there are {'; '.join(rules)}"
            raise ValueError(f"no baseline {name!r} of a model: {known}.")
        centre = None
        if name == CENTRED:
            if self.origin is None or CENTRE not in self.origin.problem:
                raise ValueError(f"{self!r} keeps no mean of its meta-training classes; runs on features do since 0.2.")
            centre = torch.tensor(self.origin.problem[CENTRE], dtype=torch.float64)
        simple = Simple(rules[name], centre=centre, normalise=self.normalise)
        return SimpleModel(simple, None, self.extractor, self.reading)

    @property
    def regression(self) -> bool:
        """Whether it predicts numbers rather than classes."""
        learner = self.method.learner
        # Heads that look at the labels of a support may have a loss of scores instead.
        of_classes = any(isinstance(module, MemoryHead) for module in learner.modules())
        return learner.loss.rows is not cross_entropy and not of_classes

    @cached_property
    def width(self) -> int | None:
        """The number of features that it takes, where that is known; of images None."""
        if self.origin is not None and len(self.origin.problem["inputs"]) == 1:
            return int(self.origin.problem["inputs"][0])
        return _width_of(self.method)

    @cached_property
    def _like(self) -> Tensor:
        return next(self.method.learner.parameters())

    def placed(self, tensor: Tensor) -> Tensor:
        """A tensor on the device of the method's parameters."""
        return tensor.to(self._like.device)

    @cached_property
    def _taken(self) -> dict[Any, tuple[int, ...]]:
        """Shapes of predictions by the forms of supports that were tried."""
        return {}

    def rows(self, x: NDArray[Any]) -> Tensor:
        """Features or images, in the dtype and on the device of the method's parameters; or tokens."""
        given = as_tensor(x)
        if x.ndim == 2 and self.width not in (None, x.shape[1]):
            hint = "give the features that it was meta-trained on"
            raise ValueError(f"X has {x.shape[1]} features, but the model takes {self.width}: {hint}")
        if self.tokens:
            if given.is_floating_point():
                raise ValueError(f"tokens are integers, but X is {given.dtype}: give it in an integer type")
            return given.to(self._like.device, torch.int64)
        images, rows = given.dim() == 4, given
        if images and self.extractor is not None:
            rows, images = _features(self.extractor, given, self.reading), False
        elif images and not given.is_floating_point():
            scale = "scale them as in training (usually to floats in [0, 1])"
            raise ValueError(f"images of type {given.dtype} reach the network as they are: {scale}")
        elif images and self.reading is not None:  # trained on images from 0 to 1
            check_unit_range(given, "X")
        if self.normalise and images:
            raise ValueError("normalise is for features, but images are given and there is no extractor")
        rows = rows.detach().to(self._like.device, self._like.dtype)
        return l2_normalise(rows) if self.normalise else rows

    def check(self, support: Batch, statistics: Statistics) -> None:
        """Try a prediction without a step, once for each form of rows and number of classes."""
        ways = support.y.shape[2]
        outputs = self.outputs(
            support, statistics, f" in {ways} classes", ", or an extractor; tokens=True where rows are indices"
        )[-1]
        if outputs != ways:
            raise ValueError(
                f"{ways} classes were given, but the network has {outputs} outputs, a number fixed in meta-training: "
                f"give {outputs} classes, or use a method that generates its classifier (leo)"
            )

    def outputs(self, support: Batch, statistics: Statistics, labels: str, remedy: str = "") -> tuple[int, ...]:
        """The shape of one task's predictions, found out before an inner step, once for each form of rows.

        Raises:
            ValueError: for rows that the method does not take.
        """
        form = (support.x.shape, support.x.dtype, support.y.shape, statistics)
        if form in self._taken:
            return self._taken[form]
        try:
            points = self._stepless.adapt(support, Loop())
            found = tuple(self._stepless.predict(points, support, executor=Loop()).shape[1:])
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            given = f"the model does not take rows of {width(support.x[0])}{labels}"
            raise ValueError(f"{given}: give what it was meta-trained on{remedy} ({error})") from error
        if statistics in ("support", "joined"):  # a network that these are not defined for is refused now
            self._stepless.predict(points, support, support, Loop(), statistics)
        self._taken[form] = found
        return found

    def adapt(self, support: Batch, statistics: Statistics) -> Point:
        """Run the inner loop."""
        return self.own.adapt(support, Loop(), statistics)

    def logits(self, point: Point | None, query: Batch, support: Batch, statistics: Statistics) -> Tensor:
        """Predictions by the adapted point, divided by the temperature."""
        assert point is not None, "adapt has given it"
        return self.own.predict(point, query, support, Loop(), statistics) / self.temperature


def _features(extractor: Callable[[Tensor], Tensor], images: Tensor, reading: Reading | None) -> Tensor:
    """Features ``[rows, features]`` of images ``[rows, channels, height, width]``."""
    if images.is_floating_point() and reading is not None:  # trained on images from 0 to 1
        check_unit_range(images, "X")
    with torch.no_grad():
        rows = extractor(images)
    if rows.dim() != 2 or len(rows) != len(images):
        wanted = f"map {len(images)} images to features [{len(images)}, features]"
        raise ValueError(f"the extractor must {wanted}, but gave the shape {tuple(rows.shape)}")
    return rows


def one_task(rows: Tensor, y: Tensor, weight: Tensor | None = None) -> Batch:
    """A batch of one task."""
    return take(Batch(rows, y, y.new_ones(len(rows)) if weight is None else weight.to(y)), None)


def width(rows: Tensor) -> str:
    """Of a single row, in words."""
    if rows.dim() == 2:
        return f"{rows.shape[1]} feature{'' if rows.shape[1] == 1 else 's'}"
    return f"the shape {'×'.join(map(str, rows.shape[1:]))}"


def _width_of(method: Method) -> int | None:
    """The number of features that a method takes, where a part of it says so."""
    learner = method.learner
    declared = getattr(learner.start, "features", None)
    parts = [learner.embedding, learner.network]
    while parts:
        first = parts.pop(0)
        if isinstance(first, nn.Sequential):
            parts = [*first, *parts]
        elif isinstance(first, nn.Linear):
            return first.in_features
        elif first is learner.network and isinstance(declared, int):
            return declared
        elif isinstance(first, Contextual) or (first is not None and next(first.parameters(), None) is not None):
            return None  # it takes, or gives to the next, who knows what
    return None
