"""The picture of few-shot forecasts: those of trained runs beside the exact Bayesian one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from fewstep.core import Batch, Task
from fewstep.data import Oscillations, Oscillators
from fewstep.evaluation import evaluating
from fewstep.evaluation.arrays import take, to_numpy
from fewstep.evaluation.exact.oscillations import exact_forecast
from fewstep.evaluation.figures import key, legend_below, new_figure
from fewstep.evaluation.functions import ensemble_members
from fewstep.experiments.asked import TEST_BATCH
from fewstep.experiments.folder import stored_config
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.functions_plot import save
from fewstep.experiments.uncertainty.procedure import run_labels
from fewstep.recipes.problems.functions import OscillationTasks

logger = logging.getLogger("fewstep")

BAND = 1.6449
"""Deviations on both sides of a normal mean that hold 90%."""

_SAME = ("seen", "ahead", "noise")  # of all runs in a picture
_POINTS = 400  # of a trajectory that is drawn as a curve
# Okabe and Ito's colours, told apart under every common colour blindness; markers say the same again.
_EXACT, _COLOURS = "#009E73", ("#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^v"
_DOTS: Mapping[str, Any] = {"marker": "o", "linestyle": ""}


@final
@dataclass(frozen=True, eq=False)
class Forecasts:
    """What the picture shows: some test tasks, their trajectories, and forecasts of the same rows by all.

    Attributes:
        oscillators: the true one of each task, ``[tasks]``.
        times: of the observations.
        curve_times: from the first observation to the last, where curves are drawn.
        support: observations to learn from.
        support_curves: the same trajectories without noise.
        seen: the first observations of the query rows that are shown.
        targets: the next ones, which are to be forecast.
        curves: the trajectories of these rows without noise.
        exact: means of the exact Bayesian forecast.
        deviation: standard deviations of its observations, noise included.
        exact_error: its mean squared error over all query rows, also those that are not shown.
        labels: names of the runs.
        found: their forecasts.
        errors: their mean squared errors, which are the scores of the same tasks in a test.
        queries: rows that errors are means over.
    """

    oscillators: Oscillators
    times: Float[np.ndarray, " times"]
    curve_times: Float[np.ndarray, " points"]
    support: Float[np.ndarray, "tasks shots times"]
    support_curves: Float[np.ndarray, "tasks shots points"]
    seen: Float[np.ndarray, "tasks rows seen"]
    targets: Float[np.ndarray, "tasks rows ahead"]
    curves: Float[np.ndarray, "tasks rows points"]
    exact: Float[np.ndarray, "tasks rows ahead"]
    deviation: Float[np.ndarray, "tasks rows ahead"]
    exact_error: Float[np.ndarray, " tasks"]
    labels: list[str]
    found: Float[np.ndarray, "runs tasks rows ahead"]
    errors: Float[np.ndarray, "runs tasks"]
    queries: int


def forecasts(
    runs: Sequence[Path], *, tasks: int = 4, rows: int = 2, seed: int = 0, note: Callable[[str], None] = logger.info
) -> Forecasts:
    """Forecast the query rows of a few of the first 100 test tasks, by trained runs and exactly.

    The tasks are chosen by their oscillators alone. The range of damping is cut into a weak and a strong half, and that
    of frequency into as many parts as a half has tasks; shown is the task nearest to the middle of each, weakly damped
    ones first, and of these slow ones.

    Args:
        runs: folders of runs on oscillations, with the same ``seen``, ``ahead`` and ``noise``; K, and the number of
            query rows, are as in the first run's test.
        tasks: how many, at most 100.
        rows: query rows of each that are shown.
        seed: of the tasks; that of a test is 0.
        note: is given a line about a run, such as that its training has not ended.

    Raises:
        ValueError: for no runs, a run on other tasks or on tasks that differ from the first run's, tasks without
            noise, or more tasks or rows than there are.
    """
    opened = _opened(runs, note)
    first = opened[0]
    source = first.problem.source("test", tasks=TEST_BATCH, seed=seed, queries=first.config.testing.queries)
    assert isinstance(source, Oscillations)
    for name, number, most in (("tasks", tasks, source.tasks), ("rows", rows, source.queries)):
        if not 1 <= number <= most:
            raise ValueError(f"{name} must be from 1 to {most}, got {number}.")
    among, prior = source.oscillators(0), source.prior
    ranges = (prior.damping, prior.frequency)
    places = np.stack([(v - low) / (high - low) for v, (low, high) in zip(among, ranges, strict=True)])
    chosen = spread_out(places, tasks)
    exactly = replace(source, noise=0.0, dtype=torch.float64, device="cpu")
    part, clean = (take(one.batch(0), chosen) for one in (source, exactly))
    oscillators = take(among, chosen)
    points = np.linspace(0.0, source.times[-1], _POINTS)
    (x_support, y_support), (x, y) = ((to_numpy(batch.x), to_numpy(batch.y)) for batch in part)
    exact = exact_forecast(x_support, y_support, x, prior=source.prior, noise=source.noise, interval=source.interval)
    found = np.stack([_forecast(run, part) for run in opened])
    support_curves, curves = (_curves(oscillators, batch, source.times, points) for batch in clean)
    return Forecasts(
        oscillators,
        source.times,
        points,
        np.concatenate([x_support, y_support], -1),
        support_curves,
        x[:, :rows],
        y[:, :rows],
        curves[:, :rows],
        exact.mean[:, :rows],
        exact.deviation[:, :rows],
        ((exact.mean - y) ** 2).mean((1, 2)),
        run_labels(opened),
        found[:, :, :rows],
        ((found - y) ** 2).mean((2, 3)),
        source.queries,
    )


def plot(
    runs: Sequence[Path],
    out: Path,
    *,
    tasks: int = 4,
    rows: int = 2,
    seed: int = 0,
    note: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Draw what :func:`forecasts` finds: a column for each task, its support on top and query rows below.

    The band of the exact forecast is its mean ± 1.64 standard deviations of an observation, which holds 90% where the
    predictive mixture is about normal.

    Args:
        runs: folders of runs on oscillations.
        out: folder for ``oscillations.png`` and ``oscillations.svg``.
        tasks: columns.
        rows: query rows of each.
        seed: of the tasks.
        note: as in :func:`forecasts`.

    Returns:
        The files.

    Raises:
        ValueError: as :func:`forecasts` says.
    """
    return save(draw(forecasts(runs, tasks=tasks, rows=rows, seed=seed, note=note)), out / "oscillations")


