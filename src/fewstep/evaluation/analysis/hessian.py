"""Curvature: eigenvalues of the Hessian of a task's loss, by its codes and by its weights, without the Hessian."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vjp, vmap

from fewstep.core import Batch, Learner, Method, Point, Reduction, Task
from fewstep.evaluation.analysis.passage import Coordinates, passed
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

    Its products Y = HΩ with a few random directions, and then with ``most + 8``, are looked at: where their rank r is
    lower than their number, they span the range of H, and with Q an orthonormal basis of it the r eigenvalues of
    ``QᵀHQ`` are all that are not zero, exact but for rounding (Halko, Martinsson and Tropp 2011). So it is for a
    classifier on few examples: N ways and n rows have rank n (N − 1) at most, whatever the number of weights.

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
        pull = vjp(grad(loss), at)[1]  # H is symmetric: vᵀH is Hv

        def times(columns: Tensor) -> Tensor:
            """H V of ``V [numbers, columns]``."""
            product: Tensor = vmap(lambda v: pull(v)[0], in_dims=1, out_dims=1, chunk_size=_CHUNK)(columns)
            return product.detach()

        source = torch.Generator().manual_seed(seed)
        directions = torch.randn(size, most + _EXTRA, generator=source, dtype=at.dtype).to(at.device)
        for count in sorted({min(_FEW, most) + _EXTRA, most + _EXTRA}):
            if count < size and (basis := _range(times(directions[:, :count]))).shape[1] < count:
                return _spectrum(basis.T @ times(basis), size)
        if size <= max(SMALL, most + _EXTRA):
            return _spectrum(times(torch.eye(size, dtype=at.dtype, device=at.device)), size)
        return _largest(times, at, most, directions[:, 0])


def _range(products: Tensor) -> Tensor:
    """An orthonormal basis of what the columns span, but for rounding."""
    basis, lengths, _ = torch.linalg.svd(products, full_matrices=False)
    found: Tensor = basis[:, lengths > len(products) * torch.finfo(products.dtype).eps * lengths[0]]
    return found


def _spectrum(matrix: Tensor, size: int) -> Spectrum:
    """All eigenvalues of what is left of a matrix of a size."""
    values = to_numpy(torch.linalg.eigvalsh((matrix + matrix.T) / 2))
    return _sorted(values, size, torch.finfo(matrix.dtype).eps, True)


def _largest(times: Callable[[Tensor], Tensor], at: Tensor, most: int, begin: Tensor) -> Spectrum:
    from scipy.sparse.linalg import LinearOperator, eigsh  # here, for importing it takes long

    size = len(at)

    def product(vector: np.ndarray) -> np.ndarray:
        return to_numpy(times(torch.from_numpy(vector).to(at).view(size, 1)).view(size))

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values = eigsh(operator, k=most, which="LM", v0=to_numpy(begin), return_eigenvectors=False)
    return _sorted(np.asarray(values), size, torch.finfo(at.dtype).eps, False)


def _sorted(values: Float[np.ndarray, " found"], size: int, eps: float, complete: bool) -> Spectrum:
    large = np.abs(values)
    kept = values[large > size * eps * large.max(initial=0.0)]
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
    for some in slices(len(tasks.support.weight), 50):
        part = take(tasks, some)
        way = passed(method, part.support)
        for i in range(len(part.support.weight)):
            batch = learner.embed(take(part.support if rows == "support" else part.query, i))
            for where, point in _places(learner, take(way.codes, i), take(way.weights, i)):
                here = Coordinates(point, copies)
                loss = _loss(learner, here, where[0] == "weights", batch, reduction)
                found.setdefault(where, []).append(hessian_eigenvalues(loss, here.vector, most=most))
    return found


def _places(learner: Learner, codes: list[Point], weights: list[Point]) -> Iterator[tuple[tuple[Space, Place], Point]]:
    points = codes or weights
    places: tuple[Place, ...] = ("start", "adapted")
    for place, point in zip(places, (points[0], *points[1:][-1:]), strict=False):
        if codes:
            yield ("codes", place), point
            with torch.no_grad():
                point = learner.start.decode(point, None)
        yield ("weights", place), point


def _loss(learner: Learner, here: Coordinates, decoded: bool, batch: Batch, reduction: Reduction) -> ScalarLoss:
    own, count = learner.loss.support, batch.weight.sum()
    factor = torch.ones_like(count) if own == reduction else count if reduction == "sum" else 1 / count

    def loss(vector: Tensor) -> Tensor:
        point = here.point(vector)
        return factor * learner.support_loss(point if decoded else learner.start.decode(point, None), batch)

    return loss
