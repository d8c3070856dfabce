"""What every estimator asks of an adapted point: how well it answers the query."""

from torch import Tensor

from fewstep.core.learner import Learner
from fewstep.core.loss import reduce_rows
from fewstep.core.noise import Noise
from fewstep.core.types import Batch, Estimate, Penalties, Point, Statistics


def query_loss(
    learner: Learner,
    point: Point,
    query: Batch,
    support: Batch | None = None,
    noise: Noise = None,
    statistics: Statistics = "query",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean query loss, differentiable, and what is logged of it: the loss and the score.

    ``statistics`` are those that ``Learner.predict`` normalises the query by.
    """
    prediction = learner.predict(point, query, support, noise, statistics)
    loss = reduce_rows(learner.loss.rows(prediction, query.y), query.weight, "mean")
    score = reduce_rows(learner.loss.score(prediction.detach(), query.y), query.weight, "mean")
    return loss, {"loss": loss.detach(), learner.loss.score_name: score}


def with_penalties(objective: Tensor, metrics: dict[str, Tensor], penalties: Penalties) -> Estimate:
    """An estimate to whose objective penalties are added, and that logs them."""
    logged = {name: penalty.detach() for name, penalty in penalties.items()}
    return Estimate(objective + sum(penalties.values()), metrics | logged)
