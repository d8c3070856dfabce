"""An estimator for predictive distributions: several adaptations to a task, judged together."""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.executors import Executor, Function, Vmap, direct
from fewstep.core.learner import Learner
from fewstep.core.loss import Loss, reduce_rows
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import Slope, exact
from fewstep.core.types import AnyTask, Batch, Estimate, Penalties, Point, Task


class Mixture(MetaGradient):
    """The meta-gradient of a predictive likelihood: several adaptations to a task answer its query together.

    ``∇ [−1/R log 1/M Σ_m Π_j p(y_j | f_m(x_j)) + mean of penalties]``, f_1 … f_M adapted with independent noise.

    A multi-sample lower bound of the log predictive likelihood of the R query rows together, in nats a row: the
    importance-weighted bound of Burda et al. (2016) where the generator is proposal and prior, so that the weights are
    the likelihoods alone. For M = 1 it is the expected log-likelihood, LEO's Eq. 6, which every sample has to satisfy
    for itself; with more, samples may share the possible answers between them. Not of the LEO paper.

    ``weighted``: ``Σ_m w_m Π_j p(y_j | f_m(x_j))`` in place of the mean, ``w_m ∝ Π_i p(y_i | f_m(x_i))`` over the
    support: importance sampling, which leaves it to the likelihood how much of the answer each sample has. It bounds
    the log likelihood of such mixtures of M, which is what a prediction then is
    (:class:`~fewstep.evaluation.functions.Functions`).

    p is normal with deviation σ, ``N(y; f(x), σ² I)``; or, without a ``noise``, ``exp(−loss)`` of the learner's loss,
    which is the categorical likelihood for cross-entropy. The inner loop descends the learner's loss in both cases.

    Logged: ``loss``, the objective without penalties; the score, a sample's on average; ``effective_samples``,
    ``(Σ p)²/Σ p²``, from 1 (one sample answers the query) to M.

    Args:
        samples: M ≥ 1.
        noise: σ > 0, the deviation of the targets' noise in their units; constant.
        executor: how the samples of a task are run; :class:`Vmap` when omitted. A network that has to be run task by
            task (:class:`Loop`) needs that here too.
        weighted: samples count by their likelihood on the support, in training and in predictions.

    Raises:
        ValueError: for no samples, or a deviation that is not positive.

    Example:
        >>> method = leo_network(mlp((1, 40, 1)), 1, 1, meta_gradient=Mixture(samples=8, noise=0.3))
        >>> noise = method.noise(sines, generator(0, 0, "noise"))
        >>> method.objective(sines, noise).metrics["effective_samples"].shape  # of each task, from 1 to 8
        torch.Size([4])
    """

    slope: Slope = staticmethod(exact)

    def __init__(
        self, samples: int, noise: float | None = None, executor: Executor | None = None, *, weighted: bool = False
    ) -> None:
        if samples < 1:
            raise ValueError(f"Mixture: at least one sample is needed, got {samples}.")
        if noise is not None and not noise > 0:
            raise ValueError(f"Mixture: noise is the deviation σ > 0 of the targets, got {noise}.")
        self.copies = self.samples = samples
        self.deviation, self.executor, self.weighted = noise, executor or Vmap(), weighted

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """The bound and the mean penalties; without noise all samples are equal, and one is taken.

        Raises:
            ValueError: for noise of a single adaptation.
        """
        if noise is not None and "copies" not in noise:
            raise ValueError("Mixture: this is the noise of a single adaptation; take Method.noise, not Learner.noise.")
        noise, samples = (None, 1) if noise is None else (noise["copies"], self.samples)

        def each_sample(function: Function) -> Function:
            return map_tasks(self.executor(function))

        # The samples of a task are a batch of tasks of their own, inside the task.
        own = map_tasks(partial(_repeated, samples))(task)
        point, penalties = learner.adapt(own.support, self.slope, noise, each_sample)
        answers = each_sample(partial(self._answer, learner))(point, own.query, entry(noise, "query"))
        weights = each_sample(partial(self._weight, learner))(point, own.support) if self.weighted else None
        together = partial(_together, learner.loss.score_name)
        estimate: Estimate = map_tasks(together)(*answers, penalties, task.query, weights)
        return estimate

    def _answer(self, learner: Learner, point: Point, query: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """log p of the rows of the query together, and their mean score."""
        prediction = learner.predict(point, query, noise=noise)
        score = reduce_rows(learner.loss.score(prediction.detach(), query.y), query.weight, "mean")
        return self.log_likelihood(learner.loss, prediction, query), score

    def _weight(self, learner: Learner, point: Point, support: Batch) -> Tensor:
        return self.log_likelihood(learner.loss, learner.predict(point, support), support)

    def log_likelihood(self, loss: Loss, prediction: Float[Tensor, "rows outputs"], of: Batch) -> Float[Tensor, ""]:
        """``log Π_j p(y_j | f(x_j))`` of the rows of a batch, in nats: the logarithm of a sample's weight, if weighted.

        Args:
            loss: the learner's.
            prediction: ``f(x)``.
            of: the rows; of weight 0 they do not count.
        """
        if self.deviation is None:
            rows = -loss.rows(prediction, of.y)
        else:
            normalised = ((of.y - prediction) / self.deviation).square()
            rows = -(0.5 * normalised + math.log(self.deviation) + 0.5 * math.log(2 * math.pi)).sum(-1)
        return reduce_rows(rows, of.weight, "sum")


def _repeated(samples: int, task: AnyTask) -> Task:
    support, query = (Batch(*(t.expand(samples, *t.shape) for t in batch)) for batch in (task.support, task.query))
    return Task(support, query)


def _together(
    score_name: str,
    likelihoods: Float[Tensor, " samples"],
    scores: Float[Tensor, " samples"],
    penalties: Penalties,
    query: Batch,
    weights: Float[Tensor, " samples"] | None,
) -> Estimate:
    weights = torch.zeros_like(likelihoods) if weights is None else weights
    each = weights.log_softmax(0) + likelihoods
    loss = -each.logsumexp(0) / query.weight.sum()
    means = {name: penalty.mean() for name, penalty in penalties.items()}
    share = each.detach().softmax(0)
    metrics = {"loss": loss.detach(), score_name: scores.mean(), "effective_samples": 1 / share.square().sum()}
    return Estimate(torch.stack([loss, *means.values()]).sum(), metrics | {n: p.detach() for n, p in means.items()})
