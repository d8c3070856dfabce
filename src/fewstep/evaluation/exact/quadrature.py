"""One kind of function given a support: everything over its two parameters, one in closed form, one by quadrature.

Of each kind's two parameters one, c, enters linearly given the other, θ:

    sine:  f(x) = c sin(x - θ),   c = amplitude, θ = phase,
    line:  f(x) = c + θ x,        c = intercept, θ = slope.

Given θ the likelihood is normal in c, so under a uniform prior c is normal restricted to its range: its evidence,
its mean and the density of one more target are closed expressions (:mod:`~fewstep.evaluation.exact.truncated_normal`).
What is left is one integral over θ for each kind, by Gauss-Legendre nodes on panels that each task places for itself.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewstep.evaluation import mixtures
from fewstep.evaluation.arrays import take
from fewstep.evaluation.exact import truncated_normal

Array: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["sine", "line"]

_ORDER = 8
_LEGENDRE, _SHARES = np.polynomial.legendre.leggauss(_ORDER)
_GRADES = ((0.5, 0.0), (0.2, np.log(4)), (0.1, np.log(16)), (0.1, np.log(64)), (0.1, 80.0))
_TINY = 1e-280  # in place of zero where a division by it would follow; its root is still a normal number


class Fit(NamedTuple):
    """All that the support says about one kind: ``|y - f|² = residual + (β - estimate)ᵀ gram (β - estimate)``."""

    rows: int
    residual: Array
    estimate: tuple[Array, Array]
    gram: tuple[Array, Array, Array]
    determinant: Array


class Nodes(NamedTuple):
    """Quadrature over θ of one kind, ``[tasks, nodes]``; c given θ is normal before its range restricts it.

    Attributes:
        theta: the nodes, in ascending order.
        share: of the range that a node stands for; they add up to one.
        log_mass: of ``share`` times the likelihood, c integrated out.
        precision: of c given θ and no prior, in units of ``1/noise²``.
        centre: mean of c given θ and no prior.
    """

    theta: Array
    share: Array
    log_mass: Array
    precision: Array
    centre: Array

    @property
    def log_evidence(self) -> Array:
        """``ln p(support | kind)``, ``[tasks]``."""
        return mixtures.log_sum(self.log_mass, 1)

    def weights(self) -> Array:
        """Of the nodes in this kind's posterior, ``[tasks, nodes]``; they add up to one."""
        weights: Array = np.exp(self.log_mass - self.log_evidence[:, None])
        weights /= weights.sum(1, keepdims=True)
        return weights


class OneKind(NamedTuple):
    """One kind of function: its ranges, what the support says about it, and where its panels lie."""

    kind: Kind
    outer: tuple[float, float]
    inner: tuple[float, float]
    noise: float
    fit: Fit
    edges: Array

    def nodes(self, every: int = 1) -> Nodes:
        """The quadrature; with ``every`` 2, that of half the panels, each as wide as two."""
        return self.at(*_legendre(self.edges[:, ::every]))

    def at(self, unit: Array, share: Array) -> Nodes:
        """The fields of :class:`Nodes` at places of the range of θ, its lower end 0 and its upper end 1."""
        theta = self.outer[0] + (self.outer[1] - self.outer[0]) * unit
        first, second = (column[:, None] for column in self.fit.estimate)
        g11, g12, g22 = (column[:, None] for column in self.fit.gram)
        determinant = self.fit.determinant[:, None]
        if self.kind == "sine":  # β = c (cos θ, sin θ)
            cos, sin = np.cos(theta), np.sin(theta)
            precision = np.maximum(g11 * cos**2 + 2 * g12 * cos * sin + g22 * sin**2, _TINY)
            centre = (cos * (g11 * first + g12 * second) + sin * (g12 * first + g22 * second)) / precision
            # (βᵀGβ)(dᵀGd) - (dᵀGβ)² = det G (β × d)² for any direction d: no difference to lose digits in.
            excess = determinant * (first * sin - second * cos) ** 2 / precision
        else:  # β = (θ, c)
            precision = np.broadcast_to(np.maximum(g22, _TINY), theta.shape)
            centre = second - (theta - first) * g12 / precision
            excess = (theta - first) ** 2 * determinant / precision
        log_likelihood = (
            0.5 * np.log(2 * np.pi)
            - 0.5 * self.fit.rows * np.log(2 * np.pi * self.noise**2)
            - 0.5 * (self.fit.residual[:, None] + excess) / self.noise**2
            + truncated_normal.log_mean_density(*self.interval(precision, centre))
        )
        return Nodes(theta, share, log_likelihood + np.log(share), precision, centre)

    def interval(self, precision: Array, centre: Array) -> tuple[Array, Array]:
        """Lower end and width of the range of c, in deviations of c given θ."""
        scale = np.sqrt(precision) / self.noise
        return (self.inner[0] - centre) * scale, (self.inner[1] - self.inner[0]) * scale

    def curve(self, theta: Array, x: Array) -> tuple[Array, Array]:
        """h and o of ``f(x) = c h + o``."""
        if self.kind == "sine":
            return np.sin(x - theta), np.zeros(())
        return np.ones(()), theta * x

    def inner_mean(self, nodes: Nodes) -> Array:
        """Mean of c given θ, ``[tasks, nodes]``."""
        a, w = self.interval(nodes.precision, nodes.centre)
        mean = nodes.centre + truncated_normal.mean(a, w) * self.noise / np.sqrt(nodes.precision)
        return np.clip(mean, *self.inner)  # a centre far outside the range loses the digits inside it

    def inner_quantile(self, level: Array, precision: Array, centre: Array) -> Array:
        """Quantiles of c given θ."""
        offset = truncated_normal.quantile(level, *self.interval(precision, centre))
        return np.clip(self.inner[0] + offset * self.noise / np.sqrt(precision), *self.inner)

    def inner_bulk(self, nodes: Nodes) -> tuple[Array, Array]:
        """Lower end and width of an interval outside which c given θ has less than 1e-6 of its mass."""
        a, w = self.interval(nodes.precision, nodes.centre)
        # Beyond t > a > 0 lies at most exp((a² - t²)/2) of the mass above a, and likewise from the other end.
        high = np.minimum(a + w, np.sqrt(np.maximum(a, 0) ** 2 + 28))
        low = np.maximum(a, -np.sqrt(np.maximum(-(a + w), 0) ** 2 + 28))
        unit = self.noise / np.sqrt(nodes.precision)
        return np.clip(self.inner[0] + (low - a) * unit, *self.inner), np.maximum(high - low, 0) * unit

    def log_terms(
        self, nodes: Nodes, log_weights: Array, task: int, kept: NDArray[np.bool_], x: Array, y: Array
    ) -> Array:
        """``ln p(θ | D) p(y | x, θ, D)`` at some nodes of a task, ``[rows, nodes]``: the evidence with a row more."""
        theta, precision, centre = (
            np.broadcast_to(values[task], kept.shape)[kept] for values in (nodes.theta, nodes.precision, nodes.centre)
        )
        h, o = self.curve(theta, x[:, None])
        error = y[:, None] - o - centre * h
        more = np.broadcast_to(precision + h**2, error.shape)
        ratio = truncated_normal.log_mean_density(*self.interval(more, centre + h * error / more))
        ratio -= truncated_normal.log_mean_density(*self.interval(precision, centre))
        density = -0.5 * np.log(2 * np.pi * self.noise**2) - 0.5 * error**2 * (precision / more) / self.noise**2
        return np.asarray(log_weights[task, kept] + density + ratio)


