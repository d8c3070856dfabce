"""What a learner does between its start and its prediction: descend, decode, descend again."""

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from fewstep.core.executors import Executor, direct
from fewstep.core.noise import Noise
from fewstep.core.protocols import Rule
from fewstep.core.slope import Slope
from fewstep.core.tree import zip_map
from fewstep.core.types import Batch, Params, Point


class SupportLoss(ABC):
    """The inner loss of one task at a point, in the space where the stage works."""

    @abstractmethod
    def __call__(self, value: Params, context: Params, support: Batch, noise: Noise) -> Tensor:
        """A scalar."""


class Descend(nn.Module):
    """A number of gradient steps on the support loss, in whatever space the point is in.

    Args:
        rule: how one step moves.
        steps: how many, ≥ 0. Zero leaves the point as it is; it can be changed between training and evaluation.

    Raises:
        ValueError: for a negative number of steps.
    """

    def __init__(self, rule: Rule, steps: int) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"Descend: steps must be zero or more, got {steps}.")
        self.rule, self.steps = rule, steps

    def forward(
        self,
        point: Point,
        support: Batch,
        loss: SupportLoss,
        slope: Slope,
        noise: Noise,
        each: Executor = direct,
        each_step: Executor | None = None,
    ) -> Point:
        """Take the steps.

        ``noise`` holds one entry per step; ``each_step`` maps every step over tasks, ``each`` what else there is.
        """
        value, state = point.value, each(self.rule.init)(point.value)
        for i in range(self.steps):
            step = (each_step or each)(partial(self._step, self.rule.at(i), loss, slope))
            value, state = step(value, state, point.context, support, None if noise is None else noise[i])
        return Point(value, point.context)

    def _step(
        self,
        rule: Rule,
        loss: SupportLoss,
        slope: Slope,
        value: Params,
        state: Any,
        context: Params,
        support: Batch,
        noise: Noise,
    ) -> tuple[Params, Any]:
        gradient, at = slope(lambda v: loss(v, context, support, noise), value)
        step, state = rule.update(gradient, state, value, at)
        return zip_map(lambda v, s: v + s, value, step), state


class Decode(nn.Module):
    """Leave the space of codes: the decoded weights become the point, and later stages move the weights."""


Stage: TypeAlias = Descend | Decode
