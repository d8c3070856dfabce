"""The functions that a method finds for a task: drawn and adapted once, evaluated wherever they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.core import Batch, Executor, Method, Mixture, Point, Task, generator
from fewstep.core.noise import Noise
from fewstep.core.types import Statistics
from fewstep.evaluation.arrays import slices, take, to_numpy
from fewstep.networks import Ensemble

_CHUNK = 25
"""Tasks whose samples are adapted together."""


@final
@dataclass(frozen=True, eq=False)
class Adapted:
    """Functions of some tasks, adapted to their supports: nothing is left but to evaluate them.

    Attributes:
        method: what adapted them.
        points: their weights; copies of a task follow one another on the leading axis.
        copies: of each task.
        members: functions that one copy's network holds side by side.
        support: the rows that they were adapted to.
        statistics: what queries are batch-normalised by.
        executor: how copies are run.
    """

    method: Method
    points: Point
    copies: int
    members: int
    support: Batch
    statistics: Statistics = "query"
    executor: Executor | None = None

    def __call__(self, x: Float[Tensor, "tasks rows *features"]) -> Float[np.ndarray, "tasks functions rows outputs"]:
        """Their values at some inputs of each task, float64."""
        return self.read(x)[0]

    def read(self, x: Float[Tensor, "tasks rows *features"]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """Their values, and the deviation of targets about them where the method's predictions say it."""
        many = x.repeat_interleave(self.copies, 0)
        # Labels of queries are not read.
        query = Batch(many, many.new_zeros(*many.shape[:2], 1), many.new_ones(many.shape[:2]))
        found = self.method.predict(self.points, query, self.support, self.executor, self.statistics)
        of_each = found.unflatten(-1, (self.members, -1)).unflatten(0, (-1, self.copies)).movedim(3, 2).flatten(1, 2)
        mean, deviation = self.method.learner.loss.readout(of_each)
        return to_numpy(mean), None if deviation is None else to_numpy(deviation)


