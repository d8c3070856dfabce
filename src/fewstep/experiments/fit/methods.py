"""What a fit tries: classifiers that learn from a task alone, and methods that are meta-trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from fewstep.evaluation.simple import Rule, Simple
from fewstep.recipes import RECIPES, Config, Range, with_settings


@dataclass(frozen=True)
class SimpleSettings:
    """A :class:`~fewstep.evaluation.simple.Simple` without its centre, in JSON's types."""

    rule: Rule
    penalty: float = 1.0
    centred: bool = False

    def make(self, centre: Tensor) -> Simple:
        """The classifier, of rows of any length; ``centre`` is the mean of training rows of length 1."""
        return Simple(self.rule, self.penalty, centre if self.centred else None, normalise=True)


def _grid(rule: Rule, *penalties: float) -> tuple[SimpleSettings, ...]:
    return tuple(SimpleSettings(rule, penalty, centred) for penalty in penalties for centred in (False, True))


SIMPLE: Mapping[str, Sequence[SimpleSettings]] = {
    "class means": (SimpleSettings("class means"),),
    "class means, centred": (SimpleSettings("class means", centred=True),),
    "ridge": _grid("ridge", 1.0, 0.1, 10.0, 0.3, 3.0, 0.03),
    "logistic regression": _grid("logistic regression", 0.1, 1.0, 0.01),
}
"""By name, the simplest first; of each, what validation tasks choose from, in the order in which it is tried."""


@dataclass(frozen=True)
class Trained:
    """A method that is meta-trained.

    Attributes:
        name: in tables.
        recipe: its recipe, but for the shots.
        space: what is drawn afterwards.
        share: of the time, beside those of the others.
        first: settings that are tried before any draw: the recipe's own, then what is known to help on other features.
    """

    name: str
    recipe: str
    space: tuple[Range, ...]
    share: float
    first: tuple[Mapping[str, float], ...] = ({},)

    def config(self, shots: int, settings: Mapping[str, float]) -> Config:
        """The recipe of so many shots, or the nearest one, with other settings."""
        base = RECIPES[f"{self.recipe}-{1 if shots < 3 else 5}shot"]()
        return with_settings(base, settings)

    def draw(self, seed: int, index: int) -> dict[str, float]:
        """Settings number ``index``: one of ``first``, or drawn, by (seed, index) alone."""
        if index < len(self.first):
            return dict(self.first[index])
        shares = np.random.default_rng(np.random.SeedSequence([seed, index])).random(len(self.space))
        return {range.setting: range.at(float(share)) for range, share in zip(self.space, shares, strict=True)}


def _space(recipe: str) -> tuple[Range, ...]:
    return RECIPES[f"{recipe}-1shot"].space


TRAINED: Mapping[str, Trained] = {
    one.name: one
    for one in (
        Trained(
            "residual prototypes",
            "residual-prototypes-features",
            _space("residual-prototypes-features"),
            share=2.0,
            first=({}, {"training.tasks": 8.0}),  # where features are poor, the gradient of two tasks is mostly noise
        ),
        Trained("ProtoNet", "protonet-features", (Range("training.rate", 1e-4, 5e-3, log=True),), share=1.0),
        Trained("LEO", "leo-features", _space("leo-features"), share=1.5),
    )
}
"""By name, in the order in which they are tried: what pays most for its time first."""

SIMPLEST_FIRST = (*SIMPLE, *TRAINED)
"""The order in which the earlier is taken in doubt."""


Cost = tuple[str, int, float]
"""Trials of the same method, shots and tasks a meta-step take equally long."""


@dataclass(frozen=True)
class Trial:
    """One meta-training of a fit: a method at some shots, with the recipe's settings (0) or drawn ones."""

    method: str
    shots: int
    index: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.shots}shot/{self.method.lower().replace(' ', '-')}-{self.index:02d}"

    def __str__(self) -> str:
        return f"{self.method}, {self.shots}-shot, trial {self.index}"


def trials(shots: Sequence[int], rounds: int) -> Iterator[Trial]:
    """All that are foreseen, in their order: every method as its recipe has it, then draws of each in turn."""
    for index in range(rounds):
        for method in TRAINED:
            for k in shots:
                yield Trial(method, k, index)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Drawn settings for a table."""
    shown = (f"{name.rpartition('.')[2]} {value:.3g}" for name, value in settings.items())
    return ", ".join(shown) or "as in the recipe"
