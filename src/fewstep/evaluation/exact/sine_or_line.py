"""The exact Bayesian posterior of a sine-or-line task: the yardstick for learned methods.

With the prior and the noise known, a task's support D says how probable each kind of function is and how probable its
parameters. What it says about one kind, whose parameters are integrated out, is in
:mod:`fewstep.evaluation.exact.quadrature`; here the two kinds come together and predict.
"""

from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.data import draws
from fewstep.data.functions.sine_or_line import SineOrLinePrior, SinesOrLines
from fewstep.evaluation import mixtures
from fewstep.evaluation.arrays import chunks, slices
from fewstep.evaluation.exact import quadrature
from fewstep.evaluation.exact.quadrature import Kind, Nodes, OneKind
from fewstep.evaluation.predictive import checked

Array: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = Float[np.ndarray, "tasks rows"]

_TASKS = 4  # at a time, for each has thousands of components
_INNER_NODES, _INNER_WEIGHTS = np.polynomial.legendre.leggauss(16)
_INNER_UNIT, _INNER_SHARE = (_INNER_NODES + 1) / 2, _INNER_WEIGHTS / 2


@final
@dataclass(frozen=True)
class ExactPosterior:
    """The posterior of the function of each task given its support, and its prediction of further targets.

    Made by :func:`exact_posterior`. Targets and densities have the noise in them; ``mean`` is of the function, and so
    of the targets.

    Attributes:
        line: ``p(line | support)``, ``[tasks]``.
        sine: ``p(sine | support)``, ``[tasks]``; not the rounded rest of ``line``.
        line_error: estimate of the error of ``line`` and ``sine``: what half the panels change.
        log_evidence: ``ln p(support targets | support inputs)``, both kinds together, ``[tasks]``.
        line_log_evidence: ``ln p(support targets | support inputs, line)``, whatever ``prior.lines``.
        sine_log_evidence: likewise.
        log_evidence_error: of ``log_evidence``: what half the panels change.
        x: the support.
        y: likewise.
        prior: of the tasks.
        noise: standard deviation of the targets about the function.
        panels: of the quadrature of each kind, with 8 nodes each.
    """

    line: Float[np.ndarray, " tasks"]
    sine: Float[np.ndarray, " tasks"]
    line_error: Float[np.ndarray, " tasks"]
    log_evidence: Float[np.ndarray, " tasks"]
    line_log_evidence: Float[np.ndarray, " tasks"]
    sine_log_evidence: Float[np.ndarray, " tasks"]
    log_evidence_error: Float[np.ndarray, " tasks"]
    x: Float[np.ndarray, "tasks shots"]
    y: Float[np.ndarray, "tasks shots"]
    prior: SineOrLinePrior
    noise: float
    panels: int
    _kinds: tuple[OneKind, OneKind]
    _every: int = 1

    def coarser(self) -> "ExactPosterior":
        """The same with half the panels: what it changes in any result is an estimate of that result's error.

        The estimate is generous: it is the error of half the panels, far above that of all.

        Raises:
            ValueError: if there is nothing left to halve.
        """
        if self.panels % 4:
            raise ValueError(f"half of {self.panels} panels leaves none to compare with: ask for a multiple of 4")
        return _posterior(self.x, self.y, self.prior, self.noise, self.panels // 2, self._kinds, 2 * self._every)

    def mean(self, x: Rows) -> Rows:
        """Mean of the prediction at inputs ``[tasks, rows]``."""
        result = np.zeros_like(x)
        for kind, nodes, share in self._parts():
            weights, inner = nodes.weights() * share[:, None], kind.inner_mean(nodes)
            for part in chunks((*x.shape, nodes.theta.shape[1])):
                h, o = kind.curve(nodes.theta[part, None], x[part, :, None])
                result[part] += (weights[part, None] * (inner[part, None] * h + o)).sum(2)
        return result

    def log_density(self, x: Rows, y: Rows) -> Rows:
        """``ln p(y | x, support)`` of each target on its own, in nats, ``[tasks, rows]``.

        Nodes with less than ``e^-30`` of the posterior are left out where the density is above ``e^-8``, and there
        change it by less than 1e-8 of itself; a target further out gets all of them.
        """
        result, parts = np.empty_like(x), self._parts()
        with np.errstate(divide="ignore"):
            weights = [n.log_mass - (n.log_evidence - np.log(share))[:, None] for _, n, share in parts]

        def density(task: int, rows: NDArray[np.bool_], least: float) -> Array:
            terms = [
                kind.log_terms(nodes, weight, task, weight[task] > least, x[task, rows], y[task, rows])
                for (kind, nodes, _), weight in zip(parts, weights, strict=True)
            ]
            return mixtures.log_sum(np.concatenate(terms, 1), 1)

        for task in range(len(x)):
            result[task] = density(task, np.ones(x.shape[1], bool), -30.0)
            far = result[task] < -8
            if far.any():
                result[task, far] = density(task, far, -np.inf)
        return result

    def joint_log_density(self, x: Rows, y: Rows) -> Float[np.ndarray, " tasks"]:
        """``ln p(y_1, …, y_n | x, support)`` of all targets of a task together, ``[tasks]``.

        The ratio of two evidences, with and without the targets. It is not the sum of :meth:`log_density`: the targets
        share one unknown function.
        """
        joined = (np.concatenate(pair, 1) for pair in ((self.x, x), (self.y, y)))
        more = exact_posterior(*joined, prior=self.prior, noise=self.noise, panels=self.panels)
        return np.asarray(more.log_evidence - self.log_evidence)

    def at(self, x: Rows) -> "ExactPrediction":
        """The prediction at inputs ``[tasks, rows]``, with the methods of every predictive distribution."""
        return ExactPrediction(self, x)

    def sample(self, count: int, seed: int) -> SinesOrLines:
        """Functions drawn from the posterior, ``[tasks, count]``; more of them begin with the same ones.

        Within a node's part of the range (some thousandth of it, where the mass is) θ is uniform; c given θ is exact.

        Raises:
            ValueError: if the seed is out of range.
        """
        tasks = len(self.x)
        words = draws.words(seed, 0, "exact posterior", (count, 4, tasks))
        levels = np.moveaxis(draws.uniform(words, 0.0, 1.0), 0, 2)  # [4, tasks, count]
        functions: dict[Kind, tuple[Array, Array]] = {}
        for kind, nodes, _ in self._parts():
            cumulative, right = np.cumsum(nodes.weights(), 1), np.cumsum(nodes.share, 1)
            rank = np.array([np.searchsorted(c[:-1], u, "right") for c, u in zip(cumulative, levels[1], strict=True)])
            rank = rank.reshape(tasks, count)
            unit = np.take_along_axis(right, rank, 1) - levels[2] * np.take_along_axis(nodes.share, rank, 1)
            drawn = kind.at(np.clip(unit, 0.0, 1.0), np.ones_like(unit))
            functions[kind.kind] = (kind.inner_quantile(levels[3], drawn.precision, drawn.centre), drawn.theta)
        (amplitude, phase), (intercept, slope) = functions["sine"], functions["line"]
        return SinesOrLines.where(levels[0] < self.line[:, None], amplitude, phase, slope, intercept)

    def components(self, part: slice) -> tuple[Float[np.ndarray, "tasks c"], SinesOrLines]:
        """A weighted sample of functions that stands for the posterior of some tasks: weights, and functions.

        A product rule: half the panels' nodes in θ, and at each of them Gauss-Legendre nodes in c where its mass is.
        The least of them, 1e-6 of the mass together, are left out.
        """
        columns = []
        for kind, share in zip(self._kinds, (self.sine, self.line), strict=True):
            some = kind._replace(fit=quadrature.of_tasks(kind.fit, part), edges=kind.edges[part])
            nodes = some.nodes(2 * self._every)
            outer = nodes.weights() * share[part, None]
            low, width = some.inner_bulk(nodes)
            inner = low[..., None] + width[..., None] * _INNER_UNIT
            scaled = (inner - nodes.centre[..., None]) ** 2 * nodes.precision[..., None] / some.noise**2
            inner_weights = _INNER_SHARE * np.exp(-0.5 * (scaled - scaled.min(2, keepdims=True)))
            inner_weights *= (outer / inner_weights.sum(2))[..., None]
            line = np.full(inner.shape, kind.kind == "line")
            theta = np.broadcast_to(nodes.theta[..., None], inner.shape)
            columns.append([values.reshape(len(values), -1) for values in (inner_weights, line, inner, theta)])
        joined = [np.concatenate(parts, 1) for parts in zip(*columns, strict=True)]
        order = np.argsort(-joined[0], 1)
        weight, line, inner, theta = (np.take_along_axis(values, order, 1) for values in joined)
        kept = int((np.cumsum(weight, 1) < 1 - 1e-6).sum(1).max()) + 1
        weight, line, inner, theta = (values[:, :kept] for values in (weight, line, inner, theta))
        return weight / weight.sum(1, keepdims=True), SinesOrLines.where(line, inner, theta, theta, inner)

    def _parts(self) -> list[tuple[OneKind, Nodes, Array]]:
        shares = (self.sine, self.line)
        return [(kind, kind.nodes(self._every), share) for kind, share in zip(self._kinds, shares, strict=True)]


@final
@dataclass(frozen=True)
class ExactPrediction:
    """An :class:`ExactPosterior` at query inputs: a :class:`~fewstep.evaluation.predictive.Distribution`.

    Attributes:
        posterior: of the tasks.
        x: query inputs, ``[tasks, rows]``.
    """

    posterior: ExactPosterior
    x: Rows

    def mean(self) -> Rows:
        """As :meth:`ExactPosterior.mean`."""
        return self.posterior.mean(self.x)

    def log_density(self, y: Rows) -> Rows:
        """As :meth:`ExactPosterior.log_density`."""
        return self.posterior.log_density(self.x, y)

    def cdf(self, y: Rows) -> Rows:
        """``p(target < y | x, support)``: the probability integral transform, ``[tasks, rows]``; error below 1e-4."""
        result = np.empty_like(self.x)
        for part in slices(len(self.x), _TASKS):
            weights, functions = self.posterior.components(part)
            result[part] = mixtures.cdf(functions(self.x[part]), weights, self.posterior.noise, y[part])
        return result

    def quantile(self, level: float) -> Rows:
        """The y at which :meth:`cdf` is ``level``."""
        return self._quantiles(level)[0]

    def interval(self, probability: float) -> tuple[Rows, Rows]:
        """Ends of the central interval of this probability: a fraction of the targets lies in it."""
        low, high = self._quantiles((1 - probability) / 2, (1 + probability) / 2)
        return low, high

    def _quantiles(self, *levels: float) -> list[Array]:
        results = [np.empty_like(self.x) for _ in levels]
        for part in slices(len(self.x), _TASKS):
            weights, functions = self.posterior.components(part)
            values = functions(self.x[part])
            for result, level in zip(results, levels, strict=True):
                result[part] = mixtures.quantile(values, weights, self.posterior.noise, level)
        return results


def exact_posterior(
    x: Float[np.ndarray, "tasks shots"],
    y: Float[np.ndarray, "tasks shots"],
    *,
    prior: SineOrLinePrior | None = None,
    noise: float = 0.3,
    panels: int = 16,
) -> ExactPosterior:
    """The posterior of sine-or-line tasks given their supports, to many digits.

    ``p(kind | D) ∝ p(kind) ∫∫ ∏_i N(y_i; f_θc(x_i), σ²) p(c) p(θ) dc dθ``, c integrated in closed form and θ by
    quadrature. Every task spreads its panels so that each holds about the same mass of the posterior's square root
    (the root keeps nodes in the tails, where an outlying target may ask for them), a tenth of them evenly; a likelihood
    narrower than the first panels is approached through flattened ones, so small noise needs no more panels.

    Args:
        x: support inputs; no rows at all gives the prior.
        y: support targets.
        prior: of the tasks, of the paper when omitted. A range of no width fixes its parameter.
        noise: standard deviation of the targets about the function, σ.
        panels: for each kind, with 8 nodes each; even. With sixteen, five shots and noise 0.3, the evidence of 1,000
            tasks is within 2e-6 of its logarithm, and within 1e-8 for most.

    Raises:
        ValueError: for other shapes, values that are not finite, a noise that is not positive, or an odd number of
            panels.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"x and y must be two arrays [tasks, shots] of one shape, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite: a support with NaN or infinity has no posterior")
    if not 0 < noise < np.inf:
        raise ValueError(f"noise is a standard deviation, positive and finite, got {noise}")
    if panels < 2 or panels % 2:
        raise ValueError(f"panels must be even and at least 2 (half of them estimate the error), got {panels}")
    prior = prior or SineOrLinePrior()
    start = np.broadcast_to(np.linspace(0, 1, panels + 1), (len(x), panels + 1))
    sine = OneKind("sine", prior.phase, prior.amplitude, noise, quadrature.fit(np.sin(x), -np.cos(x), y), start)
    line = OneKind("line", prior.slope, prior.intercept, noise, quadrature.fit(x, np.ones_like(x), y), start)
    return _posterior(x, y, prior, noise, panels, (quadrature.placed(sine), quadrature.placed(line)), 1)


def _posterior(
    x: Array, y: Array, prior: SineOrLinePrior, noise: float, panels: int, kinds: tuple[OneKind, OneKind], every: int
) -> ExactPosterior:
    def evidence(every: int) -> tuple[Array, Array, Array, Array, Array]:
        """``p(line | D)``, ``p(sine | D)``, ``ln p(D)``, ``ln p(D | line)``, ``ln p(D | sine)``."""
        sine, line = (kind.nodes(every).log_evidence for kind in kinds)
        with np.errstate(divide="ignore"):
            with_sine, with_line = sine + np.log(1 - prior.lines), line + np.log(prior.lines)
        both = np.logaddexp(with_sine, with_line)
        return np.exp(with_line - both), np.exp(with_sine - both), both, line, sine

    line, sine, both, of_line, of_sine = evidence(every)
    coarse_line, _, coarse_both, *_ = evidence(2 * every)
    line_error, both_error = np.abs(line - coarse_line), np.abs(both - coarse_both)
    return ExactPosterior(
        line, sine, line_error, both, of_line, of_sine, both_error, x, y, prior, noise, panels, kinds, every
    )


def mode_mass(
    x: Float[np.ndarray, " grid"],
    values: Float[np.ndarray, "tasks samples grid"],
    *,
    prior: SineOrLinePrior | None = None,
    noise: float = 0.3,
) -> Float[np.ndarray, " tasks"]:
    """Fraction of each task's sampled functions that look like lines rather than sines, ``[tasks]``.

    A function counts as a line where the marginal likelihood of its values on the grid, taken as targets with this
    noise, is greater under lines than under sines, parameters integrated out under ``prior`` (whose ``lines`` plays no
    part). The exact posterior's own samples give its ``line`` back, up to sines so flat that the noise hides them.

    Args:
        x: inputs common to all functions; 50 or more over the whole range tell the kinds apart.
        values: of the functions at those inputs.
        prior: ranges of the parameters, of the paper when omitted.
        noise: how far a function may stray from a true sine or line and count as one, in units of y.

    Raises:
        ValueError: if there is no sample, a value is not finite, or the noise is not positive.
    """
    values = checked(values)
    tasks, samples, grid = values.shape
    line = np.empty(tasks * samples)
    flat = values.reshape(-1, grid)
    for part in chunks((*flat.shape[:1], 1024)):
        some = flat[part]
        found = exact_posterior(np.broadcast_to(x, some.shape), some, prior=prior, noise=noise, panels=8)
        line[part] = found.line_log_evidence > found.sine_log_evidence
    return np.asarray(line.reshape(tasks, samples).mean(1))