def _opened(runs: Sequence[Path], note: Callable[[str], None]) -> list[Run]:
    if not runs:
        raise ValueError("nothing to draw: give folders of runs on oscillations, such as of leo-oscillations.")
    settings: list[dict[str, float]] = []
    for run in runs:
        config = stored_config(run)  # before a run is opened, which may ask for data
        if not isinstance(config.data, OscillationTasks):
            raise ValueError(f"{run} is a run of {config.recipe}: give runs on oscillations, as of leo-oscillations.")
        settings.append({name: getattr(config.data, name) for name in _SAME})
        wanted, given = settings[0], settings[-1]
        if told := [f"{name} {given[name]} instead of {wanted[name]}" for name in _SAME if given[name] != wanted[name]]:
            raise ValueError(
                f"{run} is not on the tasks of {runs[0]}: {', '.join(told)}. Give runs on the same tasks, and draw "
                "others by themselves."
            )
    if not settings[0]["noise"] > 0:
        raise ValueError(f"{runs[0]} is on data without noise, where no exact forecast exists: give runs with noise.")
    return [Run.open(run, note) for run in runs]


def spread_out(places: Float[np.ndarray, "2 tasks"], count: int) -> NDArray[np.intp]:
    """The tasks nearest to middles of equal parts of the unit square of damping and frequency, one each."""
    half = count - count // 2
    middles = [(damping, (i + 0.5) / n) for damping, n in ((0.25, half), (0.75, count // 2)) for i in range(n)]
    chosen: list[int] = []
    for middle in middles:
        distance = np.hypot(*(places - np.array(middle)[:, None]))
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return np.array(chosen)


def _forecast(run: Run, tasks: Task) -> NDArray[np.float64]:
    """Of all query rows, as in a test: nothing is sampled, and of an ensemble it is the members' mean."""
    tasks = Task(*(Batch(*(tensor.to(run.place.device, run.place.dtype) for tensor in batch)) for batch in tasks))
    executor = run.config.training.make_executor()
    with run.at_test(), evaluating(run.method.learner), torch.no_grad():
        found = run.method.predict(run.method.adapt(tasks.support, executor), tasks.query, executor=executor)
    return to_numpy(found.unflatten(-1, (ensemble_members(run.method), -1)).mean(-2))


def _curves(
    oscillators: Oscillators, clean: Batch, times: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Trajectories that go through observations without noise, ``[tasks, rows, points]``."""
    values = np.concatenate([to_numpy(clean.x), to_numpy(clean.y)], -1)
    # s is linear in (a, b), which are what is not known of a row once the oscillator is.
    states = values @ np.linalg.pinv(oscillators.basis(times).swapaxes(0, 1))
    return oscillators(states[..., 0], states[..., 1], points)


def draw(shown: Forecasts) -> Any:
    """The figure."""
    from matplotlib.patches import Patch  # here, for importing it takes longer than most of the library

    (columns, rows), lines = shown.seen.shape[:2], 2 + len(shown.labels)
    seen, ahead = np.split(shown.times, [shown.seen.shape[2]])
    looks = zip(range(len(shown.labels)), cycle(_COLOURS), cycle(_MARKERS), strict=False)
    styles: list[dict[str, Any]] = [
        {"color": colour, "marker": marker, "markersize": 2.6, "linewidth": 1.1, "linestyle": "-:"[i >= len(_COLOURS)]}
        for i, colour, marker in looks
    ]
    exact_name = "exact Bayesian forecast"
    seen_style: dict[str, Any] = {**_DOTS, "color": "black", "markersize": 5}
    target_style = {**_DOTS, "color": "0.55", "markersize": 3.2, "markerfacecolor": "white", "markeredgewidth": 0.7}
    exact_style: dict[str, Any] = {"color": _EXACT, "linewidth": 1.5, "linestyle": (0, (4, 1.5))}
    heights = [1.9] * (1 + rows) + [0.17 * lines]
    figure = new_figure(max(3.1 * columns, 6.2), sum(heights) + 1.2)
    axes = figure.subplots(2 + rows, columns, sharex=True, squeeze=False, height_ratios=heights)
    for column, (top, *below, table) in enumerate(axes.T):
        damping, frequency = (values[column] for values in shown.oscillators)
        top.set_title(f"damping {damping:.2f}, frequency {frequency:.2f}", fontsize=10, loc="left")
        top.plot(shown.curve_times, shown.support_curves[column].T, color="0.55", linewidth=0.7)
        for values in shown.support[column]:
            top.plot(shown.times, values, "o", color="0.25", markersize=2.2, markeredgewidth=0)
        for row, axis in enumerate(below):
            at = column, row
            mean, width = shown.exact[at], BAND * shown.deviation[at]
            axis.axvline((seen[-1] + ahead[0]) / 2, color="0.6", linestyle=(0, (4, 4)), linewidth=0.7)
            axis.fill_between(ahead, mean - width, mean + width, color=_EXACT, alpha=0.18, linewidth=0)
            axis.plot(shown.curve_times, shown.curves[at], color="black", linewidth=1.6)
            axis.plot(ahead, shown.targets[at], **target_style)
            axis.plot(ahead, mean, **exact_style)
            for values, style in zip(shown.found[:, column, row], styles, strict=True):
                axis.plot(ahead, values, **style)
            axis.plot(seen, shown.seen[at], **seen_style, markeredgecolor="white", markeredgewidth=0.6, zorder=3)
            # What was to be forecast decides the range: one wild forecast must not flatten all others.
            needed = np.concatenate([shown.curves[at], shown.seen[at], shown.targets[at], mean - width, mean + width])
            room = 0.15 * (needed.max() - needed.min())
            axis.set_ylim(needed.min() - room, needed.max() + room)
        for axis in (top, *below):
            axis.spines[["top", "right"]].set_visible(False)
        below[-1].tick_params(labelbottom=True)
        below[-1].set_xlabel("time")
        table.axis("off")
        written = [
            (f"mean squared error, {shown.queries} queries", None, "0.35"),
            (exact_name, shown.exact_error[column], _EXACT),
            *zip(shown.labels, shown.errors[:, column], [s["color"] for s in styles], strict=True),
        ]
        for line, (name, error, colour) in enumerate(written):
            y, look = 1 - (line + 0.5) / lines, {"fontsize": 9, "va": "center", "transform": table.transAxes}
            table.text(0.0, y, name, color=colour, **look)
            if error is not None:
                text = f"{error:.4f}" if np.isfinite(error) else "not finite"
                table.text(1.0, y, text, color=colour, ha="right", **look)
    axes[0, 0].set_ylabel(f"support, K = {shown.support.shape[1]}")
    for row in range(rows):
        axes[1 + row, 0].set_ylabel(f"query {row + 1}")
    figure.align_ylabels(axes[:-1, 0])
    support_dots = {"marker": "o", "markersize": 2.6, "markerfacecolor": "0.25", "markeredgewidth": 0}
    keys = [
        key("trajectories to learn from", color="0.55", linewidth=0.7, **support_dots),
        key("true trajectory", color="black", linewidth=1.6),
        key("values seen", **seen_style),
        key("noisy targets", **target_style),
        key(exact_name, **exact_style),
        Patch(color=_EXACT, alpha=0.18, linewidth=0, label="its 90% band, noise included"),
        *(key(label, **style) for label, style in zip(shown.labels, styles, strict=True)),
    ]
    legend_below(figure, keys, 9.0, 4 if columns > 2 else 2)
    return figure
