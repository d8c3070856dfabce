"""A regressor of scikit-learn that learns from a few points, and says how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags, check_array, check_random_state
from torch import Tensor

from fewstep.core import Batch, Loop
from fewstep.core.modes import as_usual
from fewstep.estimators.base import Device, Estimator, Inputs, Learned, Normalised, numbers
from fewstep.estimators.linear import lines_through
from fewstep.estimators.model import TrainedModel, one_task
from fewstep.evaluation.functions import Adapted, Functions
from fewstep.evaluation.predictive import Predictive

_TOGETHER = 1024
"""Rows at which all functions are evaluated at once."""


@final
@dataclass(frozen=True, eq=False)
class Prediction:
    """Predictions for some rows: their mean, deviation and intervals, made of the functions that a method has found.

    With ``noise`` it is the mixture ``p(y) = 1/S Σ_s N(y; f_s(x), noise_s(x)²)`` of a row's target; without, the spread
    of the functions themselves, which leaves out how far a target strays from its function. All are equally weighted,
    and all results in units of y. Rows, and outputs, are judged each on its own.

    Attributes:
        samples: values of the S functions, float64 ``[functions, rows]``, or ``[functions, rows, outputs]`` where the
            targets had an axis of outputs.
        noise: standard deviation of a target about its function, one or ``[outputs]``, or in the shape of ``samples``
            where the method predicts it; or None.

    Raises:
        ValueError: if there is no function, a value is not finite, or the noise is not positive and finite.

    Example:
        >>> prediction = Prediction(np.array([[1.0, 4.0], [3.0, 4.0]]))  # two functions at two inputs
        >>> prediction.mean, prediction.deviation  # they differ at the first, and agree at the second
        (array([2., 4.]), array([1., 0.]))
    """

    samples: Float[np.ndarray, "functions rows *outputs"]
    noise: float | Float[np.ndarray, " outputs"] | Float[np.ndarray, "functions rows *outputs"] | None = None

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
    def mean(self) -> Float[np.ndarray, rows * outputs]:
        """Mean of the functions, and of a target."""
        return np.asarray(self.samples.mean(0))

    @property
    def deviation(self) -> Float[np.ndarray, rows * outputs]:
        """``√(Var_s f_s(x) + mean_s noise_s²)``, the deviation of a target; without noise, that of the functions."""
        squares = np.square(0.0 if self.noise is None else self.noise)
        return np.asarray(np.sqrt(self.samples.var(0) + np.broadcast_to(squares, self.samples.shape).mean(0)))

    def interval(
        self, probability: float
    ) -> tuple[Float[np.ndarray, rows * outputs], Float[np.ndarray, rows * outputs]]:
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
        functions, rows = self.samples.shape[:2]
        columns = self.samples.reshape(functions, rows, -1)
        each = np.ndim(self.noise) == self.samples.ndim  # a deviation of its own
        noise = np.reshape(self.noise, columns.shape) if each else np.asarray(self.noise)
        noises = np.moveaxis(np.broadcast_to(noise, columns.shape), -1, 0)
        # An output at a time is a task whose rows are these.
        tasks = [(columns[None, :, :, i], own[None] if each else float(own.flat[0])) for i, own in enumerate(noises)]
        found = [Predictive(*task).interval(probability) for task in tasks]
        low, high = (np.stack([ends[0] for ends in side], -1) for side in zip(*found, strict=True))
        return low.reshape(self.samples.shape[1:]), high.reshape(self.samples.shape[1:])


class FewShotRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """Adapts a model to a few points, and predicts others with a deviation and intervals.

    ``fit`` draws functions and runs the inner loop of each from the method's start; afterwards they are only evaluated,
    so that whatever is asked, in one call or in several, is asked of the same functions. The model is never changed,
    and fitting again begins anew, with the same draws where ``random_state`` is a number.

    LEO for whole networks has as many functions as are sampled, codes and weights; an ensemble has its members; any
    other method has one. What one function knows of its error is the ``noise`` alone, or what the method itself says.

    Args:
        model: what is adapted, as :class:`~fewstep.FewShotClassifier` takes it, of a regression. None: Bayesian linear
            regression, whose functions are draws from its posterior and whose noise it estimates itself.
        samples: functions to draw where there is something to draw.
        random_state: of the draws: a number, a ``RandomState``, or None for others every time.
        noise: standard deviation of targets about a function, in units of y: deviations and intervals are then of
            targets. Where it is not known, :func:`fewstep.evaluation.predictive.fit_noise` finds it from validation
            tasks. Without it they are of the functions, unless the method predicts the deviation (``cnp``).
        statistics: what a batch-normalising network normalises queries by, see
            :class:`~fewstep.estimators.model.TrainedModel`; None: as the model says.
        device: of a model that is read from a file or folder, see :class:`~fewstep.FewShotClassifier`.

    Attributes:
        n_features_in_: width of a row.
        feature_names_in_: names of the columns, where ``fit`` was given a frame.
        model_: what was adapted.

    Example:
        >>> model = FewShotRegressor(maml(nn.Linear(1, 1), rate=0.1, steps=100, loss=regression()), noise=0.1)
        >>> mean, deviation = model.fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0]).predict([[1.5]], return_std=True)
        >>> mean.round(1), deviation.round(1)  # y = 2x + 1
        (array([4.]), array([0.1]))
        >>> model.predict_distribution([[1.5]]).interval(0.9)[0].round(1)
        array([3.8])
    """

    learns: ClassVar[str] = "points"
    model_: TrainedModel | None
    _support: Batch
    _functions: Callable[[Any], tuple[NDArray[np.float64], NDArray[np.float64] | None]]
    _single: bool

    def __init__(
        self,
        model: Learned = None,
        *,
        samples: Any = 100,
        random_state: Any = 0,
        noise: Any = None,
        statistics: Normalised = None,
        device: Device = "auto",
    ) -> None:
        self.model, self.samples, self.random_state, self.noise = model, samples, random_state, noise
        self.statistics, self.device = statistics, device

    @as_usual
    def fit(self, X: Inputs, y: Inputs, sample_weight: Any = None) -> FewShotRegressor:
        """Adapt every function to a support set.

        Args:
            X: ``[rows, *features]``; single numbers are ``[rows, 1]``.
            y: ``[rows]``, or ``[rows, outputs]``; predictions come in the same form.
            sample_weight: ``[rows]``, ≥ 0: how much a row counts. All alike when omitted.

        Returns:
            The regressor itself.

        Raises:
            ValueError: for targets that are not one, or one row, for each row of X; for what is not finite; for inputs
                or outputs that the model was not made for, a model of classes, fewer samples than one, and noise that
                is not positive and finite.
            TypeError: for a sparse matrix.
        """
        _check_noise(self.noise, type(self).__name__)
        self.model_ = self._resolved()
        if self.model_ is not None and not (isinstance(self.model_, TrainedModel) and self.model_.regression):
            remedy = "make it with loss=fewstep.core.regression(), or use FewShotClassifier"
            raise self._error(f"the model's loss is a cross-entropy, of classes: {remedy}")
        x = self._inputs(X, first=True)
        targets, weight = self._targets(y, len(x)), self._weights(sample_weight, x)
        self._single = targets.ndim == 1
        columns = targets[:, None] if self._single else targets
        if self.model_ is None:
            self._functions = lines_through(x, columns, weight, self._seed(), self.samples)
            return self
        rows = self._rows(x)
        scale = None if weight is None else rows.new_tensor(weight)
        y_rows = rows.new_tensor(columns)
        if not bool(y_rows.isfinite().all()):
            raise self._error(f"y has numbers beyond {rows.dtype}, up to {np.abs(columns).max():g}: scale them")
        self._begin(one_task(rows, y_rows, scale))
        return self

    def _begin(self, support: Batch) -> None:
        assert self.model_ is not None, "there is something to adapt"
        statistics = self._statistics(self.model_)
        functions = Functions(self.model_.own, self.samples, self._seed(), statistics=statistics)
        outputs = support.y.shape[2]
        try:
            found = self.model_.outputs(support, statistics, f" with {outputs} target(s) each")[1:]
            found = tuple(self.model_.method.learner.loss.readout(support.x.new_empty(found))[0].shape)
        except ValueError as error:
            raise self._error(str(error)) from error
        if found != (functions.members * outputs,):
            size = found[0] // functions.members if len(found) == 1 else "×".join(map(str, found))
            given = f"y has {outputs} target(s) a row, but the method's network gives {size}"
            raise self._error(f"{given}: give targets like those of meta-training")
        self._warn_of_transduction(self.model_)
        # A lone function needs no map over tasks, which not every network can bear.
        executor = Loop() if functions.copies(support) == 1 else None
        self._functions = _Found(self.model_, functions.adapt(support, executor=executor), statistics == "query")
        self._support = support

    @as_usual
    def predict(self, X: Inputs, return_std: bool = False) -> Any:
        """The mean of the functions at some rows, ``[rows]`` or ``[rows, outputs]``; and their deviation, if asked for.

        Args:
            X: ``[rows, *features]``.
            return_std: give ``(mean, deviation)``, see :attr:`Prediction.deviation`.

        Raises:
            NotFittedError: before :meth:`fit`.
            ValueError: for inputs that are not finite or unlike those given to :meth:`fit`; and when a function has
                values that are not finite, where adaptation diverged.
        """
        found = self.predict_distribution(X)
        return (found.mean, found.deviation) if return_std else found.mean

    @as_usual
    def predict_distribution(self, X: Inputs) -> Prediction:
        """The functions at some rows: samples, mean, deviation and intervals.

        Raises:
            As :meth:`predict`.
        """
        x = self._query(X)
        values, own = self._functions(x if self.model_ is None else self._rows(x))
        noise = own if self.noise is None else self.noise
        if self._single and noise is not None:
            noise = noise[..., 0] if np.ndim(noise) == values.ndim else float(np.ravel(noise)[0])
        return Prediction(values[..., 0] if self._single else values, noise)

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))

    def _default(self) -> None:
        """Bayesian linear regression is fitted to the points themselves."""

    def _targets(self, y: Any, rows: int) -> NDArray[np.float64]:
        if y is None:
            raise self._error("requires y to be passed, but the target y is None: a target is needed for each row")
        options: dict[str, Any] = {"ensure_2d": False, "allow_nd": True, "ensure_all_finite": False}
        targets: NDArray[np.float64] = check_array(
            numbers(y, "y"), dtype=np.float64, input_name="y", estimator=self, **options
        )
        if targets.ndim not in (1, 2) or len(targets) != rows:
            wanted = f"[rows] or [rows, outputs] with a target for each of the {rows} rows of X"
            raise self._error(f"y must be {wanted}, got the shape {targets.shape}")
        return self._finite(targets, "y")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class _Found:
    """Adapted functions, evaluated at rows of one task; and the deviations of targets, where predictions say them."""

    def __init__(self, model: TrainedModel, adapted: Adapted, together: bool) -> None:
        self.model, self.adapted, self.together = model, adapted, together

    def __call__(self, rows: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        # By the statistics of the query rows, what is asked together belongs together.
        parts = [rows] if self.together else rows.split(_TOGETHER)
        adapted = replace(self.adapted, method=self.model.own)  # which thread fitted is one matter, which asks another
        values, noises = zip(*(adapted.read(part[None]) for part in parts), strict=True)
        noise = None if noises[0] is None else np.concatenate(noises, 2)[0]
        return np.concatenate(values, 2)[0], noise


def _check_noise(noise: Any, where: str) -> None:
    if noise is not None and not (np.isfinite(noise).all() and np.all(np.greater(noise, 0))):
        raise ValueError(f"{where}: noise is a standard deviation, positive and finite, or None; got {noise}")
