"""What a learner does between its start and its prediction: descend, decode, descend again."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from fewstep.core.executors import Executor, direct
from fewstep.core.mini_batches import mini_batches
from fewstep.core.noise import Noise
from fewstep.core.rule.base import Rule
from fewstep.core.slope import Slope
from fewstep.core.tree import zip_map
from fewstep.core.types import Batch, Params, Point


class SupportLoss(ABC):
    """The inner loss of one task at a point, in the space where the stage works."""

    @abstractmethod
    def __call__(self, value: Params, context: Params, support: Batch, noise: Noise) -> Tensor:
        """A scalar."""


Visit: TypeAlias = Callable[[Point], None]
"""Told of every point that a descent passes, where it begins and where it ends included."""


class Descend(nn.Module):
    """A number of gradient steps on the support loss, in whatever space the point is in.

    Step k moves the value φ_k by the rule on the gradient of ``L_S(φ) + λ/2 ‖φ − φ_0‖²``, where φ_0 is the value that
    the stage began with.

    Args:
        rule: how one step moves.
        steps: how many, ≥ 0. Zero leaves the point as it is. Like ``batch`` and ``prox`` it can be changed between
            training and evaluation.
        batch: rows of the mini-batch that a step sees, see :func:`~fewstep.core.mini_batches.mini_batches`; the whole
            support when omitted.
        prox: λ ≥ 0, the pull towards the beginning (iMAML).
        proximal: the pull is in ``"every"`` step, or the steps descend L_S alone and ``"last"`` comes one more step on
            ``λ/2 ‖φ − φ_0‖²`` alone, as in the iMAML authors' code.

    Raises:
        ValueError: for a negative number of steps or λ, an empty mini-batch, or an unknown ``proximal``.

    Example:
        >>> descend = Descend(SGD(0.25), steps=1)  # on w², a step halves w
        >>> method = Method(Learner(line, Shared(), [descend], loss=regression()), Backprop())
        >>> descend.steps = 3  # more of them at test time
        >>> method.adapt(parabola.support).value
        {'weight': tensor([[[0.1250]]])}
    """

    def __init__(
        self,
        rule: Rule,
        steps: int,
        *,
        batch: int | None = None,
        prox: float = 0.0,
        proximal: Literal["every", "last"] = "every",
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"Descend: steps must be zero or more, got {steps}.")
        if batch is not None and batch < 1:
            raise ValueError(f"Descend: a mini-batch must have at least one row, got {batch}; omit it for all rows.")
        if not prox >= 0:
            raise ValueError(f"Descend: prox is the strength λ ≥ 0 of the pull to the beginning, got {prox}.")
        if proximal not in ("every", "last"):
            raise ValueError(f"Descend: proximal is the pull in 'every' step or in the 'last' alone, got {proximal!r}.")
        self.rule, self.steps, self.batch, self.prox, self.proximal = rule, steps, batch, prox, proximal

    @property
    def moves(self) -> int:
        """How often the rule moves the value: once a step, and once more for a last pull."""
        return self.steps + bool(self.steps and self.prox > 0 and self.proximal == "last")

    def forward(
        self,
        point: Point,
        support: Batch,
        loss: SupportLoss,
        slope: Slope,
        noise: Noise,
        map_tasks: Executor = direct,
        map_step: Executor | None = None,
        shuffle: Tensor | None = None,
        visit: Visit | None = None,
    ) -> Point:
        """Take the steps.

        Args:
            point: where to begin.
            support: of one task, or of many when ``map_tasks`` maps over tasks.
            loss: the inner loss.
            slope: how a loss becomes its gradient.
            noise: one entry per step, or None.
            map_tasks: maps the pieces over tasks.
            map_step: maps every step; ``map_tasks`` when omitted.
            shuffle: draws that order the rows for mini-batches, or None.
            visit: told of every point on the way.
        """
        anchor, map_step = point.value, map_step or map_tasks
        value, state = anchor, map_tasks(self.rule.init)(anchor)
        rows = support
        if self.batch is not None:
            rows = map_tasks(partial(self._deal, self.steps, self.batch))(support, shuffle)
        if visit is not None:
            visit(point)
        every = self.prox > 0 and self.proximal == "every"
        for i in range(self.steps):
            step = map_step(partial(self._step, self.rule.for_step(i), None if self.batch is None else i, loss, slope))
            entry = None if noise is None else noise[i]
            value, state = step(value, state, anchor if every else None, point.context, rows, entry)
            if visit is not None:
                visit(Point(value, point.context))
        if self.moves > self.steps:
            pull = map_step(partial(self._pull, self.rule.for_step(self.steps), slope))
            value, state = pull(value, state, anchor)
            if visit is not None:
                visit(Point(value, point.context))
        return Point(value, point.context)

    @staticmethod
    def _deal(steps: int, size: int, support: Batch, keys: Tensor | None) -> Batch:
        return mini_batches(support, steps, size, keys)

    def _step(
        self,
        rule: Rule,
        index: int | None,
        loss: SupportLoss,
        slope: Slope,
        value: Params,
        state: Any,
        anchor: Params | None,
        context: Params,
        support: Batch,
        noise: Noise,
    ) -> tuple[Params, Any]:
        rows = support if index is None else Batch(*(tensor[index] for tensor in support))

        def objective(v: Params) -> Tensor:
            own = loss(v, context, rows, noise)
            return own if anchor is None else own + self._distance(v, anchor)

        return self._move(rule, slope, objective, value, state)

    def _pull(self, rule: Rule, slope: Slope, value: Params, state: Any, anchor: Params) -> tuple[Params, Any]:
        return self._move(rule, slope, lambda v: self._distance(v, anchor), value, state)

    def _distance(self, value: Params, anchor: Params) -> Tensor:
        """``λ/2 ‖φ − φ_0‖²``."""
        squares = zip_map(lambda v, a: (v - a).square().sum(), value, anchor)
        return 0.5 * self.prox * torch.stack(list(squares.values())).sum()

    @staticmethod
    def _move(
        rule: Rule, slope: Slope, objective: Callable[[Params], Tensor], value: Params, state: Any
    ) -> tuple[Params, Any]:
        gradient, at = slope(objective, value)
        step, state = rule.update(gradient, state, value, at)
        return zip_map(lambda v, s: v + s, value, step), state


class Decode(nn.Module):
    """Leave the space of codes: the decoded weights become the point, and later stages move the weights.

    Example:
        >>> stages = [Descend(SGD(0.1), 5), Decode(), Descend(SGD(0.1), 5)]  # in codes, then in weights
        >>> method = Method(Learner(Generated(), Generator(8, latents=3), stages), Backprop())
        >>> method.adapt(clusters.support).value["weight"].shape  # of four tasks, three classes, eight features
        torch.Size([4, 3, 8])
    """


Stage: TypeAlias = Descend | Decode


def skip_empty(*stages: Stage) -> list[Stage]:
    """Those of the stages that do something: a descent without steps is left out, for nothing would train its rule.

    Example:
        >>> stages = skip_empty(Descend(SGD(0.1), 5), Decode(), Descend(SGD(0.1), 0))
        >>> [type(stage).__name__ for stage in stages]
        ['Descend', 'Decode']
    """
    return [stage for stage in stages if isinstance(stage, Decode) or stage.steps]
