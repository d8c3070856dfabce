"""Rules one after another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from fewstep.core.noise import Noise, own_draws
from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class Chain(Rule):
    """Rules one after another: each transforms the gradient for the next.

    ``g₀ = ∇L(φ)``, ``g_{j+1} = −step_j(g_j)``, ``φ ← φ − g_J``.

    ``Chain(Curvature(shapes, rate=1.0), LearnedRates(rates))`` is Meta-SGD along meta-learned curvature. The state is
    the tuple of the rules' states; a rule that differs by step (:class:`PerStep`) may be one of them.

    Args:
        rules: in the order in which they see the gradient.

    Raises:
        ValueError: without a rule.

    Example:
        >>> rule = Chain(Clip(1.0), SGD(0.1))  # shorten the gradient to 1, then a tenth of it
        >>> gradient = {"w": torch.tensor([3.0, 4.0])}  # of length 5
        >>> step, _ = rule.update(gradient, rule.init(gradient), gradient, torch.tensor(1.0))
        >>> step
        {'w': tensor([-0.0600, -0.0800])}
    """

    def __init__(self, *rules: Rule) -> None:
        super().__init__()
        if not rules:
            raise ValueError("Chain: at least one rule is needed, got none.")
        self.rules: Sequence[Rule] = nn.ModuleList(rules)  # type: ignore[assignment]  # torch types entries as modules

    def check(self, names: Collection[str]) -> None:
        """Each rule for itself."""
        for rule in self.rules:
            rule.check(names)

    def init(self, value: Params, noise: Noise = None) -> tuple[Any, ...]:
        """The states of the rules."""
        return tuple(rule.init(value, own_draws(noise, str(i))) for i, rule in enumerate(self.rules))

    def init_sites(self) -> dict[str, Any]:
        """Those of the rules that draw, by their places."""
        found = {str(i): rule.init_sites() for i, rule in enumerate(self.rules)}
        return {place: sites for place, sites in found.items() if sites}

    def for_step(self, step: int) -> Rule:
        """The chain of what each rule is at that step, a view: parameters stay with the rules of this chain."""
        return Chain(*(rule.for_step(step) for rule in self.rules))

    def update(
        self, gradient: Params, state: tuple[Any, ...], value: Params, loss: Tensor
    ) -> tuple[Params, tuple[Any, ...]]:
        """The last rule's step; every other rule's, negated, is the gradient that its successor sees."""
        states = []
        for rule, before in zip(self.rules, state, strict=True):
            step, after = rule.update(gradient, before, value, loss)
            gradient = {name: -s for name, s in step.items()}
            states.append(after)
        return step, tuple(states)
