"""A rule of its own for every inner step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from fewstep.core.noise import Noise
from fewstep.core.rule.base import Rule
from fewstep.core.types import Params


class PerStep(Rule):
    """A rule of its own for every inner step; steps beyond the last rule use the last.

    ``φ_{k+1} = φ_k + step_k(∇L(φ_k))``. One set of rates per tensor and step is MAML++'s (Antoniou et al. 2019, LSLR).

    Args:
        rules: one per inner step, all of the same kind, because the state passes from one to the next.

    Raises:
        ValueError: without a rule, for rules of different kinds, or when a rule is given twice.

    Example:
        >>> rule = PerStep([SGD(0.25), SGD(0.5)])  # on w², the first step halves w, and the second ends at 0
        >>> method = Method(Learner(line, Shared(), [Descend(rule, 2)], loss=regression()), Backprop())
        >>> method.adapt(parabola.support).value
        {'weight': tensor([[[0.]]])}
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        super().__init__()
        rules = list(rules)
        kinds = sorted({type(rule).__name__ for rule in rules})
        if not rules:
            raise ValueError("PerStep: at least one rule is needed, got none.")
        if len(kinds) > 1:
            raise ValueError(f"PerStep: the rules of all steps must be of one kind, got {', '.join(kinds)}.")
        if len({id(rule) for rule in rules}) < len(rules):
            raise ValueError("PerStep: a rule is given for more than one step; make a new one for each step.")
        self.rules: Sequence[Rule] = nn.ModuleList(rules)  # type: ignore[assignment]  # torch types entries as modules

    def check(self, names: Collection[str]) -> None:
        """Each rule for itself."""
        for rule in self.rules:
            rule.check(names)

    def init(self, value: Params, noise: Noise = None) -> Any:
        """The state of the first rule; the others are asked too, so that they refuse values they were not made for."""
        states = [rule.init(value, noise) for rule in self.rules]
        return states[0]

    def init_sites(self) -> dict[str, Any]:
        """Those of the first rule."""
        return self.rules[0].init_sites()

    def for_step(self, step: int) -> Rule:
        """The rule of that step."""
        return self.rules[min(step, len(self.rules) - 1)].for_step(step)

    def update(self, gradient: Params, state: Any, value: Params, loss: Tensor) -> tuple[Params, Any]:
        """Not defined without a step.

        Raises:
            TypeError: always; the rule of a step is :meth:`for_step`'s.
        """
        raise TypeError("PerStep: a step is moved by the rule of that step; call update of for_step(step) instead.")
