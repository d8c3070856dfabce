"""Temporary states of a learner: evaluation mode, and another number of inner steps. Both always end."""

from collections.abc import Iterator
from contextlib import contextmanager

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
def inner_steps(learner: Learner, steps: int) -> Iterator[None]:
    """Let every ``Descend`` of ``learner`` take ``steps`` steps for a while, and what it took before afterwards.

    With zero steps the learner predicts from where adaptation would have begun: MAML's initialisation, LEO's weights
    decoded from the code that the support was encoded into.

    Args:
        learner: changed in place.
        steps: ≥ 0, the same for every stage.

    Raises:
        ValueError: for a negative number of steps.
    """
    if steps < 0:
        raise ValueError(f"inner_steps: steps must be zero or more, got {steps}")
    stages = descents(learner)
    before = [stage.steps for stage in stages]
    try:
        for stage in stages:
            stage.steps = steps
        yield
    finally:
        for stage, number in zip(stages, before, strict=True):
            stage.steps = number


def descents(learner: Learner) -> list[Descend]:
    """The stages that take inner steps."""
    return [stage for stage in learner.stages if isinstance(stage, Descend)]


def batch_normalised(learner: Learner) -> bool:
    """Whether the network normalises by statistics of the rows it is given."""
    return any(isinstance(module, RowWeights) for module in learner.network.modules())
