"""Curvature: eigenvalues of the Hessian of a task's loss, by its codes and by its weights, without the Hessian."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vjp, vmap

from fewstep.core import Batch, Learner, Method, Point, Reduction, Task, Vmap
from fewstep.evaluation.analysis.passage import Coordinates, Passage, passed
from fewstep.evaluation.arrays import slices, take, to_numpy

ScalarLoss: TypeAlias = Callable[[Float[Tensor, " numbers"]], Float[Tensor, ""]]
"""A loss of a vector."""

Space = Literal["codes", "weights"]
"""By what a loss is differentiated."""

Place = Literal["start", "adapted"]
"""Before the steps or after them: those of codes, and weights as they are decoded; without codes those of weights."""

Rows = Literal["support", "query"]
"""Of which rows the loss is."""

SMALL = 512
"""Up to so many numbers a Hessian of full rank is made whole."""

_FEW = 24  # eigenvalues that are first asked for, as 20 are all of a 5-way 1-shot task
_EXTRA = 8  # directions more than eigenvalues are asked for, by which it is seen that there are no others
_CHUNK = 64  # products at a time: memory for networks
_TASKS = 50  # adapted at a time
_NUMBERS = 2**24  # of products at a time, of all tasks together


@final
@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues of a symmetric matrix that are not zero, or the largest of them.

    Attributes:
        values: in descending order of their absolute values, float64.
        size: rows of the matrix: all other eigenvalues are zero, if ``complete``.
        complete: whether these are all.

    Zero is what rounding cannot tell from it: up to ``size · ε · max|λ|``, as for ``numpy.linalg.matrix_rank``.
    """

    values: Float[np.ndarray, " rank"]
    size: int
    complete: bool

    @property
    def rank(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def largest(self) -> float:
        """max |λ|; 0 without any."""
        return float(np.abs(self.values).max(initial=0.0))

    @property
    def typical(self) -> float:
        """The geometric mean of |λ| over those that are not zero; 0 without any."""
        return float(np.exp(np.log(np.abs(self.values)).mean())) if self.rank else 0.0

    @property
    def trace(self) -> float:
        """Σ λ, of those that were found."""
        return float(self.values.sum())


def hessian_eigenvalues(loss: ScalarLoss, at: Float[Tensor, " numbers"], *, most: int = 128, seed: int = 0) -> Spectrum:
    """The eigenvalues of ``∇² L(φ)`` that are not zero, by products ``∇² L(φ) v`` alone.

    Its products Y = HΩ with a few random directions, and then with ``most + 8``, are looked at: where their rank is
    lower than their number, they span the range of H, and with Q an orthonormal basis of them the eigenvalues of
    ``QᵀHQ`` that are not zero are all that H has, exact but for rounding (Halko, Martinsson and Tropp 2011). So it is
    for a classifier on few examples: N ways and n rows have rank n (N − 1) at most, whatever the number of weights.

    Otherwise, up to :data:`SMALL` numbers the products with all unit vectors are the Hessian, whose eigenvalues are
    found; and above, the ``most`` largest ones by absolute value, by Lanczos iteration (ARPACK).

    Args:
        loss: twice differentiable.
        at: φ, in float64 for digits that count.
        most: eigenvalues to find at most where the Hessian is not small, ≥ 1.
        seed: of the directions.

    Raises:
        ValueError: for ``most`` below 1.

    Example:
        >>> from fewstep.evaluation.analysis import hessian_eigenvalues
        >>> scales = torch.tensor([3.0, -2.0, 0.0])
        >>> found = hessian_eigenvalues(lambda x: 0.5 * (scales * x.square()).sum(), torch.ones(3))
        >>> found.values.tolist(), found.size
        ([3.0, -2.0], 3)
    """
    if most < 1:
        raise ValueError(f"hessian_eigenvalues: most must be at least 1, got {most}.")
    size = len(at)
    with torch.inference_mode(False):
        at = at.detach().clone()
        for count in _counts(most):
            if count < size:
                found = _sorted(_by_range(loss, _directions(at, count, seed), at), size, True)
                if found.rank < count:
                    return found
        times = _products(loss, at)
        if size <= max(SMALL, most + _EXTRA):
            whole = times(torch.eye(size, dtype=at.dtype, device=at.device))
            return _sorted(_eigenvalues(whole), size, True)
        return _largest(times, at, most, _directions(at, 1, seed)[:, 0])


def _counts(most: int) -> list[int]:
    """How many directions are tried, one after another."""
    return sorted({min(_FEW, most) + _EXTRA, most + _EXTRA})


def _directions(like: Tensor, count: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(len(like), count, generator=source, dtype=like.dtype).to(like.device)


def _products(loss: ScalarLoss, at: Tensor) -> Callable[[Tensor], Tensor]:
    """H V of ``V [numbers, columns]``."""
    pull = vjp(grad(loss), at)[1]  # H is symmetric: vᵀH is Hv
    product = vmap(lambda v: pull(v)[0], in_dims=1, out_dims=1, chunk_size=_CHUNK)

    def times(columns: Tensor) -> Tensor:
        found: Tensor = product(columns)
        return found.detach()

    return times


def _by_range(loss: ScalarLoss, directions: Tensor, at: Tensor) -> Tensor:
    """The eigenvalues of H on what its products with the directions span."""
    times = _products(loss, at)
    basis, _ = torch.linalg.qr(times(directions))
    return _eigenvalues(basis.T @ times(basis))


def _eigenvalues(matrix: Tensor) -> Tensor:
    found: Tensor = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return found


def _largest(times: Callable[[Tensor], Tensor], at: Tensor, most: int, begin: Tensor) -> Spectrum:
    from scipy.sparse.linalg import LinearOperator, eigsh  # here, for importing it takes long

    size = len(at)

    def product(vector: np.ndarray) -> np.ndarray:
        return to_numpy(times(torch.from_numpy(vector).to(at).view(size, 1)).view(size))

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values = eigsh(operator, k=most, which="LM", v0=to_numpy(begin), return_eigenvectors=False)
    return _sorted(torch.from_numpy(values.copy()).to(at), size, False)


def _sorted(values: Float[Tensor, " found"], size: int, complete: bool) -> Spectrum:
    """Those that are not zero."""
    found, eps = to_numpy(values), torch.finfo(values.dtype).eps
    large = np.abs(found)
    kept = found[large > size * eps * large.max(initial=0.0)]
    return Spectrum(kept[np.argsort(-np.abs(kept), kind="stable")], size, complete)


def curvature(
    method: Method,
    tasks: Task,
    *,
    rows: Rows = "support",
    reduction: Reduction = "sum",
    copies: bool = False,
    most: int = 128,
) -> dict[tuple[Space, Place], list[Spectrum]]:
    """Eigenvalues of the Hessian of each task's loss: of ``∇²_z L(f_{θ(z)})`` and of ``∇²_θ L(f_θ)`` (LEO, Fig. 5a).

    Both are of the same function, at z and at the θ that is decoded from it: before any step, and after the steps of
    codes. With a linear decoder, θ = D z for each class, ``∇²_z L = (I ⊗ D)ᵀ ∇²_θ L (I ⊗ D)``, so that
    ``λ_k(∇²_z L) ≤ σ_max(D)² λ_k(∇²_θ L)``. A method without codes has its weights, before and after its steps.

    The paper says neither which loss this is, nor where it is differentiated, nor what becomes of the eigenvalues that
    are zero, which are 99% of those by weights in 5-way 1-shot tasks. Here zeros are left out and counted by rank.

    Args:
        method: in float64, see :func:`in_double`; its means and no dropout are taken, as in evaluation.
        tasks: likewise; a task axis leads every tensor.
        rows: those whose loss it is: of the support, which is descended, or of the query.
        reduction: of the rows; LEO's inner loss is their sum (Eq. 5). The mean is smaller by their number.
        copies: of LEO's codes, see :class:`Coordinates`.
        most: see :func:`hessian_eigenvalues`.

    Returns:
        For each space and place that the method has, a spectrum for each task.

    Example:
        >>> from fewstep.evaluation.analysis import curvature, in_double
        >>> found = curvature(*in_double(leo(features=8, latents=3), clusters))
        >>> [(where, spectra[0].rank, spectra[0].size) for where, spectra in found.items()][:2]
        [(('codes', 'start'), 6, 9), (('weights', 'start'), 12, 24)]
    """
    learner = method.learner
    learner.examine(tasks.support)
    found: dict[tuple[Space, Place], list[Spectrum]] = {}
    with torch.inference_mode(False):
        for some in slices(len(tasks.support.weight), _TASKS):
            part = take(tasks, some)
            batch: Batch = Vmap()(learner.embed)(part.support if rows == "support" else part.query)
            for where, points in _places(learner, passed(method, part.support)):
                loss = partial(_loss, learner, where[0] == "weights", reduction)
                found.setdefault(where, []).extend(_spectra(loss, points, batch, copies, most))
    return found


def _places(learner: Learner, way: Passage) -> Iterator[tuple[tuple[Space, Place], Point]]:
    points = way.first
    places: tuple[Place, ...] = ("start", "adapted")
    for place, point in zip(places, (points[0], *points[1:][-1:]), strict=False):
        if way.codes:
            yield ("codes", place), point
            with torch.no_grad():
                point = Vmap()(partial(learner.start.decode, noise=None))(point)
        yield ("weights", place), point


def _loss(learner: Learner, decoded: bool, reduction: Reduction, batch: Batch, here: Coordinates) -> ScalarLoss:
    own, count = learner.loss.support, batch.weight.sum()
    factor = torch.ones_like(count) if own == reduction else count if reduction == "sum" else 1 / count

    def loss(vector: Tensor) -> Tensor:
        point = here.point(vector)
        return factor * learner.support_loss(point if decoded else learner.start.decode(point, None), batch)

    return loss


def _spectra(
    loss: Callable[[Batch, Coordinates], ScalarLoss], points: Point, batch: Batch, copies: bool, most: int
) -> Iterator[Spectrum]:
    """As :func:`hessian_eigenvalues` of each task, with those of the lowest rank together, in half the time."""
    first = Coordinates(take(points, 0), copies).vector
    size, count, tasks, together = len(first), _counts(most)[0], len(batch.weight), dict[int, Spectrum]()
    directions = _directions(first, count, 0)

    def of_task(point: Point, rows: Batch) -> Tensor:
        here = Coordinates(point, copies)
        return _by_range(loss(rows, here), directions, here.vector)

    for some in slices(tasks, _NUMBERS // (size * count)) if count < size else ():
        found = [_sorted(of, size, True) for of in Vmap()(of_task)(take(points, some), take(batch, some))]
        low = {some.start + i: one for i, one in enumerate(found) if one.rank < count}
        together |= low
        if not low:  # nor will others be
            break
    for i in range(tasks):
        if i in together:
            yield together[i]
        else:
            here = Coordinates(take(points, i), copies)
            yield hessian_eigenvalues(loss(take(batch, i), here), here.vector, most=most)
