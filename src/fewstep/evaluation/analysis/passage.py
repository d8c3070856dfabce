"""The way of an adaptation: the points that it passes, and the numbers of a point that are looked at."""

from functools import partial
from itertools import pairwise
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.core import Batch, Executor, Learner, Method, Params, Point, Task, Vmap
from fewstep.evaluation.inner_loop import evaluating, evaluation_copy


class Passage(NamedTuple):
    """The points that the adaptation to a task passes; of many tasks, with a leading axis on every tensor.

    Attributes:
        codes: from where the task begins to what is decoded, before and after every step. Empty for a method whose task
            begins at weights.
        weights: from what has been decoded, or begun with, to the end of adaptation.
    """

    codes: list[Point]
    weights: list[Point]

    @property
    def first(self) -> list[Point]:
        """The points in the space where the task begins: of codes where there are any."""
        return self.codes or self.weights


def passed(method: Method, support: Batch, executor: Executor | None = None) -> Passage:
    """The points that adaptation passes, as in evaluation: means, no dropout.

    Args:
        method: as it is to adapt.
        support: a task axis leads every tensor.
        executor: how tasks are run; :class:`~fewstep.core.Vmap` when omitted.

    Example:
        >>> from fewstep.evaluation.analysis import passed
        >>> way = passed(leo(features=8, latents=3), clusters.support)  # five steps of codes, five of weights
        >>> len(way.codes), len(way.weights), way.codes[0].value["code"].shape  # of four tasks, six examples each
        (6, 6, torch.Size([4, 6, 3]))
    """
    method.learner.examine(support)
    with torch.inference_mode(False), torch.no_grad(), evaluating(method.learner):
        way: Passage = (executor or Vmap())(partial(_passed, method.learner))(support)
    return way


def _passed(learner: Learner, support: Batch) -> Passage:
    visited: list[Point] = []
    end, _ = learner.adapt(support, visit=visited.append)
    begun, _ = learner.start.begin(learner.network, learner.embed(support), None)
    # A descent is told where it begins, which is where the one before it has ended.
    points = visited[:1] + [after for before, after in pairwise(visited) if after.value is not before.value]
    if begun.value.keys() == end.value.keys():
        return Passage([], points or [begun])
    codes = [point for point in points if point.value.keys() == begun.value.keys()]
    weights = [point for point in points if point.value.keys() == end.value.keys()]
    return Passage(codes or [begun], weights or [end])


@final
class Coordinates:
    """A point as one vector, and the points near it.

    They are the point's own numbers, but for LEO's classes of several examples. Those have a code for each, and all
    copies of a class move together: here a class has one, their mean; and its weights are those that its logit
    multiplies inputs with, where the start decodes √K times as much (see :class:`~fewstep.core.Generator`). With
    ``copies`` they stay what the inner loop moves.

    For curvature this is a factor: each eigenvalue by codes or by weights is K times that of the copies, and their
    ratio is the same. Steps of weights are 1/√K as long, and can be compared with those of other methods.

    Args:
        point: of one task, with codes or with weights.
        copies: take the numbers as they are.
    """

    def __init__(self, point: Point, copies: bool = False) -> None:
        self._origin = point
        self._mix = None if copies else point.context.get("mix")
        shares = {} if copies else {name: point.context.get(_share_of(name)) for name in point.value}
        self._shares = {name: share for name, share in shares.items() if share is not None}

    @property
    def values(self) -> Params:
        """The numbers by name."""
        value = self._origin.value
        if self._mix is not None:
            return value | {"code": self._mix @ value["code"]}
        return value | {name: value[name] * share for name, share in self._shares.items()}

    @property
    def vector(self) -> Float[Tensor, " numbers"]:
        """All of them, one after another."""
        return torch.cat([tensor.flatten() for tensor in self.values.values()])

    def point(self, vector: Float[Tensor, " numbers"]) -> Point:
        """The point with these numbers."""
        here = self.values
        parts = vector.split([tensor.numel() for tensor in here.values()])
        value = {name: part.view_as(here[name]) for name, part in zip(here, parts, strict=True)}
        if self._mix is not None:
            moved = value["code"] - here["code"]
            of_class = (self._mix != 0).to(moved)  # [ways, copies]
            value["code"] = self._origin.value["code"] + of_class.T @ moved
        value |= {name: value[name] / share for name, share in self._shares.items()}
        return Point(value, self._origin.context)


def _share_of(name: str) -> str:
    """The slot by which a generated head multiplies a weight."""
    return f"{name.removesuffix('weight')}share" if name.endswith("weight") else ""


def in_double(method: Method, tasks: Task) -> tuple[Method, Task]:
    """A copy of a method in evaluation, and tasks, in float64: small eigenvalues are lost in less."""
    copied = evaluation_copy(method)
    copied.learner.double()
    return copied, tree_map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, tasks)
