"""The learner: a network, a start and stages, composed into adaptation and prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewstep.core.executors import Executor, Vmap, direct
from fewstep.core.loss import Loss, classification, reduce_rows
from fewstep.core.network.admission import admit
from fewstep.core.network.operations import Mixing, call, is_plain, mixing, random_sites
from fewstep.core.network.row_weights import (
    UNNAMED,
    batch_statistics,
    normalises,
    row_weights,
    running,
    together,
    unnamed,
)
from fewstep.core.network.shapes import output_shape
from fewstep.core.network.stepped import Stepped, at_step
from fewstep.core.noise import Draws, Mask, Noise, Site, copied, dropout, entry, fill, own_draws
from fewstep.core.recompute import recomputed
from fewstep.core.slope import Slope, exact
from fewstep.core.stages import Decode, Given, InnerLoss, Stage, Visit
from fewstep.core.start.base import Start
from fewstep.core.types import AnyTask, Batch, Params, Penalties, Point, Statistics, require_statistics

_NONE_RUN = (
    "the embedding normalises by batch statistics and is not adapted, so none of it run along an adaptation; normalise "
    "queries by the query, the support, or the joined support."
)
_TOGETHER = (
    "the network answers queries together, by design (transductive), so that no other rows can stand in for them; use "
    'statistics="query"'
)


class Learner(nn.Module):
    """Adapts a network to a task: begin at the start, go through the stages, predict.

    Args:
        network: maps ``[rows, *features]`` to predictions ``[rows, outputs]``; stateless under function transforms.
            Registered here, once; the start receives it as an argument.
        start: where adaptation begins.
        stages: ``Descend`` before ``Decode`` moves codes, after it moves weights. Exactly one ``Decode`` takes place:
            it is appended when omitted.
        embedding: turns a task's inputs into what start and network take for inputs. It is meta-learned with all the
            rest and never adapted, so that the support passes it once, however many steps follow. Its normalising
            layers take their statistics from the rows that those of the network take.
        loss: the loss of rows, and how the support reduces it.
        dropout: rate in [0, 1) of dropout on the (embedded) inputs, in meta-training only, with a fresh mask at the
            start, at every support pass and at the query (LEO, B.4).
        recompute: keep only the points between inner steps, and compute each step a second time for the
            meta-gradient. The gradients are the same; memory hardly grows with the number of steps.

    Raises:
        ValueError: for a network that cannot be adapted as it is, a dropout rate out of range, another kind of stage,
            more than one ``Decode``, a network that the start cannot begin with, or a rule whose meta-parameters belong
            to other values.

    Example:
        >>> learner = Learner(mlp((1, 40, 1)), Shared(), [Descend(SGD(0.01), steps=3)], loss=regression())
        >>> support, query = (Batch(*(tensor[0] for tensor in batch)) for batch in sines)  # of one task
        >>> point, penalties = learner.adapt(support)
        >>> learner.predict(point, query).shape
        torch.Size([10, 1])
    """

    progress: Tensor
    """How far meta-training has come, from 0 to 1, for estimators that go by it. The outer loop says so; it is a tensor
    that is changed in place, so that compiled code sees it."""

    def __init__(
        self,
        network: nn.Module,
        start: Start,
        stages: Iterable[Stage],
        *,
        embedding: nn.Module | None = None,
        loss: Loss | None = None,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        stages = list(stages)
        if unknown := [type(stage).__name__ for stage in stages if not isinstance(stage, Stage)]:
            raise ValueError(
                f"Learner: {unknown[0]} is no Stage; give stages such as Descend(rule, steps) and Decode()."
            )
        decodes = sum(isinstance(stage, Decode) for stage in stages)
        if decodes > 1:
            raise ValueError(f"Learner: codes can be decoded once, but {decodes} Decode stages were given.")
        if not 0 <= dropout <= 1 - 2**-16:  # rates are rounded to so much
            raise ValueError(f"Learner: dropout is the rate of dropping, in [0, 1); got {dropout}.")
        admit(network, "Learner")
        if embedding is not None:
            admit(embedding, "Learner: the embedding")
        own = {id(p) for part in (network, start) for p in part.parameters()}
        if embedding is not None and any(id(p) in own for p in embedding.parameters()):
            raise ValueError("Learner: the embedding has parameters of the network or of the start; copy them.")
        self.network, self.start, self.embedding = network, start, embedding
        self._shapes: dict[torch.Size, torch.Size] = {}
        self._random: dict[Any, list[Site]] = {}
        self._mixing: dict[Any, Mixing] = {}
        # torch types entries of a list as modules
        self.stages: Sequence[Stage] = nn.ModuleList(stages if decodes else [*stages, Decode()])  # type: ignore[assignment]
        self._stepped = any(isinstance(layer, Stepped) for layer in network.modules())
        self.register_buffer("progress", torch.zeros(()), persistent=False)
        self.loss, self.dropout, self.recompute = loss or classification(), dropout, recompute
        self._check_rules()

    def _check_rules(self) -> None:
        """Hold every rule against the names that it will move, and against shapes where no task is needed for them."""
        shared, decoded = self.start.shared(self.network), False
        shapes = None if shared is None else {name: tensor.to("meta") for name, tensor in shared.items()}
        # Asked for both, whatever the stages: the start refuses here a network that it cannot begin with.
        names = [self.start.adapted_names(self.network, after) for after in (False, True)]
        for stage in self.stages:
            decoded |= isinstance(stage, Decode)
            stage.check(names[decoded], shapes)

    def trained(self) -> list[nn.Parameter]:
        """The meta-parameters that are not frozen, in their order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @property
    def plain(self) -> bool:
        """Whether network and embedding run as they are, without a look at what they ask of torch."""
        return is_plain(self.network) and (self.embedding is None or is_plain(self.embedding))

    # -- what is random ------------------------------------------------------------------------------------------

    def sites(self, task: AnyTask, statistics: Statistics = "query") -> dict[str, Any]:
        """Every random draw of one task: a nest in the shape of the noise that :meth:`adapt` reads.

        Args:
            task: one task or a batch of them; only shapes are read, rows on the last axis of ``weight``.
            statistics: that the query will be normalised by, see :meth:`predict`: they say which rows are run together.
        """
        self.examine(task.support)
        given = [_single(batch) for batch in (task.support, task.query)]
        support, query = (self._as_embedded(batch) for batch in given)
        decode = dict(self.start.decode_sites(support))
        # An inner loss of codes decodes them.
        codes: dict[str, Any] = {"decode": decode} if self.start.samples_steps else {}
        stages, shuffles = [], []
        for stage in self.stages:
            if isinstance(stage, Decode):
                codes = {}
            stages.append(stage.sites(decode, partial(self._loss_sites, support, codes)))
            shuffles.append(stage.shuffle_sites(len(support.weight)))
        return {
            "embed": self._own_draws(self.embedding, given[0]),
            "begin": {"start": dict(self.start.begin_sites(self.network, support)), "dropout": self._masks(support)},
            "stages": stages,
            "shuffles": shuffles,
            "query": self._query_sites(given[1], query, len(support.weight), statistics),
        }

    def _query_sites(self, query: Batch, embedded: Batch, shots: int, statistics: Statistics) -> dict[str, Any]:
        """What is drawn for the query: the support's rows pass the network with it where it is normalised by them."""
        alone = statistics == "joined"
        rows = (shots if statistics in ("support", "joined") else 0) + (1 if alone else len(query.weight))

        def drawn(module: nn.Module | None, batch: Batch) -> Any:
            own = self._own_draws(module, batch, rows)
            return copied(own, len(query.weight)) if alone and own else own

        return {
            "dropout": self._masks(embedded),
            "embed": drawn(self.embedding, query),
            "network": drawn(self.network, embedded),
        }

    def draws(self, tasks: AnyTask, source: torch.Generator) -> Draws:
        """All the randomness of a batch of tasks, in the dtype of its weights; ``fill`` makes noise of a part of it."""
        return Draws(self.sites(tasks), len(tasks.support.weight), source, tasks.support.weight.dtype)

    def noise(self, tasks: AnyTask, source: torch.Generator) -> Noise:
        """Draw the noise of a batch of tasks: for each site a tensor with a leading task axis."""
        return fill(self.sites(tasks), self.draws(tasks, source)[:])

    def _loss_sites(self, support: Batch, codes: dict[str, Any], rows: int | None) -> dict[str, Any]:
        return {"dropout": self._masks(support, rows), "network": self._own_draws(self.network, support, rows)} | codes

    def _own_draws(self, module: nn.Module | None, batch: Batch, rows: int | None = None) -> list[Site]:
        """What network or embedding draws by itself on such a batch, or on so many ``rows``; remembered by shape."""
        if module is None or is_plain(module):
            return []
        shape = (len(batch.weight) if rows is None else rows, *batch.x.shape[1:])
        key = (module is self.network, shape, batch.x.dtype, *(part.training for part in module.modules()))
        if key not in self._random:
            weights = self._some_weights(batch) if module is self.network else {}
            like = batch._replace(x=torch.empty(shape, dtype=batch.x.dtype, device="meta"))
            self._random[key] = random_sites(module, weights, like)
        return self._random[key]

    def examine(self, batch: Batch) -> None:
        """Find out, once for a shape of rows, whether network and embedding let rows see each other.

        Networks of torch's plain layers and of fewstep's own are known; others cost two forwards.
        """
        for module in (self.embedding, self.network):
            if module is None or is_plain(module):
                continue
            rows = _single(batch) if module is self.embedding else self._as_embedded(_single(batch))
            key = (module is self.network, rows.x.shape, *(part.training for part in module.modules()))
            if key not in self._mixing:
                weights = self._some_weights(rows) if module is self.network else {}
                self._mixing[key] = mixing(module, weights, rows)

    def _some_weights(self, support: Batch) -> Params:
        """What the start makes of rows of zeros: weights that fill whatever slots the network has."""
        dtype = support.weight.dtype if support.x.is_floating_point() else support.x.dtype
        zeros = torch.zeros(support.x.shape, dtype=dtype, device=support.weight.device)
        with torch.no_grad():
            point, _ = self.start.begin(self.network, support._replace(x=zeros), None)
            point = self.start.decode(point, None)
        return {**point.context, **point.value}

    def _masks(self, batch: Batch, rows: int | None = None) -> dict[str, Mask]:
        """A mask for each input of ``batch``, or of a mini-batch of so many ``rows``."""
        shape = (len(batch.weight) if rows is None else rows, *batch.x.shape[1:])
        return {"kept": Mask(shape, self.dropout)} if self.dropout else {}

    def _dropped(self, batch: Batch, noise: Noise) -> Batch:
        masks = entry(noise, "dropout")
        return batch._replace(x=dropout(batch.x, masks["kept"], self.dropout)) if masks else batch

    def _as_embedded(self, batch: Batch) -> Batch:
        """A batch with the shapes of its embedded rows, and without their numbers."""
        if self.embedding is None:
            return batch
        shape = batch.x.shape[1:]
        if shape not in self._shapes:
            self._shapes[shape] = output_shape(self.embedding, batch.x)
        return batch._replace(x=torch.empty(len(batch.x), *self._shapes[shape], device="meta"))

    # -- what a task does ----------------------------------------------------------------------------------------

    def adapt(
        self,
        support: Batch,
        slope: Slope = exact,
        noise: Noise = None,
        map_tasks: Executor = direct,
        visit: Visit | None = None,
        classes: Int[Tensor, "*tasks ways"] | None = None,
        targets: Batch | None = None,
    ) -> tuple[Point, Penalties]:
        """Adapt to a support: from where the task starts, through the stages, to network weights.

        Args:
            support: the labelled rows of one task, or of many when ``map_tasks`` maps over tasks.
            slope: how a loss becomes its gradient.
            noise: from :meth:`noise`; None in evaluation.
            map_tasks: maps every single piece over tasks; the default runs inside one task.
            visit: told of every point that the descents pass, see ``Descend``.
            classes: which classes of meta-training it is of, where that is known, see :class:`KnownTask`.
            targets: the rows that the adapted point is to be judged by, for a start with a posterior that sees them
                where there is ``noise``, see ``Start.infer``.

        Returns:
            The adapted point, decoded; and the penalties of start and stages.
        """
        if self.embedding is not None:
            support = map_tasks(self.embed)(support, own_draws(noise, "embed"))
        begun, penalties = map_tasks(self._begin)(support, classes, targets, noise)
        stages = list(self.stages)
        cut = next(i for i, stage in enumerate(stages) if isinstance(stage, Decode))
        own = None if noise is None else list(zip(noise["stages"], noise["shuffles"], strict=True))
        before, after = (None, None) if own is None else (own[:cut], own[cut:])
        point = self.resume(begun, stages[:cut], support, slope, before, map_tasks, visit)
        if noise is not None:
            penalties = penalties | map_tasks(self.start.penalise)(begun, point)
        return self.resume(point, stages[cut:], support, slope, after, map_tasks, visit), penalties

    def resume(
        self,
        point: Point,
        stages: Iterable[Stage],
        support: Batch,
        slope: Slope = exact,
        noise: Sequence[tuple[Noise, Noise]] | None = None,
        map_tasks: Executor = direct,
        visit: Visit | None = None,
        decoded: bool = False,
    ) -> Point:
        """Take a point through stages: a part of an adaptation, or what an estimator does beside it.

        Args:
            point: where a task stands.
            stages: the learner's own or others.
            support: the embedded rows that they see, see :meth:`embed`.
            slope: how a loss becomes its gradient.
            noise: for each stage, in the shape of its sites and of its shuffle sites; None in evaluation.
            map_tasks: as in :meth:`adapt`.
            visit: told of every point that the descents pass.
            decoded: whether the point is one of weights already.
        """
        map_step = partial(recomputed, map_tasks, list(self.parameters())) if self.recompute else map_tasks

        def slots(step: int) -> Params:
            steps: Params = map_tasks(partial(at_step, self.network, step))(support.weight) if self._stepped else {}
            return steps

        visit = (lambda point: None) if visit is None else visit  # not `or`: no compiler asks a method if it is true
        for i, stage in enumerate(stages):
            decoded |= isinstance(stage, Decode)
            loss, (own, shuffle) = self.inner_loss(decoded), (None, None) if noise is None else noise[i]
            given = Given(support, loss, self.start.decode, slope, own, shuffle, map_tasks, map_step, visit, slots)
            point = stage(point, given)
        return point

    def embed(self, batch: Batch, noise: Noise = None) -> Batch:
        """The rows of one task as start, stages and network take them; normalised by their own statistics."""
        return batch if self.embedding is None else batch._replace(x=self._embedded(batch.x, batch.weight, noise))

    def features(self, batch: Batch) -> Float[Tensor, "rows features"]:
        """What embedding and network make of rows that belong to no task; where a head is made for tasks, its input."""
        batch = self.embed(batch)
        return call(self.network, row_weights(self.network, batch.weight), batch.x, batch.weight).output

    def _begin(
        self, support: Batch, classes: Tensor | None, targets: Batch | None, noise: Noise
    ) -> tuple[Point, Penalties]:
        begin, query = entry(noise, "begin"), entry(noise, "query")
        support, own = self._dropped(support, begin), entry(begin, "start")
        if targets is not None and noise is not None and self.start.infers:
            targets = self._dropped(self.embed(targets, own_draws(query, "embed")), query)
            return self.start.infer(self.network, support, targets, own)
        if classes is None:
            return self.start.begin(self.network, support, own)
        return self.start.begin_known(self.network, support, classes, own)

    def inner_loss(self, decoded: bool) -> InnerLoss:
        """The loss of an embedded support by codes, or by weights once they are ``decoded``: what a stage descends."""
        return partial(self._inner_loss, decoded)

    def _inner_loss(self, decoded: bool, value: Params, context: Params, support: Batch, noise: Noise) -> Tensor:
        point = Point(value, context)
        if decoded:
            return self.support_loss(point, support, noise)
        loss = self.support_loss(self.start.decode(point, own_draws(noise, "decode")), support, noise)
        energy = self.start.energy(point)
        return loss if energy is None else loss + energy

    def support_loss(self, point: Point, support: Batch, noise: Noise = None) -> Float[Tensor, ""]:
        """The inner loss of an embedded support at decoded weights, reduced as ``loss.support`` says."""
        dropped = self._dropped(support, noise)
        rows = self.loss.rows(self._forward(point, dropped.x, dropped.weight, own_draws(noise, "network")), support.y)
        return reduce_rows(rows, support.weight, self.loss.support)

    def predict(
        self,
        point: Point,
        query: Batch,
        support: Batch | None = None,
        noise: Noise = None,
        statistics: Statistics = "query",
    ) -> Float[Tensor, "rows outputs"]:
        """The adapted network's predictions for the rows of ``query``; its labels are not read.

        All :data:`~fewstep.core.types.Statistics` are exact at every layer, because they are weighted by row: the
        support passes through the network beside the query. They make no difference where nothing normalises by them.

        Args:
            point: decoded, from :meth:`adapt`.
            query: rows to predict.
            support: the rows of the task's support, for the statistics that are made of them.
            noise: the query's, from :meth:`noise`; None in evaluation.
            statistics: what batch-normalising layers normalise the query by.

        Raises:
            ValueError: for statistics that there are not, or without what they are made of; or for others than those
                of the query, of a network that answers queries together.
        """
        require_statistics(statistics, "Learner.predict")
        statistics = self._checked(statistics, point, query, support)
        if statistics != "running":  # which a point may carry nevertheless
            left_out = self._running_slots(point)
            point = point._replace(context={name: t for name, t in point.context.items() if name not in left_out})
        if statistics in ("query", "running") or support is None:
            query = self._dropped(self.embed(query, own_draws(noise, "embed")), noise)
            return self._forward(point, query.x, query.weight, own_draws(noise, "network"))
        if statistics == "joined":

            def alone(x: Tensor, embed: Noise, network: Noise) -> Tensor:
                weight = torch.cat([support.weight, support.weight.new_ones(1)])
                rows = self._embedded(torch.cat([support.x, x.unsqueeze(0)]), weight, embed)
                return self._forward(point, rows, weight, network)[-1]

            predictions: Tensor = Vmap()(alone)(query.x, own_draws(noise, "embed"), own_draws(noise, "network"))
            return predictions
        weight = torch.cat([support.weight, torch.zeros_like(query.weight)])
        x = self._embedded(torch.cat([support.x, query.x]), weight, own_draws(noise, "embed"))
        query = self._dropped(query._replace(x=x[len(support.x) :]), noise)
        together = torch.cat([x[: len(support.x)], query.x])
        return self._forward(point, together, weight, own_draws(noise, "network"))[len(support.x) :]

    @property
    def batch_normalised(self) -> bool:
        """Whether predictions depend on the rows beside: network or embedding normalise by their statistics.

        Known of layers; of what happens in a user's ``forward`` once :meth:`examine` has seen such rows.
        """
        seen = any(found.normalises or found.otherwise for found in self._mixing.values())
        return seen or any(map(normalises, self.modules()))

    @property
    def transductive(self) -> bool:
        """Whether queries are answered together by design, whatever they are normalised by."""
        return together(self)

    def _running_slots(self, point: Point) -> set[str]:
        """The names of running statistics in the context of a point."""
        parts = (slot.rpartition(".")[0] for slot in row_weights(self.network, torch.ones(0)))
        named = {f"{part}.{kind}" for part in parts for kind in ("mean", "variance")}
        return {name for name in point.context if name in named or name.startswith(UNNAMED)}

    def _checked(self, statistics: Statistics, point: Point, query: Batch, support: Batch | None) -> Statistics:
        """The statistics to use: those of the query where nothing is made of any."""
        if statistics != "query" and self.transductive:
            raise ValueError(f"Learner.predict: {_TOGETHER}, got {statistics!r}.")
        if statistics in ("support", "joined") and support is None:
            raise ValueError(f"Learner.predict: {statistics!r} statistics are made of the support; give its rows too.")
        if not self.batch_normalised:
            return "query"
        if statistics == "running" and self.embedding is not None and any(map(normalises, self.embedding.modules())):
            raise ValueError(f"Learner.predict: {_NONE_RUN}")
        if statistics == "support" and any(found.otherwise for found in self._mixing.values()):
            raise ValueError(
                "Learner.predict: the network lets rows see each other otherwise than by batch normalisation, so there "
                'are no statistics of the support; predict with "joined", each query beside the support, or "query".'
            )
        if statistics == "running" and not self._running_slots(point):
            raise ValueError(
                'Learner.predict: the point has no running statistics; adapt with statistics="running" too.'
            )
        return statistics

    def running(self, points: Iterable[Point], support: Batch) -> Params:
        """Running statistics of the support along an adaptation, as slots for a point's context.

        ``s ← (1 − m) s + m s_k`` over the ``points``, where s_k are the statistics of all support rows at the k-th
        and m is each layer's momentum (Ravi and Larochelle 2017).

        Raises:
            ValueError: for an embedding that normalises: there are no adapted weights of it for statistics to follow;
                or for a network that answers queries together.
        """
        if self.transductive:
            raise ValueError(f"Learner.running: {_TOGETHER}.")
        if self.embedding is not None and any(map(normalises, self.embedding.modules())):
            raise ValueError(f"Learner.running: {_NONE_RUN}")
        support = self.embed(support)
        statistics: Params = {}
        for point in points:
            weights = {**point.context, **point.value}
            newest = batch_statistics(self.network, weights, support.x, support.weight)
            statistics = running(statistics, newest)
        return statistics

    def _embedded(self, x: Tensor, weight: Tensor, draws: Noise = None) -> Tensor:
        if self.embedding is None:
            return x
        return call(self.embedding, row_weights(self.embedding, weight), x, weight, draws).output

    def _forward(self, point: Point, x: Tensor, weight: Tensor, draws: Noise = None) -> Tensor:
        weights, moments = unnamed({**point.context, **point.value, **row_weights(self.network, weight)})
        return call(self.network, weights, x, weight, draws, moments).output


def _single(batch: Batch) -> Batch:
    """One task's batch, when a leading task axis is there."""
    return Batch(*(tensor[0] for tensor in batch)) if batch.weight.dim() == 2 else batch
