"""``fewstep uncertainty`` and ``fewstep plot``: predictive distributions and forecasts, measured and drawn."""

from __future__ import annotations

from pathlib import Path

import tyro

from fewstep.commands.arguments import checked
from fewstep.commands.console import console, note, point_to
from fewstep.commands.long_running import removed_if_empty
from fewstep.core.ranges import Count, Seed, Several


@checked
def uncertainty(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    tasks: Count = 1000,
    samples: Count = 100,
    queries: Count = 100,
    seed: Seed = 0,
    ambiguous: Count = 200,
    out: Path | None = None,
) -> None:
    """Score runs on sines and lines by their predictive distributions, beside the exact Bayesian posterior.

    Args:
        runs: folders of runs, such as of leo-sine-line and maml-ensemble-sine-line, on tasks of the same noise.
        tasks: test tasks, the same for all.
        samples: functions to draw for each task, where a method has a distribution of them.
        queries: noisy query points a task.
        seed: of the tasks and of what is drawn.
        ambiguous: tasks on which sines and lines are counted: ambiguous ones of a pool of 100 times as many.
        out: folder for uncertainty.md, .json, _tasks.csv and _modes.csv; a new one under uncertainty/ when omitted.
    """
    from fewstep.experiments.folder import all_or_nothing, new_folder, require_new
    from fewstep.experiments.uncertainty.procedure import measure_runs

    folder = new_folder("uncertainty") if out is None else out
    require_new(folder, "a measurement")
    with removed_if_empty(out, folder), all_or_nothing(folder):
        found = measure_runs(
            runs, tasks=tasks, samples=samples, queries=queries, seed=seed, ambiguous=ambiguous, note=note
        )
        found.write(folder)
    console.print(found.table())
    point_to("report", folder / "uncertainty.md")


@checked
def sine_line(
    run: tyro.conf.Positional[Path], out: Path | None = None, columns: Several = 4, samples: Count = 30, seed: Seed = 0
) -> None:
    """Draw a run's functions for clear and ambiguous tasks, above the exact posterior's (LEO's Figure 3).

    Args:
        run: folder of a run on sines and lines.
        out: the picture without its suffix, for OUT.png and OUT.svg; sine-line in the run's folder when omitted.
        columns: tasks.
        samples: functions a task.
        seed: of the tasks and of what is drawn.
    """
    from fewstep.experiments.uncertainty.functions_plot import plot

    for file in plot(run, out or run / "sine-line", columns=columns, samples=samples, seed=seed, note=note):
        point_to("picture", file)


@checked
def oscillations(
    runs: tyro.conf.Positional[tuple[Path, ...]], out: Path | None = None, seed: Seed = 0, tasks: Count = 4
) -> None:
    """Draw what runs forecast of a few oscillators, beside the truth and the exact Bayesian forecast.

    Args:
        runs: folders of runs, such as of leo-oscillations and maml-oscillations, on the same tasks.
        out: folder for oscillations.png and .svg; the first run's when omitted.
        seed: of the tasks.
        tasks: columns, spread over slow and fast, weakly and strongly damped oscillators.
    """
    from fewstep.experiments.uncertainty.forecasts_plot import plot

    for file in plot(runs, out or Path(*runs[:1]), tasks=tasks, seed=seed, note=note):
        point_to("picture", file)
