"""The exact Bayesian forecast of an oscillator: the floor for learned forecasts.

A task is one damped oscillator, and every row one trajectory of it, observed at ``t_i = i Δt``:

    z_i = exp(-γ t_i) (a cos ω t_i + b sin ω t_i) + ε_i,   a, b ~ N(0, 1),   ε ~ N(0, σ²),

γ and ω uniform and common to the rows, a and b of each row by itself. Given (γ, ω) all is linear and normal, and what
is left is one integral over two parameters, by Gauss-Legendre nodes in cells that each task divides for itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core.types import Batch
from fewstep.data.functions.oscillations import OscillatorPrior
from fewstep.evaluation.arrays import slices, to_numpy
from fewstep.evaluation.mixtures import log_sum

Array: TypeAlias = NDArray[np.float64]

EXACT_FORECAST = "exact forecast"
"""Name of the floor among baselines."""

_FINE, _COARSE = 8, 6  # nodes along a side of a cell
_MARGIN, _MOST = 45.0, 300.0  # what has less than e^-margin of the posterior's mass is left out
_TASKS, _CHUNK = 256, 2**21  # tasks, and numbers, at a time: some tens of megabytes
_LATTICE = (25, 49)  # of both parameters: a query row's evidence is smooth
_LEVELS = 30  # of cells, each half as wide as the one before
_BLOCK = 2**15  # rows times nodes at a time, which stay in a cache


@final
@dataclass(frozen=True, eq=False)
class ExactForecast:
    """The posterior predictive of the next observations of every query row, made by :func:`exact_forecast`.

    Attributes:
        mean: of the observations, and so of the trajectory without noise: no forecast has a lesser expected squared
            error.
        deviation: standard deviation of the observations, noise included; the predictive is a mixture of normals.
        error: estimate of the largest error in a row's ``mean`` and ``deviation``, in their unit.
    """

    mean: Float[np.ndarray, "tasks rows ahead"]
    deviation: Float[np.ndarray, "tasks rows ahead"]
    error: Float[np.ndarray, "tasks rows"]


def exact_forecast(
    x_support: Float[np.ndarray, "tasks shots seen"],
    y_support: Float[np.ndarray, "tasks shots ahead"],
    x: Float[np.ndarray, "tasks rows seen"],
    *,
    prior: OscillatorPrior,
    noise: float,
    interval: float,
    real: Bool[np.ndarray, "tasks shots"] | None = None,
    tolerance: float = 1e-6,
) -> ExactForecast:
    """Forecast the rest of each query row from its beginning and from the support D, when prior and noise are known.

    With ``z = B(γ, ω) c + ε`` and ``c = (a, b)``, ``p(z | γ, ω) = N(z; 0, BBᵀ + σ²I)``, and with B₀ the rows of B
    that are seen and B₁ those ahead,

        E[y | x, D] = ∫∫ B₁ (B₀ᵀB₀ + σ²I)⁻¹ B₀ᵀx  p(γ, ω | x, D) dγ dω,
        p(γ, ω | x, D) ∝ p(γ, ω) p(x | γ, ω) ∏_D p(z | γ, ω),

    for each query row on its own. Cells of the ranges, at first no wider than half a lobe of the likelihood, are halved
    along both sides until 8 by 8 nodes and 6 by 6 agree on the support's evidence there; cells that may hold less than
    ``e^-45`` of it are left out, and every lobe with more is kept. A row's error is estimated by what 6 by 6 nodes
    change in its forecast (generously, for that is their error), and by what was left out. Tasks with a row
    above the tolerance, as one that contradicts the support, get smaller cells and more of them, twice at most.

    Args:
        x_support: the first observations of the support's rows.
        y_support: the next ones; no rows at all gives the forecast from the prior and the query row.
        x: the first observations of the query's rows.
        prior: ranges of γ and ω.
        noise: standard deviation of an observation about its trajectory, σ.
        interval: time between two observations, Δt.
        real: which rows of the support count; all when omitted.
        tolerance: aim for the error.

    Raises:
        ValueError: for shapes that do not fit together, values that are not finite, or a noise, an interval or a
            tolerance that is not positive and finite.

    Source: linear regression with a normal prior, as in Bishop 2006, section 3.3; the integral is this library's.
    """
    x_support, y_support, x = (np.asarray(values, np.float64) for values in (x_support, y_support, x))
    real = np.ones(x_support.shape[:2], bool) if real is None else np.asarray(real, bool)
    _check(x_support, y_support, x, real)
    for name, number in (("noise", noise), ("interval", interval), ("tolerance", tolerance)):
        if not 0 < number < np.inf:
            raise ValueError(f"{name} must be positive and finite, got {number}")
    box = np.array([prior.damping, prior.frequency], np.float64)
    z = np.where(real[..., None], np.concatenate([x_support, y_support], 2), 0.0)
    if z.shape[1] > z.shape[2]:  # fewer rows with the same Σ zzᵀ, and the evidence depends on nothing else
        z = np.linalg.qr(z).R
    times = interval * np.arange(z.shape[2], dtype=np.float64)
    problem = _Problem(np.asarray(z, np.float64), real.sum(1), times, noise, box)
    tasks, rows, ahead = *x.shape[:2], y_support.shape[2]
    mean, deviation = np.empty((tasks, rows, ahead)), np.empty((tasks, rows, ahead))
    error, gap = np.full((tasks, rows), np.inf), np.zeros((tasks, rows))
    highest = problem.highest(x.reshape(-1, x.shape[2])).reshape(tasks, rows)
    margin, pending = np.full(tasks, _MARGIN), np.arange(tasks)
    for effort in _EFFORTS:
        for some in (pending[part] for part in slices(len(pending), _TASKS)):
            cells = problem.cells(some, margin, effort)
            fine, coarse = (problem.nodes(cells, order, margin) for order in (_FINE, _COARSE))
            for task in some:
                poor = np.flatnonzero(error[task] > tolerance)
                for part in slices(len(poor), _BLOCK // len(fine[task].log_mass)):
                    at = task, poor[part]
                    found, rough = (problem.forecast(x[at], nodes[task]) for nodes in (fine, coarse))
                    mean[at], deviation[at] = found[:2]
                    gap[at] = highest[at] - found[2]
                    change = np.maximum(np.abs(found[0] - rough[0]), np.abs(found[1] - rough[1])).max(1)
                    left_out = np.exp(np.minimum(gap[at] - margin[task], 0.0))
                    error[at] = change + left_out * np.abs(mean[at]).max(1)
        asked = np.where(error > tolerance, gap + _MARGIN, 0.0)
        margin = np.maximum(np.where(asked > _MOST, 0.0, asked).max(1, initial=0.0), _MARGIN)
        pending = np.flatnonzero(((asked > 0) & (asked <= _MOST)).any(1))
    return ExactForecast(mean, deviation, error)


def bayes_forecast(
    support: Batch, query: Batch, *, prior: OscillatorPrior, noise: float, interval: float
) -> Float[Tensor, "tasks rows ahead"]:
    """The mean of :func:`exact_forecast` as a baseline of :func:`~fewstep.evaluation.evaluate`, once the rest is given.

    Args:
        support: ``x`` ``[tasks, rows, seen]`` and ``y`` ``[tasks, rows, ahead]``; rows of weight 0 count for nothing.
        query: likewise; its targets are not read, and what is forecast for a row of weight 0 means nothing.
        prior: as in :func:`exact_forecast`.
        noise: likewise.
        interval: likewise.

    Returns:
        Forecasts in the type of the query's ``x``, computed in float64.

    Raises:
        ValueError: as :func:`exact_forecast` says.
    """

    def array(values: Tensor, real: Tensor) -> Array:
        return to_numpy(torch.where(real[..., None], values.flatten(2), 0.0))

    real, asked = support.weight > 0, query.weight > 0
    inputs = array(support.x, real), array(support.y, real), array(query.x, asked)
    found = exact_forecast(*inputs, prior=prior, noise=noise, interval=interval, real=real.cpu().numpy())
    return torch.from_numpy(found.mean).to(query.x)


class _Effort(NamedTuple):
    """When a cell is small enough: 6 by 6 nodes err by at most ``tolerance`` of ``mass^power total^(1 - power)``.

    The root of the mass keeps relative digits in the tails, where a query row may ask for them. ``lobes`` is the
    greatest width in units of half a lobe: a query row may know more than the support.
    """

    tolerance: float
    power: float
    lobes: float


_EFFORTS = (_Effort(1e-6, 0.5, 1.0), _Effort(1e-7, 0.75, 1 / 2), _Effort(1e-8, 1.0, 1 / 8))


class _Cells(NamedTuple):
    """Rectangles of the plane of γ and ω, each of one task: lower corners and widths ``[cells, 2]``."""

    task: NDArray[np.intp]
    low: Array
    width: Array

    def some(self, chosen: slice | NDArray[np.bool_] | NDArray[np.intp]) -> "_Cells":
        return _Cells(self.task[chosen], self.low[chosen], self.width[chosen])

    def halved(self) -> "_Cells":
        """Four of each, or two where a side has no width."""
        result = self
        for axis in range(2):
            step = result.width / 2 * np.eye(2)[axis]
            if step.any():
                task, low = np.concatenate([result.task] * 2), np.concatenate([result.low, result.low + step])
                result = _Cells(task, low, np.concatenate([result.width - step] * 2))
        return result


class _Nodes(NamedTuple):
    """Quadrature nodes of one task, and the logarithm of the support's posterior mass that each stands for."""

    damping: Array
    frequency: Array
    log_mass: Array


