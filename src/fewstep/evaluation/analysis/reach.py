"""How far steps reach: what a decoder makes of a step in codes, and the steps that were taken."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacfwd, vmap

from fewstep.core import Batch, Learner, Method, Point
from fewstep.evaluation.analysis.passage import Coordinates, Passage, passed
from fewstep.evaluation.arrays import slices, take, to_numpy


def decoder_singular_values(method: Method, support: Batch) -> Float[np.ndarray, "tasks values"]:
    """The singular values of ``∂θ/∂z`` where each task begins: how much a step in codes grows (LEO, Fig. 5b).

    1 preserves lengths. A linear decoder D has the same everywhere: those of D, once for each class.

    Args:
        method: with codes.
        support: a task axis leads every tensor.

    Returns:
        In descending order, ``[tasks, min(numbers of z, numbers of θ)]``.

    Raises:
        ValueError: for a method that has no codes.

    Example:
        >>> from fewstep.evaluation.analysis import decoder_singular_values
        >>> method = leo(features=8, latents=3)
        >>> found = decoder_singular_values(method, clusters.support)[0]  # of three classes
        >>> np.allclose(found[::3], torch.linalg.svdvals(method.learner.start.decoder.weight[:8]).detach())
        True
    """
    way = passed(method, support)
    if not way.codes:
        raise ValueError("decoder_singular_values: this method has no codes, so there is no decoder.")
    with torch.inference_mode(False), torch.no_grad():
        values = [_singular_values(method.learner, take(way.codes[0], i)) for i in range(len(support.weight))]
    return np.stack(values)


def _singular_values(learner: Learner, point: Point) -> Float[np.ndarray, " values"]:
    here = Coordinates(point)

    def decode(vector: Tensor) -> Tensor:
        return Coordinates(learner.start.decode(here.point(vector), None)).vector

    jacobian: Tensor = jacfwd(decode)(here.vector)
    return to_numpy(torch.linalg.svdvals(jacobian))


@final
@dataclass(frozen=True, eq=False)
class StepLengths:
    """Euclidean lengths of the steps of each task, learned rates included, all classes together.

    Attributes:
        steps: of every step, by name, ``[tasks, steps]``: ``"codes"``; ``"induced"``, what these do to the decoded
            weights; and ``"weights"``, the steps of weights themselves. What a method does not have is left out.
        distances: from the beginning to the end of these steps, ``[tasks]``.
    """

    steps: dict[str, Float[np.ndarray, "tasks steps"]]
    distances: dict[str, Float[np.ndarray, " tasks"]]


def step_lengths(method: Method, support: Batch) -> StepLengths:
    """How far each inner step goes, in codes and in weights (LEO, Fig. 5c); coordinates as :class:`Coordinates` says.

    Args:
        method: as it is to adapt.
        support: a task axis leads every tensor.

    Example:
        >>> from fewstep.evaluation.analysis import step_lengths
        >>> found = step_lengths(maml(mlp((8, 3)), rate=0.1, steps=5), clusters.support)
        >>> {name: lengths.shape for name, lengths in found.steps.items()}
        {'weights': (4, 5)}
    """
    parts = [_lengths(method, passed(method, take(support, some))) for some in slices(len(support.weight), 100)]
    joined = [{name: np.concatenate([part[i][name] for part in parts]) for name in parts[0][i]} for i in (0, 1)]
    return StepLengths({n: a for n, a in joined[0].items()}, {n: a[:, 0] for n, a in joined[1].items()})


def _lengths(method: Method, way: Passage) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with torch.inference_mode(False), torch.no_grad():
        decoded = [vmap(partial(method.learner.start.decode, noise=None))(point) for point in way.codes]
        ways = {"codes": way.codes, "induced": decoded, "weights": way.weights}
        moving = {name: [_vectors(point) for point in points] for name, points in ways.items() if len(points) > 1}
        each = {name: _norms(pairwise(vectors)) for name, vectors in moving.items()}
        whole = {name: _norms([(vectors[0], vectors[-1])]) for name, vectors in moving.items()}
    return each, whole


def _vectors(point: Point) -> Tensor:
    of_one: Callable[[Point], Tensor] = lambda one: Coordinates(one).vector  # noqa: E731
    vectors: Tensor = vmap(of_one)(point)
    return vectors


def _norms(steps: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    return np.stack([to_numpy((after - before).norm(dim=1)) for before, after in steps], axis=1)
