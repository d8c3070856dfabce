"""The three axes: where a task starts, how a step moves, how the outer loop learns from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fewstep.core.executors import Executor, direct
from fewstep.core.noise import Noise, Sites
from fewstep.core.types import Batch, Estimate, Params, Penalties, Point, Task

if TYPE_CHECKING:
    from fewstep.core.learner import Learner


class Start(nn.Module, ABC):
    """Where a task's adaptation begins. Functions of one task; meta-parameters are the module's own."""

    @abstractmethod
    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The starting point of a task, and penalties on it (none in evaluation, when ``noise`` is None)."""

    @abstractmethod
    def decode(self, point: Point, noise: Noise) -> Point:
        """A point of network weights: ``value`` is what fine-tuning may move, ``context`` what it may not.

        A pure function. Together the two are passed to the network in place of its parameters and slots.
        """

    def shared(self, network: nn.Module) -> Params | None:
        """The value that every task starts from, or None when it takes a task to know it.

        What is known is held against the rules when a learner is made, not when its first task comes.
        """
        return None

    def moved(self, network: nn.Module, decoded: bool) -> Collection[str] | None:
        """Names of the values that a stage moves before decoding or after it, or None when it takes a task to know.

        They are held against the rules when a learner is made, as is :meth:`shared`.

        Raises:
            ValueError: when the network is none that this start can begin with.
        """
        value = self.shared(network)
        return None if value is None else value.keys()

    def penalise(self, begun: Point, ended: Point) -> Penalties:
        """Penalties of meta-training on how far codes moved, from the start to the point that is decoded."""
        return {}

    def steers(self, network: nn.Module) -> set[str]:
        """Which meta-parameters :meth:`begin` makes the point's *value* of, by their names in the learner.

        Estimators that learn from nothing but the starting value (Reptile) leave all others untrained.
        """
        return set()

    def begin_sites(self, support: Batch) -> Sites:
        """Random sites of :meth:`begin`, for a support of the given (unbatched) shapes."""
        return {}

    def decode_sites(self, support: Batch) -> Sites:
        """Random sites of one :meth:`decode`."""
        return {}


class Rule(nn.Module, ABC):
    """How one step moves. Learned rates and the like are the module's own meta-parameters."""

    @abstractmethod
    def init(self, value: Params) -> Any:
        """The state that a task's first step starts from: a pytree of tensors."""

    def check(self, names: Collection[str]) -> None:
        """Refuse values of these names where the rule's meta-parameters belong to others.

        Raises:
            ValueError: naming both.
        """

    def at(self, step: int) -> Rule:
        """The rule of an inner step, counted from 0: itself, unless every step has a rule of its own."""
        return self

    @abstractmethod
    def update(self, gradient: Params, state: Any, value: Params, loss: Tensor) -> tuple[Params, Any]:
        """The step to *add* to ``value``, and the next state."""


class MetaGradient(ABC):
    """How the outer loop learns from an adaptation.

    The one rule: the objective of the returned estimate is a scalar whose ordinary autograd gradient is the
    meta-gradient estimate. Trainer and optimiser never know which estimator ran.
    """

    copies: int | None = None
    """How many independent adaptations of a task it compares: the noise that ``Method`` draws for it is then
    ``{"copies": noise}``, whose tensors have an axis of them before all others of a task."""

    def untrained(self, learner: Learner) -> set[str]:
        """Meta-parameters that this estimator would leave without a gradient, by name.

        Raises:
            ValueError: when it cannot learn from such a learner at all.
        """
        return set()

    @abstractmethod
    def __call__(self, learner: Learner, task: Task, noise: Noise, each: Executor = direct) -> Estimate:
        """Adapt to ``task`` and judge the result; ``each`` maps the pieces when steps are mapped one by one."""