class _Problem(NamedTuple):
    """Supports ``z`` ``[tasks, rows, times]``, ``shots`` of them real, and what is known of how they were made."""

    z: Array
    shots: NDArray[np.intp]
    times: Array
    noise: float
    box: Array

    def cells(self, tasks: NDArray[np.intp], margin: Array, effort: _Effort) -> _Cells:
        """Cells of some tasks that resolve the support's posterior, in the order of the tasks."""
        size = self.box[:, 1] - self.box[:, 0]
        lobe = 3.0 / self.times[-1] if self.times[-1] > 0 else np.inf  # half of 2π/T
        counts = np.maximum(np.ceil(size / lobe), 1).astype(int)
        corners = np.stack(np.meshgrid(*(np.arange(n) / n for n in counts), indexing="ij"), -1).reshape(-1, 2)
        low = np.tile(self.box[:, 0] + corners * size, (len(tasks), 1))
        going = _Cells(np.repeat(tasks, len(corners)), low, np.broadcast_to(size / counts, low.shape))
        kept: list[_Cells] = []
        masses: list[Array] = []
        total = of_kept = np.full(len(self.z), -np.inf)
        for level in range(_LEVELS):
            mass, off, highest, lowest = self._integrals(going)
            total = _log_add_at(of_kept, going.task, mass)
            share = mass - total[going.task]
            rounding = np.log(1e-14 * np.abs(highest) + 1e-300)  # no cell is too small for it
            good = off <= np.maximum(np.log(effort.tolerance) + (effort.power - 1) * share, rounding) + mass
            good &= (going.width <= effort.lobes * lobe * (1 + 1e-9)).all(1)
            good |= level == _LEVELS - 1
            # Between the nodes the likelihood rises by no more than it varies among them.
            least = total[going.task] - margin[going.task]
            matters = np.where(good, mass, 2 * highest - lowest) >= least
            done, more = good & matters, ~good & matters
            kept.append(going.some(done))
            masses.append(mass[done])
            of_kept = _log_add_at(of_kept, going.task[done], mass[done])
            if not more.any():
                break
            going = going.some(more).halved()
        result = _Cells(*(np.concatenate(values) for values in zip(*kept, strict=True)))
        mass = np.concatenate(masses)
        result = result.some(mass >= total[result.task] - margin[result.task])
        return result.some(np.argsort(result.task, kind="stable"))

    def nodes(self, cells: _Cells, order: int, margin: Array) -> dict[int, _Nodes]:
        """The nodes of each task, but for those without mass; masses add up to one."""
        parts = [self._masses(cells.some(part), order) for part in self._parts(len(cells.task))]
        damping, frequency, log_mass = (np.concatenate(values) for values in zip(*parts, strict=True))
        damping, frequency = np.broadcast_arrays(damping[:, :, None], frequency[:, None])
        starts = np.flatnonzero(np.diff(cells.task, prepend=-1))
        result = {}
        for first, last in zip(starts, [*starts[1:], len(cells.task)], strict=True):
            mass = log_mass[first:last].ravel()
            mass = mass - log_sum(mass[None], 1)
            heavy = mass > -margin[cells.task[first]]
            columns = (damping[first:last].ravel(), frequency[first:last].ravel(), mass)
            result[int(cells.task[first])] = _Nodes(*(values[heavy] for values in columns))
        return result

    def forecast(self, x: Array, nodes: _Nodes) -> tuple[Array, Array, Array]:
        """Mean and deviation ``[rows, ahead]`` for rows of one task, and their log evidence under its posterior.

        The evidence lacks what is common to all (γ, ω).
        """
        seen, variance = x.shape[1], self.noise**2
        first, second, log_mass = self._independent(nodes, seen)
        a, b = x @ first[:seen], x @ second[:seen]
        aa, bb = a**2, b**2
        weights = aa + bb
        weights *= 0.5 / variance
        weights += log_mass
        log_evidence = log_sum(weights, 1)
        weights -= log_evidence[:, None]
        np.exp(weights, out=weights)
        first, second = first[seen:].T, second[seen:].T
        mean = (weights * a) @ first + (weights * b) @ second
        aa += variance
        bb += variance
        a *= b
        square = (weights * aa) @ first**2 + 2 * (weights * a) @ (first * second) + (weights * bb) @ second**2
        deviation = np.sqrt(np.maximum(square - mean**2, 0) + variance)
        return mean, deviation, log_evidence

    def highest(self, x: Array) -> Array:
        """About the greatest log evidence that rows have anywhere in the ranges, which bounds what is left out."""
        lattice = (
            np.linspace(low, high, n if low < high else 1) for (low, high), n in zip(self.box, _LATTICE, strict=True)
        )
        damping, frequency = np.meshgrid(*lattice)
        seen = x.shape[1]
        first, second, log_mass = self._independent(_Nodes(damping.ravel(), frequency.ravel(), np.zeros(())), seen)
        result = np.empty(len(x))
        for part in slices(len(x), _BLOCK // damping.size):
            squares = (x[part] @ first[:seen]) ** 2 + (x[part] @ second[:seen]) ** 2
            result[part] = (0.5 / self.noise**2 * squares + log_mass).max(1)
        return result

    def _independent(self, nodes: _Nodes, seen: int) -> tuple[Array, Array, Array]:
        """The basis ``Q = B L⁻ᵀ``, ``[times, nodes]``, whose amplitudes given x are independent, with variance σ².

        ``LLᵀ = B₀ᵀB₀ + σ²I``. Also the masses times what of a row's evidence does not depend on the row.
        """
        decay = np.exp(-nodes.damping * self.times[:, None])
        phase = nodes.frequency * self.times[:, None]
        first, second = decay * np.cos(phase), decay * np.sin(phase)
        l11 = np.sqrt((first[:seen] ** 2).sum(0) + self.noise**2)
        l21 = (first[:seen] * second[:seen]).sum(0) / l11
        l22 = np.sqrt((second[:seen] ** 2).sum(0) + self.noise**2 - l21**2)
        first /= l11
        second = (second - l21 * first) / l22
        return first, second, nodes.log_mass - np.log(l11 * l22 / self.noise**2)

    def _integrals(self, cells: _Cells) -> tuple[Array, Array, Array, Array]:
        """Logarithms of a cell's posterior mass, of its error, and of the cell's area times the extreme densities.

        The error is the greatest difference between both rules in the mass and its first moments from the middle of
        the cell: the masses alone are equal by chance in one cell of many thousands.
        """
        result = np.empty((4, len(cells.task)))
        for part in self._parts(len(cells.task)):
            fine, coarse = (self._masses(cells.some(part), order)[2] for order in (_FINE, _COARSE))
            top = np.maximum(fine.max((1, 2)), coarse.max((1, 2)))
            first = self._moments(np.exp(fine - top[:, None, None]), _FINE)
            second = self._moments(np.exp(coarse - top[:, None, None]), _COARSE)
            density = fine - np.log(self._shares(_FINE))
            with np.errstate(divide="ignore"):
                result[0, part], result[1, part] = np.log(first[0]) + top, np.log(np.abs(first - second).max(0)) + top
            result[2, part], result[3, part] = density.max((1, 2)), density.min((1, 2))
        return result[0], result[1], result[2], result[3]

    def _moments(self, mass: Array, order: int) -> Array:
        """The mass of cells ``[cells, k, l]``, and its first moments in units of half a width: ``[3, cells]``."""
        by_axis = mass.sum(2), mass.sum(1)
        sides = (2 * _rule(order, bounds)[0] - 1 for bounds in self.box)
        return np.stack([by_axis[0].sum(1), *(m @ side for m, side in zip(by_axis, sides, strict=True))])

    def _masses(self, cells: _Cells, order: int) -> tuple[Array, Array, Array]:
        """γ ``[cells, k]`` and ω ``[cells, l]`` of the nodes, and ``ln`` of prior times evidence ``[cells, k, l]``.

        The evidence lacks what is common to all (γ, ω).
        """
        damping, frequency = (
            cells.low[:, axis, None] + cells.width[:, axis, None] * _rule(order, self.box[axis])[0] for axis in range(2)
        )
        decay = np.exp(-damping[..., None] * self.times)
        phase = frequency[..., None] * self.times
        cos, sin = np.cos(phase), np.sin(phase)
        # Both factors of the basis depend on one of the parameters: sums over times are products of small matrices.
        squares = np.stack([cos**2, cos * sin, sin**2], 1)
        m11, m12, m22 = np.moveaxis(decay[:, None] ** 2 @ squares.swapaxes(2, 3), 1, 0)
        m11, m22 = m11 + self.noise**2, m22 + self.noise**2
        determinant = m11 * m22 - m12**2
        count, rows, steps = len(cells.task), self.z.shape[1], damping.shape[1]
        damped = (self.z[cells.task][:, :, None] * decay[:, None]).reshape(count, rows * steps, len(self.times))
        u, v = ((damped @ wave.swapaxes(1, 2)).reshape(count, rows, steps, wave.shape[1]) for wave in (cos, sin))
        explained = m22 * (u**2).sum(1) - 2 * m12 * (u * v).sum(1) + m11 * (v**2).sum(1)
        log_evidence = 0.5 * explained / (determinant * self.noise**2)
        log_evidence -= 0.5 * self.shots[cells.task, None, None] * np.log(determinant / self.noise**4)
        size = self.box[:, 1] - self.box[:, 0]
        area = (cells.width / np.where(size > 0, size, 1))[:, size > 0].prod(1)
        return damping, frequency, log_evidence + np.log(area)[:, None, None] + np.log(self._shares(order))

    def _shares(self, order: int) -> Array:
        """What part of a cell each node stands for."""
        return np.outer(*(_rule(order, bounds)[1] for bounds in self.box))

    def _parts(self, cells: int) -> Iterator[slice]:
        return slices(cells, _CHUNK // (_FINE * (len(self.times) + 2 * _FINE) * (self.z.shape[1] + 3)))


@cache
def _legendre(order: int) -> tuple[Array, Array]:
    """Gauss-Legendre nodes in [0, 1] and their shares."""
    nodes, shares = np.polynomial.legendre.leggauss(order)
    return (nodes + 1) / 2, shares / 2


def _rule(order: int, bounds: Array) -> tuple[Array, Array]:
    """The nodes along one side of a cell: the middle alone where the range has no width."""
    return _legendre(order if bounds[0] < bounds[1] else 1)


def _log_add_at(start: Array, places: NDArray[np.intp], terms: Array) -> Array:
    """``start`` with terms added at places, in log space."""
    result = start.copy()
    np.logaddexp.at(result, places, terms)
    return result


def _check(x_support: Array, y_support: Array, x: Array, real: NDArray[np.bool_]) -> None:
    shapes = (x_support.shape, y_support.shape, x.shape)
    if [len(shape) for shape in shapes] != [3, 3, 3] or not (
        shapes[0][:2] == shapes[1][:2] == real.shape
        and shapes[0][0] == shapes[2][0]
        and shapes[0][2] == shapes[2][2] > 0
        and shapes[1][2] > 0
    ):
        raise ValueError(
            "x_support, y_support and x must be [tasks, shots, seen], [tasks, shots, ahead] and [tasks, rows, seen], "
            f"and real [tasks, shots]; got {shapes[0]}, {shapes[1]}, {shapes[2]} and {real.shape}"
        )
    for name, values in (("the support", x_support), ("the support", y_support), ("x", x)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite: a row with NaN or infinity has no forecast")
