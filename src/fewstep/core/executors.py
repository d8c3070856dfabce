"""How the tasks of a batch are run: vectorised, in chunks, or one after another. All give the same numbers.

An executor turns a function of one task into a function of a batch of tasks. The same executor can map a whole task
or one inner step at a time (see ``Method.objective``), because what flows between steps is tensors only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

Function = Callable[..., Any]


Executor: TypeAlias = Callable[[Function], Function]
"""Maps a function over the leading axis of its arguments.

Arguments and results are pytrees of tensors; None passes through. An executor may have a ``chunk``: how many tasks it
runs at a time, all of them when it is None.
"""


def of_tensors(function: Function, trees: tuple[Any, ...]) -> tuple[Function, list[torch.Tensor]]:
    """``function`` of the tensors in its arguments alone, with all else as it is in ``trees``; and these tensors.

    None, which stands for absent noise, cannot be mapped; nor does autograd see tensors inside of trees.
    """
    leaves, form = tree_flatten(trees)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    others = [None if isinstance(leaf, torch.Tensor) else (leaf,) for leaf in leaves]  # so that no tensor is kept

    def call(*given: torch.Tensor) -> Any:
        feed = iter(given)
        return function(*tree_unflatten([next(feed) if other is None else other[0] for other in others], form))

    return call, tensors


def direct(function: Function) -> Function:
    """Return the function unchanged: the caller already is inside one task."""
    return function


@dataclass(frozen=True)
class Vmap:
    """All tasks at once by ``torch.func.vmap``; ``chunk`` tasks at a time when memory is short.

    Example:
        >>> tasks = torch.arange(6.0).view(3, 2)  # three tasks of two numbers
        >>> Vmap(chunk=2)(torch.sum)(tasks)  # as in a loop, but two of them at a time
        tensor([1., 5., 9.])
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"Vmap: chunk must be at least 1 task, or None for all; got {self.chunk}.")

    def __call__(self, function: Function) -> Function:
        """Map ``function`` over tasks."""

        def mapped(*trees: Any) -> Any:
            call, tensors = of_tensors(function, trees)
            return torch.func.vmap(call, chunk_size=self.chunk)(*tensors)

        return mapped


@dataclass(frozen=True)
class Loop:
    """One task after another: least memory, and on a CPU the faster one for convolutions that every task adapts.

    Example:
        >>> tasks = torch.arange(6.0).view(3, 2)  # three tasks of two numbers
        >>> Loop()(lambda task: task.sum() if task[0] > 3 else task[0])(tasks)  # as vmap cannot: it looks at a value
        tensor([0., 2., 9.])
    """

    chunk: ClassVar[int] = 1

    def __call__(self, function: Function) -> Function:
        """Map ``function`` over tasks."""

        def mapped(*trees: Any) -> Any:
            call, tensors = of_tensors(function, trees)
            tasks = zip(*(tensor.unbind() for tensor in tensors), strict=True)
            results = [tree_flatten(call(*task)) for task in tasks]
            columns = zip(*(result for result, _ in results), strict=True)
            return tree_unflatten([torch.stack(column) for column in columns], results[0][1])

        return mapped
