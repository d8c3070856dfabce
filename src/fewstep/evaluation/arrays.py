"""Arrays: some of their rows, parts that fit into memory, and tensors as NumPy has them."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

Tree = TypeVar("Tree")

_NUMBERS = 2**21  # at a time: some tens of megabytes


def take(tree: Tree, some: Any) -> Tree:
    """Some of the tasks of every tensor in a tuple or a mapping: of a slice, as views, or of an array of indices."""
    return tree_map(lambda tensor: tensor[some], tree)  # type: ignore[no-any-return]


def slices(count: int, most: int) -> Iterator[slice]:
    """Of an axis of length ``count``, each of ``most`` but for the last."""
    most = max(1, most)
    return (slice(i, min(i + most, count)) for i in range(0, count, most))


def chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the first axis, each of about two million numbers of an array of this shape."""
    return slices(shape[0], _NUMBERS // max(1, int(np.prod(shape[1:]))))


def to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """The numbers of a tensor in float64, wherever it is."""
    return np.asarray(tensor.detach().double().cpu().numpy())
