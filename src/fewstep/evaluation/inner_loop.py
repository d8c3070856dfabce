"""A learner in evaluation: temporary states of it, which always end, and copies that are in no other."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn

from fewstep.core import Descend, Learner, Method


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into evaluation mode, and every submodule back into the mode it was in.

    A learner's network and embedding stay in the mode in which they are meta-trained: of theirs it says what a batch
    normalisation takes its statistics from, and no more, for what they draw is noise that evaluation does not have.
    """
    modes = [(part, part.training) for part in _evaluated(module)]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _evaluated(module: nn.Module) -> list[nn.Module]:
    """The parts of a module that have an evaluation mode."""
    adapted = (module.network, module.embedding) if isinstance(module, Learner) else ()
    kept = {id(part) for root in adapted if root is not None for part in root.modules()}
    return [part for part in module.modules() if id(part) not in kept]


def evaluation_copy(method: Method, *, shared: bool = False, **settings: Any) -> Method:
    """A copy of a method to predict with, in evaluation mode for good: for one thread, whose weights its network holds.

    Args:
        method: is not changed.
        shared: the copy has the method's own parameters and buffers instead of others.
        settings: of its descents, see :func:`set_inner_loop`; without steps it predicts from where adaptation begins.
    """
    learner = method.learner
    kept = {id(tensor): tensor for tensor in (*learner.parameters(), *learner.buffers())} if shared else {}
    copied = copy.copy(method)  # not made anew: a method without a step would be refused
    object.__setattr__(copied, "learner", copy.deepcopy(learner, kept))
    for part in _evaluated(copied.learner):
        part.training = False
    set_inner_loop(copied.learner, **settings)
    return copied


def set_inner_loop(learner: Learner, **settings: Any) -> None:
    """Give every ``Descend`` of ``learner`` other settings: ``steps``, ``batch``, ``prox``.

    Raises:
        ValueError: for a negative number of steps, or what is no setting.
    """
    if unknown := settings.keys() - {"steps", "batch", "prox"}:
        raise ValueError(f"a Descend has steps, batch and prox that can be changed, not {sorted(unknown)}")
    if settings.get("steps", 0) < 0:
        raise ValueError(f"steps must be zero or more, got {settings['steps']}")
    for stage in descents(learner):
        for name, value in settings.items():
            setattr(stage, name, value)


@contextmanager
def with_inner_loop(learner: Learner, **settings: Any) -> Iterator[None]:
    """As :func:`set_inner_loop`, for a while: afterwards every stage has what it had before."""
    before = [{name: getattr(stage, name, None) for name in settings} for stage in descents(learner)]
    set_inner_loop(learner, **settings)
    try:
        yield
    finally:
        for stage, values in zip(descents(learner), before, strict=True):
            for name, value in values.items():
                setattr(stage, name, value)


def inner_steps(learner: Learner, steps: int) -> AbstractContextManager[None]:
    """Let every ``Descend`` of ``learner`` take ``steps`` steps for a while.

    With zero steps the learner predicts from where adaptation would have begun: MAML's initialisation, LEO's weights
    decoded from the code that the support was encoded into.
    """
    return with_inner_loop(learner, steps=steps)


def descents(learner: Learner) -> list[Descend]:
    """The stages that take inner steps."""
    return [stage for stage in learner.stages if isinstance(stage, Descend)]
