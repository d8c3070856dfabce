"""The meta-gradient of a batch: what an outer loop asks of a method at every step."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from fewstep.core.executors import Executor, Vmap
from fewstep.core.meta_gradient.outer_loss import with_penalties
from fewstep.core.method import Method
from fewstep.core.network.foreign import differentiated_twice, require_second_derivatives
from fewstep.core.noise import Drawn, Draws, Noise, fill
from fewstep.core.overflow import where_overflowed
from fewstep.core.types import AnyTask


class MetaStep(NamedTuple):
    """The meta-gradient of one batch of tasks, with the objective that was differentiated.

    Attributes:
        objective: the scalar that was differentiated.
        gradients: its gradient, for every parameter of ``learner.trained()`` in their order.
        metrics: their means over tasks.

    Example:
        >>> step = Differentiate(maml(line, rate=0.25, loss=regression()))(parabola, None)
        >>> step.objective, step.gradients
        (tensor(0.2500), [tensor([[0.5000]])])
    """

    objective: Float[Tensor, ""]
    gradients: list[Tensor]
    metrics: dict[str, Tensor]


Transform: TypeAlias = Callable[[Callable[..., MetaStep]], Callable[..., MetaStep]]


class Differentiate:
    """The meta-gradient of batches of tasks, a group of tasks at a time.

    ``∇ [1/T Σ_t L_t + R]``: L_t is a task's estimate, R the regularisers. Without 1/T where the method sums over tasks.
    The gradient of a sum is a sum of gradients: tasks are taken in groups of ``executor.chunk``, and the graph of one
    group is gone before that of the next is built. Objective and gradient are those of ``Method.objective``, up to the
    order of a sum.

    Args:
        method: what is differentiated, with respect to all parameters of its learner that are not frozen.
        executor: how tasks are run; :class:`Vmap`, all at once, when omitted.
        transform: applied to the function that gives a group's meta-gradient, such as
            :func:`~fewstep.training.compiling.compiled`. For networks that are not of fewstep's own or torch's plain
            layers the first meta-gradient is held against the eager one.

    Raises:
        ValueError: when all parameters are frozen.
        RuntimeError: where that shows that the transformed code computes something else.

    Example:
        >>> method = maml(mlp((1, 40, 1)), rate=0.01, loss=regression())
        >>> meta_gradient = Differentiate(method, Vmap(chunk=2))  # two tasks at a time
        >>> step = meta_gradient(sines, None)
        >>> [tuple(gradient.shape) for gradient in step.gradients]
        [(40, 1), (40,), (1, 40), (1,)]
    """

    def __init__(self, method: Method, executor: Executor | None = None, transform: Transform | None = None) -> None:
        self.method, self.executor = method, executor or Vmap()
        self._begun, self._transformed = False, transform is not None
        self._group: Callable[..., MetaStep] = transform(self._of_group) if transform else self._of_group

    def __call__(self, tasks: AnyTask, draws: Draws | None, begin: int = 0, of: int | None = None) -> MetaStep:
        """The meta-gradient of a batch of tasks; or of a share of one, whose sum over all shares is that of the batch.

        Args:
            tasks: of the batch; or of the share.
            draws: from ``method.draws``, for the whole batch; None for no noise.
            begin: which task of the batch is the first one of the share.
            of: tasks of the batch; as many as are given when omitted.
        """
        if not any(parameter.requires_grad for parameter in self.method.learner.parameters()):
            raise ValueError(
                "All parameters of the learner are frozen (requires_grad_(False)): nothing is meta-learned."
            )
        mine = len(tasks.support.weight)
        count = mine if of is None else of
        found = self._of_share(tasks, draws, begin, count)
        if not self._begun:
            self._begin(found, tasks, draws, begin, count)
        self._begun = True
        if begin > 0:  # the first share has the regularisers
            names = [regulariser.name for regulariser in self.method.regularisers]
            found.metrics.update({name: torch.zeros_like(found.objective) for name in names})
        return found

    def _begin(self, found: MetaStep, tasks: AnyTask, draws: Draws | None, begin: int, count: int) -> None:
        """Look at the first meta-step, which may be compiled wrongly, or not be finite."""
        if self._transformed and not self.method.learner.plain:
            self._check(found, Differentiate(self.method, self.executor)._of_share(tasks, draws, begin, count))
        if not found.objective.isfinite():
            own = slice(begin, begin + len(tasks.support.weight))
            noise = None if draws is None else fill(self.method.sites(tasks), draws[own])
            where = where_overflowed(self.method, tasks, noise)
            warnings.warn(f"The first meta-objective is not finite: {where}.", RuntimeWarning, stacklevel=3)

    def _of_share(self, tasks: AnyTask, draws: Draws | None, begin: int, count: int) -> MetaStep:
        """What these tasks, of which the first is task ``begin`` of ``count``, add to the meta-step."""
        mine, plain = len(tasks.support.weight), self.method.learner.plain
        chunk = getattr(self.executor, "chunk", None)
        size = mine if chunk is None else min(chunk, mine)

        def step(first: int) -> MetaStep:
            last = min(first + size, mine)
            some: Any = tasks if size == mine else tree_map(lambda tensor: tensor[first:last], tasks)
            drawn: Any = None if draws is None else draws[begin + first : begin + last]
            if drawn is not None and not plain:  # what such a network draws is found out by running it
                drawn = fill(self.method.sites(tasks), drawn)
            with differentiated_twice():
                return self._group(some, drawn, count, begin + first == 0)

        total = step(0)
        for first in range(size, mine, size):
            more = step(first)
            torch._foreach_add_(total.gradients, more.gradients)
            sums = {name: total.metrics[name] + more.metrics.get(name, 0) for name in total.metrics}
            total = MetaStep(total.objective + more.objective, total.gradients, sums)
        return total

    def _check(self, found: MetaStep, other: MetaStep) -> None:
        """Hold the first step of transformed code against eager code: compilers do not see through every network."""
        eager = torch.cat([gradient.flatten() for gradient in other.gradients])
        error = (torch.cat([gradient.flatten() for gradient in found.gradients]) - eager).norm() / eager.norm()
        if error > 1e-3:
            raise RuntimeError(
                f"The transformed meta-gradient of this network differs from the eager one by {error:.1e} (relative): "
                "leave the transform out."
            )

    def _of_group(self, tasks: AnyTask, drawn: Drawn | Noise, count: int, regularised: bool) -> MetaStep:
        """What a group adds to the meta-step, metrics' means over ``count`` tasks: compilers see all of it at once."""
        learner = self.method.learner
        noise = fill(self.method.sites(tasks), drawn) if isinstance(drawn, Drawn) else drawn
        estimates = self.method.estimate(tasks, noise, self.executor)
        objective = estimates.objective.sum() / (count if self.method.task_reduction == "mean" else 1)
        metrics = {name: values.sum() / count for name, values in estimates.metrics.items()}
        objective, metrics = with_penalties(objective, metrics, self.method.penalties() if regularised else {})
        # In this order: compiled code holds on to what it has read, and is made again when that has changed.
        if not (self._transformed or self._begun or learner.plain):
            require_second_derivatives(objective)
        gradients = torch.autograd.grad(objective, learner.trained(), materialize_grads=True)
        return MetaStep(objective.detach(), list(gradients), metrics)
