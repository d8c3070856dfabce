"""A variational meta-gradient: weights are drawn from a posterior that has seen the query."""

import math
from functools import partial

from torch import Tensor

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.backprop import Backprop
from fewstep.core.noise import Noise
from fewstep.core.stages import Decode
from fewstep.core.start.normal_weights import NormalWeights
from fewstep.core.types import AnyTask, Batch, Estimate, Point


class Amortised(Backprop):
    """The meta-gradient of a variational bound whose posterior is a step on the query (Finn, Xu and Levine 2018).

    ``∇ [L_Q(φ) + w KL(q ‖ p)]``, with ``θ ~ q = N(μ − γ_q ∘ ∇L_Q(μ), v)``, drawn once; φ what the stages after
    ``Decode`` make of θ on the support; and the prior ``p = N(μ', σ²)``, where μ' is what the stages before it make of
    μ. Every derivative is taken, those by σ, v and γ_q among them. In evaluation nothing is drawn, and θ is μ'.

    The learner's start is :class:`NormalWeights`, which holds σ, v and γ_q.

    Args:
        kl_weight: w ≥ 0, of the divergence summed over weights, beside the mean loss of the query's rows.

    Raises:
        ValueError: for a negative weight.

    Example:
        >>> start = NormalWeights(dict(line.named_parameters()))
        >>> learner = Learner(line, start, [Descend(SGD(0.1), 1), Decode(), Descend(SGD(0.1), 1)], loss=regression())
        >>> method = Method(learner, Amortised(kl_weight=0.1))
        >>> sorted(method.objective(parabola, method.noise(parabola, generator(0, 0, "noise"))).metrics)
        ['kl', 'loss', 'mse']
    """

    def __init__(self, kl_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= kl_weight < math.inf:
            raise ValueError(f"Amortised: the weight of the divergence must be at least 0 and finite, got {kl_weight}.")
        self.kl_weight = kl_weight

    def untrained(self, learner: Learner) -> set[str]:
        """None.

        Raises:
            ValueError: for another start.
        """
        if not isinstance(learner.start, NormalWeights):
            given = type(learner.start).__name__
            raise ValueError(f"Amortised: the start must be NormalWeights, which holds the posterior; it is {given}.")
        return set()

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """Query loss of weights that are drawn from the posterior and adapted, plus the divergence."""
        if noise is None:
            return super().__call__(learner, task, noise, map_tasks)
        start = learner.start
        assert isinstance(start, NormalWeights), "untrained has looked"
        stages = list(learner.stages)
        cut = next(i for i, stage in enumerate(stages) if isinstance(stage, Decode))
        own = list(zip(noise["stages"], noise["shuffles"], strict=True))
        support, query = (map_tasks(learner.embed)(batch) for batch in (task.support, task.query))
        begun = map_tasks(partial(self._begun, learner))(support)
        prior = learner.resume(begun, stages[:cut], support, self.slope, own[:cut], map_tasks)
        posterior = learner.resume(begun, [start.posterior], query, self.slope, None, map_tasks)
        drawn = map_tasks(start.draw)(posterior, noise["stages"][cut]["decode"])
        after = own[cut + 1 :]
        point = learner.resume(drawn, stages[cut + 1 :], support, self.slope, after, map_tasks, decoded=True)
        penalties = {"kl": map_tasks(self._weighted)(map_tasks(start.divergence)(posterior, prior))}
        outer = map_tasks(partial(self._outer, learner))
        estimate: Estimate = outer(point, penalties, task.support, task.query, noise["query"])
        return estimate

    def _begun(self, learner: Learner, support: Batch) -> Point:
        return learner.start.begin(learner.network, support, None)[0]

    def _weighted(self, divergence: Tensor) -> Tensor:
        return self.kl_weight * divergence
