"""A trained method as a regressor for numbers of your own, in the style of scikit-learn, that says how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core import Batch, Loop, Method
from fewstep.core.loss import cross_entropy
from fewstep.core.types import Statistics
from fewstep.data.dataset import as_tensor
from fewstep.estimators.base import Estimator, one_task
from fewstep.evaluation.functions import Adapted, Functions
from fewstep.evaluation.inner_loop import evaluating
from fewstep.evaluation.predictive import Predictive

Numbers: TypeAlias = Tensor | NDArray[Any] | Sequence[Any]

_TOGETHER = 1024
"""Rows at which all functions are evaluated at once."""


@final
@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for some rows: their mean, deviation and intervals, made of the functions that a method has found.

    With ``noise`` it is the mixture ``p(y) = 1/S Σ_s N(y; f_s(x), noise²)`` of a row's target; without, the spread of
    the functions themselves, which leaves out how far a target strays from its function. All are equally weighted, and
    all results in units of y. Rows, and outputs, are judged each on its own.

    Attributes:
        samples: values of the S functions, float64 ``[functions, rows]``, or ``[functions, rows, outputs]`` where the
            targets had an axis of outputs.
        noise: standard deviation of a target about its function, or None.

    Raises:
        ValueError: if there is no function, a value is not finite, or the noise is not positive and finite.

    Example:
        >>> prediction = Prediction(np.array([[1.0, 4.0], [3.0, 4.0]]))  # two functions at two inputs
        >>> prediction.mean, prediction.deviation  # they differ at the first, and agree at the second
        (array([2., 4.]), array([1., 0.]))
    """

    samples: Float[np.ndarray, "functions rows *outputs"]
    noise: float | None = None

    def __post_init__(self) -> None:
        _check_noise(self.noise, "Prediction")
        if not len(self.samples):
            raise ValueError("Prediction: at least one function is needed, got none.")
        lost = ~np.isfinite(self.samples).reshape(len(self.samples), -1).all(1)
        if lost.any():
            raise ValueError(
                f"Prediction: {lost.sum()} of {len(lost)} functions have values that are not finite: adaptation "
                "diverged, or the inputs are far out. Are x and y on the scales of meta-training?"
            )

    @property
    def mean(self) -> Float[np.ndarray, "rows *outputs"]:
        """Mean of the functions, and of a target."""
        return np.asarray(self.samples.mean(0))

    @property
    def deviation(self) -> Float[np.ndarray, "rows *outputs"]:
        """``√(Var_s f_s(x) + noise²)``, the standard deviation of a target; without noise, of the functions."""
        return np.sqrt(np.asarray(self.samples.var(0)) + (self.noise or 0.0) ** 2)

    def interval(
        self, probability: float
    ) -> tuple[Float[np.ndarray, "rows *outputs"], Float[np.ndarray, "rows *outputs"]]:
        """Ends of the central interval of this probability, the lower ones first.

        They are the quantiles of ``(1 ∓ probability)/2``: of a target under the mixture where there is ``noise``, else
        of the functions, between two of them linearly. Without noise a single function has an interval of no width.

        Raises:
            ValueError: for a probability that does not lie between 0 and 1.
        """
        if not 0 < probability < 1:
            raise ValueError(f"Prediction.interval: a probability between 0 and 1 is needed, got {probability}.")
        if self.noise is None:
            low, high = np.quantile(self.samples, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
            return low, high
        rows = self.samples.reshape(1, len(self.samples), -1)  # outputs as further rows of one task
        low, high = Predictive(rows, self.noise).interval(probability)
        return low.reshape(self.samples.shape[1:]), high.reshape(self.samples.shape[1:])


@final
class FewShotRegressor(Estimator):
    """Adapts a meta-trained method to a few points, and predicts others with an interval.

    ``fit`` draws functions and runs the inner loop of each from the method's start; ``predict`` only evaluates them, so
    that whatever is asked, in one call or in several, is asked of the same functions. Meta-parameters are never
    changed, and fitting again begins anew, with the same draws.

    LEO for whole networks has as many functions as are sampled, codes and weights; an ensemble has its members; any
    other method has one. What one function knows of its error is the ``noise`` alone.

    Args:
        method: of regression, meta-trained or not.
        samples: functions to draw where there is something to draw.
        seed: of the draws.
        noise: standard deviation of targets about a function, in units of y: intervals are then of targets. Where it is
            not known, :func:`fewstep.evaluation.predictive.fit_noise` finds it from validation tasks. Without it
            intervals are of the functions.
        statistics: what a batch-normalising network normalises queries by, see
            :class:`~fewstep.estimators.classifier.FewShotClassifier`.

    Raises:
        ValueError: for fewer samples than one, noise that is not positive and finite, or a method of classification.

    Example:
        >>> model = FewShotRegressor(maml(nn.Linear(1, 1), rate=0.1, steps=100, loss=regression()), noise=0.1)
        >>> prediction = model.fit([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]).predict([1.5])  # y = 2x + 1
        >>> prediction.mean.round(1), prediction.interval(0.9)[0].round(1)
        (array([4.]), array([3.8]))
    """

    learns: ClassVar[str] = "points"
    _adapted: Adapted
    _single: bool

    def __init__(
        self,
        method: Method,
        *,
        samples: int = 100,
        seed: int = 0,
        noise: float | None = None,
        statistics: Statistics = "support",
    ) -> None:
        super().__init__(method, statistics)
        if method.learner.loss.rows is cross_entropy:
            remedy = "make it with loss=fewstep.core.regression(), or use FewShotClassifier"
            raise self._error(f"the method's loss is a cross-entropy, of classes: {remedy}")
        _check_noise(noise, "FewShotRegressor")
        self.noise, self.functions = noise, Functions(method, samples, seed, statistics=statistics)

    def fit(self, x: Numbers, y: Numbers) -> "FewShotRegressor":
        """Adapt every function to a support set.

        Args:
            x: ``[rows]``, each a single number, or ``[rows, *features]``.
            y: ``[rows]``, or ``[rows, outputs]``; predictions come in the same form.

        Returns:
            The regressor itself.

        Raises:
            ValueError: for targets that are not one, or one row, for each row of x; for what is not finite; and for
                inputs or outputs that the method was not made for.
        """
        rows, targets = self._rows(x, "fit"), self._numbers(y, "y", "fit")
        if targets.dim() not in (1, 2) or len(targets) != len(rows):
            wanted = f"[rows] or [rows, outputs] with a target for each of the {len(rows)} rows of x"
            raise self._error(f"y must be {wanted}, got the shape {tuple(targets.shape)}", "fit")
        single = targets.dim() == 1
        support = one_task(rows, targets[:, None] if single else targets)
        with evaluating(self.method.learner):
            self._check(support)
            # A lone function needs no map over tasks, which not every network can bear.
            executor = Loop() if self.functions.copies(support) == 1 else None
            self._adapted = self.functions.adapt(support, executor=executor)
        self._support, self._single = support, single
        return self

    def predict(self, x: Numbers) -> Prediction:
        """The adapted functions at inputs ``[rows]`` or ``[rows, *features]``.

        Raises:
            ValueError: before :meth:`fit`; for inputs that are not finite or unlike those given to :meth:`fit`; and
                when a function has values that are not finite, where adaptation diverged.
        """
        rows, _ = self._query(x)
        # By the statistics of the query rows, what is asked together belongs together.
        parts = [rows] if self.statistics == "query" else rows.split(_TOGETHER)
        with evaluating(self.method.learner):
            values = np.concatenate([self._adapted(part[None])[0] for part in parts], 1)
        return Prediction(values[..., 0] if self._single else values, self.noise)

    # -- inputs ----------------------------------------------------------------------------------------------------

    def _rows(self, x: Numbers, caller: str) -> Tensor:
        """Inputs ``[rows, *features]``; single numbers are features of width one."""
        rows = self._numbers(x, "x", caller)
        return rows[:, None] if rows.dim() == 1 else rows

    def _numbers(self, given: Numbers, name: str, caller: str) -> Tensor:
        """Finite numbers, at least a row, in the dtype and on the device of the method's parameters."""
        try:
            numbers = given if isinstance(given, Tensor) else as_tensor(np.asarray(given))
        except (TypeError, ValueError) as error:
            raise self._error(f"{name} must be an array of numbers ({error})", caller) from error
        if numbers.is_complex():
            raise self._error(f"{name} must be real, got {numbers.dtype}", caller)
        if not numbers.dim() or not len(numbers):
            wanted = "an axis of rows, with at least one"
            raise self._error(f"{name} must have {wanted}, got the shape {tuple(numbers.shape)}", caller)
        return self._finite(numbers, name, caller)

    def _check(self, support: Batch) -> None:
        """Find out, before an inner step, whether the method takes these inputs and this number of outputs."""
        outputs, members = support.y.shape[2], self.functions.members
        found = self._before_steps(support, f" with {outputs} target(s) each")[1:]
        if found != (members * outputs,):
            width = found[0] // members if len(found) == 1 else "×".join(map(str, found))
            given = f"y has {outputs} target(s) a row, but the method's network gives {width}"
            raise self._error(f"{given}: give targets like those of meta-training", "fit")


def _check_noise(noise: float | None, where: str) -> None:
    if noise is not None and not 0 < noise < np.inf:
        raise ValueError(f"{where}: noise is a standard deviation, positive and finite, or None; got {noise}")
