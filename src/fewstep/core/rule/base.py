"""How one step moves: the protocol of a rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fewstep.core.noise import Noise
from fewstep.core.types import Params

if TYPE_CHECKING:
    pass


class Rule(nn.Module, ABC):
    """How one step moves. Learned rates and the like are the module's own meta-parameters.

    Example:
        >>> class SignDescent(Rule):
        ...     def update(self, gradient, state, value, loss):
        ...         return {name: -0.1 * g.sign() for name, g in gradient.items()}, state
        >>> learner = Learner(line, Shared(), [Descend(SignDescent(), steps=3)])
    """

    def init(self, value: Params, noise: Noise = None) -> Any:
        """The state that a task's first step starts from: a pytree of tensors, empty unless a rule remembers.

        Args:
            value: of the first step.
            noise: what is drawn for the task, in the shape of :meth:`init_sites`; None in evaluation.
        """
        return ()

    def init_sites(self) -> dict[str, Any]:
        """Random sites of :meth:`init`: a rule draws once for a task, and keeps what it needs of that in its state."""
        return {}

    def check(self, names: Collection[str]) -> None:
        """Refuse values of these names where the rule's meta-parameters belong to others.

        Raises:
            ValueError: naming both.
        """

    def for_step(self, step: int) -> Rule:
        """The rule of an inner step, counted from 0: itself, unless every step has a rule of its own."""
        return self

    @abstractmethod
    def update(self, gradient: Params, state: Any, value: Params, loss: Tensor) -> tuple[Params, Any]:
        """The step to *add* to ``value``, and the next state."""
