"""Temporary states of a learner: evaluation mode, and another number of inner steps. Both always end."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from fewstep.core import Descend, Learner
from fewstep.core.row_weights import RowWeights


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode, and every submodule back into the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def descending(learner: Learner, **settings: Any) -> Iterator[None]:
    """Let every ``Descend`` of ``learner`` have other settings for a while, and what it had before afterwards.

    Args:
        learner: changed in place.
        settings: attributes of :class:`Descend`: ``steps``, ``batch``, ``prox``.

    Raises:
        ValueError: for a negative number of steps, or what is no setting.
    """
    unknown = settings.keys() - {"steps", "batch", "prox"}
    if unknown:
        raise ValueError(f"descending: a Descend has steps, batch and prox to be changed, not {sorted(unknown)}")
    if settings.get("steps", 0) < 0:
        raise ValueError(f"descending: steps must be zero or more, got {settings['steps']}")
    stages = descents(learner)
    before = [{name: getattr(stage, name) for name in settings} for stage in stages]

    def put(stage: Descend, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(stage, name, value)

    try:
        for stage in stages:
            put(stage, settings)
        yield
    finally:
        for stage, values in zip(stages, before, strict=True):
            put(stage, values)


def inner_steps(learner: Learner, steps: int) -> AbstractContextManager[None]:
    """Let every ``Descend`` of ``learner`` take ``steps`` steps for a while.

    With zero steps the learner predicts from where adaptation would have begun: MAML's initialisation, LEO's weights
    decoded from the code that the support was encoded into.
    """
    return descending(learner, steps=steps)


def descents(learner: Learner) -> list[Descend]:
    """The stages that take inner steps."""
    return [stage for stage in learner.stages if isinstance(stage, Descend)]


def batch_normalised(learner: Learner) -> bool:
    """Whether the network normalises by statistics of the rows it is given."""
    return any(isinstance(module, RowWeights) for module in learner.network.modules())
