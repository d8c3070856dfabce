"""What a learner does between its start and its prediction: descend, decode, descend again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, final

import torch
from torch import Tensor, nn

from fewstep.core.executors import Executor
from fewstep.core.mini_batches import mini_batches, shuffle_site
from fewstep.core.noise import Noise, Sites, entry, own_draws
from fewstep.core.rule.base import Rule
from fewstep.core.slope import Slope
from fewstep.core.tree import zip_map
from fewstep.core.types import Batch, Params, Point

InnerLoss: TypeAlias = Callable[[Params, Params, Batch, Noise], Tensor]
"""The loss of a support at a value in its context, in the space where a stage works."""

Visit: TypeAlias = Callable[[Point], None]
"""Told of every point that a descent passes, where it begins and where it ends included."""


class Given(NamedTuple):
    """What a stage is given besides the point.

    Attributes:
        support: embedded rows of one task, or of many where ``map_tasks`` maps over tasks.
        loss: the inner loss of one task.
        decode: makes weights of the codes of one task, and of the noise for that.
        slope: how a loss becomes its gradient.
        noise: in the shape of the stage's sites, or None in evaluation.
        shuffle: in the shape of its shuffle sites, or None.
        map_tasks: maps a function of one task over those that are run.
        map_step: as ``map_tasks``, for a whole step.
        visit: told of every point on the way.
        at_step: slots by which the network tells inner steps apart, see :class:`Stepped`; of the tasks that are run.
    """

    support: Batch
    loss: InnerLoss
    decode: Callable[[Point, Noise], Point]
    slope: Slope
    noise: Noise
    shuffle: Noise
    map_tasks: Executor
    map_step: Executor
    visit: Visit
    at_step: Callable[[int], Params]


class Stage(nn.Module, ABC):
    """One part of an adaptation: takes a point on to the next. Meta-parameters are the module's own.

    Example:
        >>> class Shrink(Stage):
        ...     def forward(self, point, given):
        ...         return point._replace(value={name: 0.5 * tensor for name, tensor in point.value.items()})
        >>> learner = Learner(line, Shared(), [Shrink(), Descend(SGD(0.25), 1)], loss=regression())
        >>> Method(learner, Backprop()).adapt(parabola.support).value["weight"]  # twice halved
        tensor([[[0.2500]]])
    """

    def check(self, names: Collection[str] | None, value: Params | None) -> None:
        """Refuse what the stage cannot move, when a learner is made.

        Args:
            names: of the values that it will move; None when it takes a task to know.
            value: where every task starts, as shapes (tensors on "meta"); None when each has a start of its own.

        Raises:
            ValueError: naming both.
        """

    def sites(self, decode: Sites, loss: Callable[[int | None], Any]) -> Any:
        """Random sites of its noise: a nest of those of each ``decode`` and of each look at the inner ``loss``.

        Args:
            decode: sites of one decoding.
            loss: the sites of one inner loss, of so many rows or of the whole support.
        """
        return {}

    def shuffle_sites(self, rows: int) -> dict[str, Any]:
        """Random sites of what is drawn once for a task and not for a step, such as the order of the support's rows."""
        return {}

    def used(self) -> Iterable[nn.Parameter]:
        """The meta-parameters that have a part in what it does."""
        return self.parameters()

    @abstractmethod
    def forward(self, point: Point, given: Given) -> Point:
        """The next point. Tensors may have a task axis: what is not elementwise goes through ``given.map_tasks``."""