def fit(first: Array, second: Array, y: Array) -> Fit:
    """Least squares of each task's targets on two basis functions, by the pseudo-inverse where they are dependent."""
    basis = np.stack((first, second), 2)
    gram = np.swapaxes(basis, 1, 2) @ basis
    estimate = (np.linalg.pinv(basis) @ y[..., None])[..., 0]
    residual = ((y - (basis @ estimate[..., None])[..., 0]) ** 2).sum(1)
    (g11, g12), (_, g22) = np.moveaxis(gram, 0, 2)
    determinant = np.maximum(g11 * g22 - g12**2, 0)
    return Fit(y.shape[1], residual, (estimate[:, 0], estimate[:, 1]), (g11, g12, g22), determinant)


def placed(kind: OneKind) -> OneKind:
    """Move the panels to where the square root of the posterior has its mass.

    A likelihood that the panels do not resolve yet is raised to a power ``1/T`` at which a quarter of the panels share
    its mass; panels placed by that resolve a higher power, and so on until the power is a half.
    """
    edges, last = kind.edges.copy(), np.log(2.0)
    panels = edges.shape[1] - 1
    going, high = np.arange(len(edges)), np.full(len(edges), 80.0)  # ln T, at which the panels' masses are equal
    for _ in range(40):
        some = kind._replace(fit=of_tasks(kind.fit, going), edges=edges[going])
        nodes, widths = some.nodes(), np.diff(some.edges)
        highest = (nodes.log_mass - np.log(nodes.share)).reshape(len(going), panels, _ORDER).max(2)
        highest -= highest.max(1, keepdims=True)
        low = np.full(len(going), last)
        resolved = _spread(widths, highest, low) >= panels / 4
        for _ in range(12):
            middle = (low + high) / 2
            enough = _spread(widths, highest, middle) >= panels / 4
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        power = np.where(resolved, last, high)
        shares = sum(part * _shares(widths, highest, power + step) for part, step in _GRADES)
        cumulative = np.pad(np.cumsum(shares, 1), ((0, 0), (1, 0)))
        levels = np.linspace(0, 1, panels + 1)
        for task, c, e in zip(going, cumulative, some.edges, strict=True):
            edges[task] = np.interp(levels, c / c[-1], e)
        going, high = going[~resolved], high[~resolved]
        if not len(going):
            break
    return kind._replace(edges=edges)


def _shares(widths: Array, highest: Array, log_temperature: Array) -> Array:
    mass = widths * np.exp(highest * np.exp(-log_temperature)[:, None])
    return np.asarray(mass / mass.sum(1, keepdims=True))


def _spread(widths: Array, highest: Array, log_temperature: Array) -> Array:
    """The number of panels that share the mass (inverse Simpson index), ``[tasks]``."""
    return np.asarray(1 / (_shares(widths, highest, log_temperature) ** 2).sum(1))


def _legendre(edges: Array) -> tuple[Array, Array]:
    """Nodes in [0, 1] and what share of it each stands for, ``[tasks, panels * 8]``."""
    left, widths = edges[:, :-1, None], np.diff(edges)[..., None]
    unit = left + widths * (1 + _LEGENDRE) / 2
    return unit.reshape(len(edges), -1), (widths * _SHARES / 2).reshape(len(edges), -1)


def of_tasks(fit: Fit, part: slice | NDArray[np.intp]) -> Fit:
    """What the support says in some of the tasks."""
    return Fit(fit.rows, *take(fit[1:], part))
