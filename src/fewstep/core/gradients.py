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
from fewstep.core.types import Estimate, Task


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


Transform: TypeAlias = Callable[[Callable[..., Estimate]], Callable[..., Estimate]]


class Differentiate:
    """The meta-gradient of batches of tasks, a group of tasks at a time.

    ``∇ [1/T Σ_t L_t + R]``: L_t is a task's estimate, R the regularisers. Without 1/T where the method sums over tasks.
    The gradient of a sum is a sum of gradients: tasks are taken in groups of ``executor.chunk``, and the graph of one
    group is gone before that of the next is built. Objective and gradient are those of ``Method.objective``, up to the
    order of a sum.

    Args:
        method: what is differentiated, with respect to all parameters of its learner that are not frozen.
        executor: how tasks are run; :class:`Vmap`, all at once, when omitted.
        transform: applied to the function that is differentiated, such as ``torch.compile``. For networks that are not
            of fewstep's own or torch's plain layers the first meta-gradient is held against the eager one.

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
        self._objective: Callable[..., Estimate] = transform(self._of_group) if transform else self._of_group

    def __call__(self, tasks: Task, draws: Draws | None) -> MetaStep:
        """The meta-gradient of a batch of tasks; ``draws`` from ``method.draws``, or None for no noise."""
        parameters = self.method.learner.trained()
        if not parameters:
            raise ValueError(
                "All parameters of the learner are frozen (requires_grad_(False)): nothing is meta-learned."
            )
        count = len(tasks.support.weight)
        plain = self.method.learner.plain
        chunk = getattr(self.executor, "chunk", None)
        size = count if chunk is None else min(chunk, count)

        def step(first: int) -> MetaStep:
            group = slice(first, first + size)
            some: Any = tasks if size == count else tree_map(lambda tensor: tensor[group], tasks)
            drawn: Any = None if draws is None else draws[group]
            if drawn is not None and not plain:  # what such a network draws is found out by running it
                drawn = fill(self.method.sites(tasks), drawn)
            with differentiated_twice():
                objective, metrics = self._objective(some, drawn, count, first == 0)
                if not (self._begun or self._transformed or plain):
                    require_second_derivatives(objective)
                gradients = list(torch.autograd.grad(objective, parameters, materialize_grads=True))
            return MetaStep(objective.detach(), gradients, metrics)

        total = step(0)
        for first in range(size, count, size):
            more = step(first)
            torch._foreach_add_(total.gradients, more.gradients)
            sums = {name: total.metrics[name] + more.metrics.get(name, 0) for name in total.metrics}
            total = MetaStep(total.objective + more.objective, total.gradients, sums)
        if not self._begun and self._transformed and not plain:
            self._check(total, tasks, draws)
        if not self._begun and not total.objective.isfinite():
            noise = None if draws is None else fill(self.method.sites(tasks), draws[:])
            found = where_overflowed(self.method, tasks, noise)
            warnings.warn(f"The first meta-objective is not finite: {found}.", RuntimeWarning, stacklevel=2)
        self._begun = True
        return total

    def _check(self, found: MetaStep, tasks: Task, draws: Draws | None) -> None:
        """Hold the first step of transformed code against eager code: compilers do not see through every network."""
        eager = torch.cat([g.flatten() for g in Differentiate(self.method, self.executor)(tasks, draws).gradients])
        error = (torch.cat([g.flatten() for g in found.gradients]) - eager).norm() / eager.norm()
        if error > 1e-3:
            raise RuntimeError(
                f"The transformed meta-gradient of this network differs from the eager one by {error:.1e} (relative): "
                "leave the transform out."
            )

    def _of_group(self, tasks: Task, drawn: Drawn | Noise, count: int, regularised: bool) -> Estimate:
        """What a group adds to the objective and to the metrics' means over ``count`` tasks."""
        noise = fill(self.method.sites(tasks), drawn) if isinstance(drawn, Drawn) else drawn
        estimates = self.method.estimate(tasks, noise, self.executor)
        objective = estimates.objective.sum() / (count if self.method.task_reduction == "mean" else 1)
        metrics = {name: values.sum() / count for name, values in estimates.metrics.items()}
        return with_penalties(objective, metrics, self.method.penalties() if regularised else {})