@final
class Descend(Stage):
    """A number of gradient steps on the support loss, in whatever space the point is in.

    Step k moves the value φ_k by the rule on the gradient of ``L_S(φ) + λ/2 ‖φ − φ_0‖²``, where φ_0 is the value that
    the stage began with.

    Args:
        rule: how one step moves.
        steps: how many, ≥ 0. Zero leaves the point as it is. Like ``batch`` and ``prox`` it can be changed between
            training and evaluation.
        batch: rows of the mini-batch that a step sees, see :func:`~fewstep.core.mini_batches.mini_batches`; the whole
            support when omitted.
        prox: λ ≥ 0, the pull towards the beginning (iMAML).
        proximal: the pull is in ``"every"`` step, or the steps descend L_S alone and ``"last"`` comes one more step on
            ``λ/2 ‖φ − φ_0‖²`` alone, as in the iMAML authors' code.

    Raises:
        ValueError: for a negative number of steps or λ, an empty mini-batch, or an unknown ``proximal``.

    Example:
        >>> descend = Descend(SGD(0.25), steps=1)  # on w², a step halves w
        >>> method = Method(Learner(line, Shared(), [descend], loss=regression()), Backprop())
        >>> descend.steps = 3  # more of them at test time
        >>> method.adapt(parabola.support).value
        {'weight': tensor([[[0.1250]]])}
    """

    def __init__(
        self,
        rule: Rule,
        steps: int,
        *,
        batch: int | None = None,
        prox: float = 0.0,
        proximal: Literal["every", "last"] = "every",
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"Descend: steps must be zero or more, got {steps}.")
        if batch is not None and batch < 1:
            raise ValueError(f"Descend: a mini-batch must have at least one row, got {batch}; omit it for all rows.")
        if not prox >= 0:
            raise ValueError(f"Descend: prox is the strength λ ≥ 0 of the pull to the beginning, got {prox}.")
        if proximal not in ("every", "last"):
            raise ValueError(f"Descend: proximal is the pull in 'every' step or in the 'last' alone, got {proximal!r}.")
        self.rule, self.steps, self.batch, self.prox, self.proximal = rule, steps, batch, prox, proximal

    @property
    def moves(self) -> int:
        """How often the rule moves the value: once a step, and once more for a last pull."""
        return self.steps + bool(self.steps and self.prox > 0 and self.proximal == "last")

    def check(self, names: Collection[str] | None, value: Params | None) -> None:
        """Held against the rule."""
        if names is not None:
            self.rule.check(names)
        if value is not None:
            self.rule.init(value)

    def sites(self, decode: Sites, loss: Callable[[int | None], Any]) -> Any:
        """Those of the loss, for every step."""
        return [loss(self.batch)] * self.steps

    def shuffle_sites(self, rows: int) -> dict[str, Any]:
        """The order in which mini-batches take the rows, and what the rule draws."""
        order = {} if self.batch is None else {"keys": shuffle_site(rows, self.steps, self.batch)}
        drawn = self.rule.init_sites()
        return {**order, **({"rule": drawn} if drawn else {})}

    def used(self) -> Iterable[nn.Parameter]:
        """Parameters of the rules of its steps."""
        return (parameter for step in range(self.moves) for parameter in self.rule.for_step(step).parameters())

    def forward(self, point: Point, given: Given) -> Point:
        """Take the steps."""
        beginning, rows, batch = point.value, given.support, self.batch
        value, state = beginning, given.map_tasks(self.rule.init)(beginning, own_draws(given.shuffle, "rule"))
        if batch is not None:
            keys = entry(given.shuffle, "keys")
            rows = given.map_tasks(lambda support, keys: mini_batches(support, self.steps, batch, keys))(rows, keys)
        given.visit(point)
        context = point.context
        pulled = self.prox > 0 and self.proximal == "every"
        for i in range(self.moves):
            last = i == self.steps  # the one on the pull alone
            loss = None if last else given.loss
            step = partial(self._step, self.rule.for_step(i), None if batch is None or last else i, loss, given.slope)
            noise = None if given.noise is None or last else given.noise[i]
            anchor = beginning if pulled or last else None
            context = context if last else context | given.at_step(i)
            value, state = given.map_step(step)(value, state, anchor, context, rows, noise)
            given.visit(Point(value, context))
        return Point(value, context)

    def _step(
        self,
        rule: Rule,
        index: int | None,
        loss: InnerLoss | None,
        slope: Slope,
        value: Params,
        state: Any,
        anchor: Params | None,
        context: Params,
        support: Batch,
        noise: Noise,
    ) -> tuple[Params, Any]:
        rows = support if index is None else Batch(*(tensor[index] for tensor in support))

        def objective(v: Params) -> Tensor:
            terms = [] if loss is None else [loss(v, context, rows, noise)]
            terms += [] if anchor is None else [self._distance(v, anchor)]
            return sum(terms[1:], terms[0])

        gradient, loss_value = slope(objective, value)
        step, state = rule.update(gradient, state, value, loss_value)
        return zip_map(torch.add, value, step), state

    def _distance(self, value: Params, anchor: Params) -> Tensor:
        """``λ/2 ‖φ − φ_0‖²``."""
        squares = zip_map(lambda v, a: (v - a).square().sum(), value, anchor)
        return 0.5 * self.prox * torch.stack(list(squares.values())).sum()


@final
class Decode(Stage):
    """Leave the space of codes: the decoded weights become the point, and later stages move the weights.

    Example:
        >>> stages = [Descend(SGD(0.1), 5), Decode(), Descend(SGD(0.1), 5)]  # in codes, then in weights
        >>> method = Method(Learner(Generated(), Generator(8, latents=3), stages), Backprop())
        >>> method.adapt(clusters.support).value["weight"].shape  # of four tasks, three classes, eight features
        torch.Size([4, 3, 8])
    """

    def sites(self, decode: Sites, loss: Callable[[int | None], Any]) -> Any:
        """Those of decoding."""
        return {"decode": decode}

    def forward(self, point: Point, given: Given) -> Point:
        """The decoded weights."""
        decoded: Point = given.map_tasks(given.decode)(point, entry(given.noise, "decode"))
        return decoded


def skip_empty(*stages: Stage) -> list[Stage]:
    """Leave out descents without steps: nothing would train their rules.

    Example:
        >>> stages = skip_empty(Descend(SGD(0.1), 5), Decode(), Descend(SGD(0.1), 0))
        >>> [type(stage).__name__ for stage in stages]
        ['Descend', 'Decode']
    """
    return [stage for stage in stages if not isinstance(stage, Descend) or stage.steps]
