"""What classifier and regressor share: a method that learns from given rows, and the checks of what it is given."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, get_args

from torch import Tensor

from fewstep.core import Batch, Loop, Method
from fewstep.core.types import Statistics
from fewstep.evaluation.arrays import take
from fewstep.evaluation.inner_loop import inner_steps


class Estimator(ABC):
    """A meta-trained method that adapts to rows of its user's, and answers for others.

    Raises:
        ValueError: for unknown statistics.
    """

    learns: ClassVar[str]
    """What it learns from rows, for a message."""

    _support: Batch | None = None
    """The rows that it was adapted to, a batch of one task."""

    def __init__(self, method: Method, statistics: Statistics) -> None:
        if statistics not in get_args(Statistics):
            known = ", ".join(map(repr, get_args(Statistics)))
            raise self._error(f"statistics must be one of {known}, got {statistics!r}")
        self.method, self.statistics = method, statistics

    def _error(self, message: str, caller: str = "") -> ValueError:
        return ValueError(f"{type(self).__name__}{caller and '.'}{caller}: {message}")

    @abstractmethod
    def _rows(self, x: Any, caller: str) -> Tensor:
        """Inputs as the method takes them; ``caller`` is named in errors."""

    def _finite(self, given: Tensor, name: str, caller: str) -> Tensor:
        """The same numbers in the dtype and on the device of the method's parameters, if all are finite."""
        like = next(self.method.learner.parameters())
        rows = given.detach().to(like.device, like.dtype)
        if bad := (~rows.reshape(len(rows), -1).isfinite().all(1)).nonzero()[:, 0].tolist():
            hold = f"{len(bad)} of {len(rows)} rows of {name} hold NaN or infinity"
            raise self._error(f"{hold}, the first is row {bad[0]}", caller)
        return rows

    def _before_steps(self, support: Batch, labels: str, remedy: str = "") -> tuple[int, ...]:
        """The shape of predictions, found out before an inner step; refuses rows that the method does not take."""
        try:
            with inner_steps(self.method.learner, 0):
                points = self.method.adapt(support, Loop())
                shape_of_all = tuple(self.method.predict(points, support, executor=Loop()).shape[1:])
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            given = f"the method does not take rows of {width(support.x[0])}{labels}"
            raise self._error(f"{given}: give what it was meta-trained on{remedy} ({error})", "fit") from error
        if self.statistics == "query" and self.method.learner.batch_normalised:
            warnings.warn(
                f"{type(self).__name__}: what is predicted for a row will depend on the rows that are asked with it "
                '(transductive): the method normalises by them. statistics="support" or "joined" does not.',
                UserWarning,
                stacklevel=4,
            )
        elif self.statistics in ("support", "joined"):  # a network that these are not defined for is refused now
            self.method.predict(points, support, support, Loop(), self.statistics)
        return shape_of_all

    def _query(self, x: Any) -> tuple[Tensor, Batch]:
        """Rows to predict, and those that were fitted, which they must be like."""
        if self._support is None:
            raise self._error(f"it knows no {self.learns} yet: call fit(x, y) before predicting")
        rows, fitted = self._rows(x, "predict"), self._support.x[0]
        if rows.shape[1:] != fitted.shape[1:]:
            raise self._error(f"x has rows of {width(rows)}, but fit was given rows of {width(fitted)}", "predict")
        return rows, self._support


def one_task(rows: Tensor, y: Tensor) -> Batch:
    """A batch of one task."""
    return take(Batch(rows, y, y.new_ones(len(rows))), None)


def width(rows: Tensor) -> str:
    """Of a single row, in words."""
    if rows.dim() == 2:
        return f"{rows.shape[1]} feature{'' if rows.shape[1] == 1 else 's'}"
    return f"the shape {'×'.join(map(str, rows.shape[1:]))}"
