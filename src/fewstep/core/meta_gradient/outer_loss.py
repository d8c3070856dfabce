"""What every estimator asks of an adapted point: how well it answers the query."""

import torch
from torch import Tensor

from fewstep.core.learner import Learner
from fewstep.core.loss import reduce_rows
from fewstep.core.network.heads import asking_whole
from fewstep.core.noise import Noise
from fewstep.core.types import Batch, Estimate, Penalties, Point, Statistics


def query_loss(
    learner: Learner,
    point: Point,
    query: Batch,
    support: Batch | None = None,
    noise: Noise = None,
    statistics: Statistics = "query",
    support_rows: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean query loss, differentiable, and what is logged of it: the loss and the score.

    ``statistics`` are those that ``Learner.predict`` normalises the query by. With ``support_rows`` the loss is the
    mean over these too, as a joint head answers them with the query.
    """
    y, weight = query.y, query.weight
    if support_rows:
        assert support is not None, "an estimator has it"
        y, weight = torch.cat([support.y, y]), torch.cat([support.weight, weight])
        point = point._replace(context=point.context | asking_whole(learner.network, weight))
    prediction = learner.predict(point, query, support, noise, statistics)
    loss = reduce_rows(learner.loss.rows(prediction, y), weight, "mean")
    prediction = prediction[-len(query.y) :]
    score = reduce_rows(learner.loss.score(prediction.detach(), query.y), query.weight, "mean")
    return loss, {"loss": loss.detach(), learner.loss.score_name: score}


def with_penalties(objective: Tensor, metrics: dict[str, Tensor], penalties: Penalties) -> Estimate:
    """An estimate to whose objective penalties are added, and that logs them."""
    logged = {name: penalty.detach() for name, penalty in penalties.items()}
    return Estimate(objective + sum(penalties.values()), metrics | logged)
