"""The picture of a run's functions on clear and ambiguous tasks, above the exact posterior's: LEO's Figure 3."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewstep.core import Task
from fewstep.data import SineOrLine
from fewstep.evaluation.arrays import take
from fewstep.evaluation.figures import image, images, key, legend_below, new_figure
from fewstep.evaluation.functions import Functions
from fewstep.evaluation.tables import write_files
from fewstep.experiments.run import Run
from fewstep.experiments.uncertainty.procedure import posterior_of
from fewstep.experiments.uncertainty.result import AMBIGUOUS
from fewstep.recipes.problems.functions import SineOrLineTasks

logger = logging.getLogger("fewstep")

_TASKS = 2000  # among which ambiguous ones are looked for
_X = np.linspace(-5, 5, 201)


def plot(
    run: Path,
    out: Path,
    *,
    columns: int = 4,
    samples: int = 30,
    seed: int = 0,
    note: Callable[[str], None] = logger.info,
) -> list[Path]:
    """Draw a trained run's functions for test tasks, half of them ambiguous, above the exact posterior's.

    Ambiguous are tasks to whose kinds the exact posterior gives more than 20% each; of those, and of the clear ones,
    the first in the order of the test are shown, sines and lines in turn among the clear.

    Args:
        run: folder of a run on sines and lines.
        out: where the picture goes, without a suffix: ``OUT.png`` and ``OUT.svg``.
        columns: tasks.
        samples: functions a task.
        seed: of the tasks and of what is drawn.
        note: is given a line about the run, such as that its training has not ended.

    Returns:
        The files.

    Raises:
        ValueError: for a run on other tasks, or fewer than two columns.
    """
    opened = Run.open(run, note)
    data = opened.config.data
    if not isinstance(data, SineOrLineTasks):
        raise ValueError(f"{run} is a run of {opened.config.recipe}: give one on sines and lines, as of leo-sine-line.")
    if columns < 2:
        raise ValueError(f"columns must be at least 2, one clear task and one ambiguous, got {columns}.")
    source = opened.problem.source("test", tasks=_TASKS, seed=seed, queries=1)
    assert isinstance(source, SineOrLine)
    tasks, truth = source.batch(0), source.functions(0)
    posterior = posterior_of(tasks, data.noise)
    chosen = clear_and_ambiguous(posterior.line, posterior.sine, truth.line, columns)
    part = take(tasks, chosen)
    grid = torch.from_numpy(_X).to(part.query.x).expand(len(chosen), -1)
    with opened.at_test():
        (found,) = Functions(opened.method, samples, seed)(part, grid)
    few = posterior_of(part, data.noise)
    known = few.sample(samples, seed)(np.broadcast_to(_X, (len(chosen), len(_X))))
    true = truth(np.broadcast_to(_X, (_TASKS, len(_X))))[chosen]
    return save(_draw(part, true, found, known, posterior.line[chosen], opened.config.recipe), out)


def save(figure: Any, out: Path) -> list[Path]:
    """Write a figure in every form, and say where: ``out`` has no suffix."""
    files = images(out.name, partial(image, figure))
    write_files(out.parent, files)
    return [out.with_name(name) for name in files]


def clear_and_ambiguous(
    line: NDArray[np.float64], sine: NDArray[np.float64], is_line: NDArray[np.bool_], columns: int
) -> NDArray[np.intp]:
    """The first clear tasks, a sine first, and then as many ambiguous ones."""
    ambiguous = np.flatnonzero((line > AMBIGUOUS) & (sine > AMBIGUOUS))
    clear = np.flatnonzero(np.maximum(line, sine) > 0.999)
    sines, lines = clear[~is_line[clear]], clear[is_line[clear]]
    half = columns - columns // 2
    in_turn = [kind for pair in zip(sines[:half], lines[:half], strict=True) for kind in pair][:half]
    return np.array([*in_turn, *ambiguous[: columns // 2]])


def _draw(tasks: Task, true: Any, found: Any, known: Any, line: NDArray[np.float64], name: str) -> Any:
    columns = len(line)
    figure = new_figure(3.1 * columns, 6.0)
    axes = figure.subplots(2, columns, sharex=True, sharey="col", squeeze=False)
    for row, (functions, colour) in enumerate(((found, "C0"), (known, "C2"))):
        for column in range(columns):
            axis = axes[row, column]
            x, y = (t[column].flatten().numpy() for t in (tasks.support.x, tasks.support.y))
            for position in x:
                axis.axvline(position, color="C3", linestyle=(0, (4, 4)), linewidth=0.6, alpha=0.5)
            values = functions[column]
            axis.plot(_X, values.T, color=colour, linewidth=0.8, alpha=max(0.25, 1.6 / max(8, len(values))))
            axis.plot(_X, true[column], color="black", linewidth=1.6)
            axis.scatter(x, y, color="C3", s=28, zorder=3, edgecolors="white", linewidths=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            # What was seen decides the range: one wild sample must not flatten all others.
            shown = np.concatenate([true[column], y, np.quantile(known[column], [0.02, 0.98])])
            room = 0.25 * (shown.max() - shown.min()) + 0.5
            axis.set_ylim(shown.min() - room, shown.max() + room)
            if row == 0:
                kind = "ambiguous" if AMBIGUOUS < line[column] < 1 - AMBIGUOUS else "clear"
                axis.set_title(f"{kind}: p(line | points) = {line[column]:.2f}", fontsize=10, loc="left")
            else:
                axis.set_xlabel("x")
    axes[0, 0].set_ylabel(f"{name}\ny")
    axes[1, 0].set_ylabel("exact posterior\ny")
    label = f"{found.shape[1]} functions of {name}" if found.shape[1] > 1 else f"the function of {name}"
    keys = [
        key("true function", color="black", linewidth=1.6),
        key("noisy points to learn from", color="C3", marker="o", linestyle=""),
        key(label, color="C0", linewidth=1),
        key(f"{known.shape[1]} functions from the exact posterior", color="C2", linewidth=1),
    ]
    legend_below(figure, keys, 9.0)
    return figure
