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
    mean over these too: a joint head answers them with the query, any other network is asked for them.
    """
    asked = judged = query
    if support_rows:
        assert support is not None, "an estimator has it"
        judged = with_support(support, query)
        whole = asking_whole(learner.network, judged.weight)
        asked, point = query if whole else judged, point._replace(context=point.context | whole)
    prediction = learner.predict(point, asked, support, noise, statistics)
    loss = reduce_rows(learner.loss.rows(prediction, judged.y), judged.weight, "mean")
    prediction = prediction[-len(query.y) :]
    score = reduce_rows(learner.loss.score(prediction.detach(), query.y), query.weight, "mean")
    return loss, {"loss": loss.detach(), learner.loss.score_name: score}


def with_support(support: Batch, query: Batch) -> Batch:
    """The rows of both, the support's first; of one task, or with a task axis."""
    axis = query.weight.dim() - 1
    return Batch(*(torch.cat(pair, axis) for pair in zip(support, query, strict=True)))


def with_penalties(objective: Tensor, metrics: dict[str, Tensor], penalties: Penalties) -> Estimate:
    """An estimate to whose objective penalties are added, and that logs them."""
    logged = {name: penalty.detach() for name, penalty in penalties.items()}
    return Estimate(objective + sum(penalties.values()), metrics | logged)