@final
class Functions:
    """The functions that a method finds for each task: one, one for each member, or as many as are sampled.

    A start that generates (LEO for whole networks) is sampled from: ``samples`` codes and parameters a task, each
    adapted; if the method weights them (:class:`~fewstep.core.Mixture`), as many of these, in proportion to their
    weights (Rubin's sampling/importance resampling, systematic). An :class:`~fewstep.networks.Ensemble` has its
    members. Any other method has one function. Where a prediction is a mean and a deviation
    (:func:`~fewstep.core.normal_regression`), its function is the mean.

    Draws are made on the CPU, and are the same on every device. There is no dropout, as in any evaluation.

    Args:
        method: trained, for regression.
        samples: how many to draw where there is something to draw.
        seed: of the draws.
        stream: name of an independent sequence of draws under the same seed.
        statistics: what a batch-normalising network normalises queries by, as in an evaluation: all that are asked for
            together (``"query"``), the ``"support"``, the support ``"joined"`` by that one query, or ``"running"``
            statistics of the support along adaptation.

    Raises:
        ValueError: for fewer samples than one.
    """

    def __init__(
        self, method: Method, samples: int, seed: int = 0, stream: str = "test", *, statistics: Statistics = "query"
    ) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}.")
        self.method, self.seed, self.stream, self.statistics = method, seed, stream, statistics
        self.drawn, self.members = samples, ensemble_members(method)

    def copies(self, support: Batch) -> int:
        """How often each of these tasks is adapted to: ``samples`` where there is something to draw, else once."""
        return self.drawn if self._draws(support) else 1

    def _draws(self, support: Batch) -> bool:
        learner, one = self.method.learner, take(support, 0)
        return bool(learner.start.begin_sites(learner.network, one) or learner.start.decode_sites(one))

    def adapt(self, support: Batch, place: int = 0, executor: Executor | None = None) -> Adapted:
        """Draw the functions of some tasks, and adapt each.

        Args:
            support: a task axis leads every tensor.
            place: of the first of these tasks among all; tasks at another place get draws of their own.
            executor: how copies are run; :class:`~fewstep.core.Vmap` when omitted.
        """
        learner, copies = self.method.learner, self.copies(support)
        many = Batch(*(tensor.repeat_interleave(copies, 0) for tensor in support))
        noise: Noise = None
        if self._draws(support):
            drawn = learner.noise(Task(many, many), generator(self.seed, place, f"functions/{self.stream}"))
            noise = tree_map(lambda tensor: tensor.to(many.x.device), _undropped(drawn))
        points = self.method.adapt(many, executor, self.statistics, noise)
        if copies > 1 and isinstance(mixture := self.method.meta_gradient, Mixture) and mixture.weighted:
            found = self.method.predict(points, many, many, executor, self.statistics)
            weights = torch.vmap(partial(mixture.log_likelihood, learner.loss))(found, many)
            points = take(points, resampled(weights.unflatten(0, (-1, copies))).flatten())
        return Adapted(self.method, points, copies, self.members, many, self.statistics, executor)

    def __call__(self, tasks: Task, *inputs: Float[Tensor, "tasks _"]) -> list[NDArray[np.float64]]:
        """Their values at some inputs, for the support of each task, where inputs and outputs are single numbers.

        Args:
            tasks: a task axis leads every tensor; only the support is looked at.
            inputs: one or several sets of query inputs, ``[tasks, rows]``; the functions are the same for all.

        Returns:
            For each set float64 ``[tasks, functions, rows]``.
        """
        return [values for values, _ in self.read(tasks, *inputs)]

    def read(
        self, tasks: Task, *inputs: Float[Tensor, "tasks _"]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64] | None]]:
        """As a call; and in the same shape the deviations of targets, None where predictions do not say them."""
        parts = []
        for some in slices(len(tasks.support.x), _CHUNK):
            adapted = self.adapt(take(tasks.support, some), some.start)
            parts.append([adapted.read(x[some, :, None]) for x in inputs])
        return [tuple(map(_joined, zip(*of_one, strict=True))) for of_one in zip(*parts, strict=True)]


def resampled(log_weights: Float[Tensor, "tasks samples"]) -> Int[Tensor, "tasks samples"]:
    """As many samples of each task in proportion to their weights, by their places among those of all tasks.

    Systematic: of S samples, those in which the cumulative share passes (s + ½)/S. So a sample is taken as often as its
    share of S says, to within one. One whose weight is not a number is never taken, unless all are so.
    """
    tasks, samples = log_weights.shape
    share = log_weights.double().nan_to_num(-torch.inf, -torch.inf, -torch.inf)
    share = torch.where(share.isneginf().all(1, keepdim=True), 0.0, share).softmax(1)
    levels = (torch.arange(samples, dtype=share.dtype, device=share.device) + 0.5) / samples
    chosen = torch.searchsorted(share.cumsum(1), levels.expand(tasks, -1).contiguous()).clamp(max=samples - 1)
    return chosen + samples * torch.arange(tasks, device=chosen.device)[:, None]


def ensemble_members(method: Method) -> int:
    """How many networks predict side by side: those of an :class:`~fewstep.networks.Ensemble`, or one."""
    ensembles = (module for module in method.learner.modules() if isinstance(module, Ensemble))
    return next((ensemble.members for ensemble in ensembles), 1)


def _joined(parts: Sequence[NDArray[np.float64] | None]) -> Any:
    """Of all tasks, single outputs; None where there is nothing."""
    return None if parts[0] is None else np.concatenate([part[..., 0] for part in parts if part is not None])


def _undropped(noise: Noise) -> Noise:
    """The noise without masks of dropout, which belong to meta-training."""
    if isinstance(noise, dict):
        return {name: {} if name == "dropout" else _undropped(entry) for name, entry in noise.items()}
    return [_undropped(entry) for entry in noise] if isinstance(noise, list) else noise
