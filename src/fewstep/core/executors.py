"""How the tasks of a batch are run: vectorised, in chunks, or one after another. All give the same numbers.

An executor turns a function of one task into a function of a batch of tasks. The same executor can map a whole task
or one inner step at a time (see ``Method.objective``), because what flows between steps is tensors only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

Function = Callable[..., Any]


Executor: TypeAlias = Callable[[Function], Function]
"""Maps a function over the leading axis of its arguments.

Arguments and results are pytrees of tensors; None passes through. An executor may have a ``chunk``: how many tasks it
runs at a time, all of them when it is None.
"""


def direct(function: Function) -> Function:
    """The identity: the caller already is inside one task."""
    return function


@dataclass(frozen=True)
class Vmap:
    """All tasks at once by ``torch.func.vmap``; ``chunk`` tasks at a time when memory is short."""

    chunk: int | None = None

    def __call__(self, function: Function) -> Function:
        """Map ``function`` over tasks."""

        def mapped(*trees: Any) -> Any:
            # vmap refuses None, which stands for absent noise: only the tensors of the arguments are mapped.
            leaves, form = tree_flatten(trees)
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

            def call(*slices: torch.Tensor) -> Any:
                feed = iter(slices)
                filled = [next(feed) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
                return function(*tree_unflatten(filled, form))

            return torch.func.vmap(call, chunk_size=self.chunk)(*tensors)

        return mapped


@dataclass(frozen=True)
class Loop:
    """One task after another: least memory, and the faster one for convolutions on a CPU."""

    chunk: ClassVar[int] = 1

    def __call__(self, function: Function) -> Function:
        """Map ``function`` over tasks."""

        def mapped(*trees: Any) -> Any:
            leaves = [leaf for leaf in tree_flatten(trees)[0] if isinstance(leaf, torch.Tensor)]
            results = []
            for i in range(len(leaves[0])):
                task = tree_map(lambda leaf, i=i: leaf[i] if isinstance(leaf, torch.Tensor) else leaf, trees)
                results.append(tree_flatten(function(*task)))
            columns = zip(*(result for result, _ in results), strict=True)
            return tree_unflatten([torch.stack(column) for column in columns], results[0][1])

        return mapped
