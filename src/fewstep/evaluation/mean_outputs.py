"""Several sets of meta-parameters of one method as one predictor."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fewstep.core import Batch, Executor, Method, Vmap
from fewstep.core.types import Statistics
from fewstep.evaluation.inner_loop import evaluation_copy


class MeanOutputs:
    """The mean of what a method predicts with each of several sets of meta-parameters; of classes, of their logits.

    ``f(x; S) = (1/M) Σ_m f_{φ_m}(x)``, φ_m adapted to the support S from set m by its own rates, as MAML++ tests the
    best checkpoints of a run (Antoniou et al. 2019, their program).

    Args:
        method: is not changed; its inner steps are those that it has now.
        members: meta-parameters by their names, for each set.
        statistics: of batch normalisation, see :func:`~fewstep.evaluation.evaluate`.
        executor: how tasks are run.

    Raises:
        ValueError: without members.
    """

    def __init__(
        self,
        method: Method,
        members: Sequence[Mapping[str, Tensor]],
        statistics: Statistics | None = None,
        executor: Executor | None = None,
    ) -> None:
        if not members:
            raise ValueError("MeanOutputs: there is nothing to average; give at least one set of meta-parameters.")
        self.methods = [evaluation_copy(method) for _ in members]
        for one, weights in zip(self.methods, members, strict=True):
            one.learner.load_state_dict(dict(weights))
        self.statistics, self.executor = statistics or method.meta_gradient.statistics, executor or Vmap()

    def __call__(self, support: Batch, query: Batch) -> Tensor:
        """``[tasks, rows, outputs]``: predictions for the queries of tasks, whose supports are given beside them."""
        found = []
        for method in self.methods:
            point = method.adapt(support, self.executor, self.statistics)
            found.append(method.predict(point, query, support, self.executor, self.statistics))
        return torch.stack(found).mean(0)
