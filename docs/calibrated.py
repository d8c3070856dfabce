"""Measures a table of docs/uncertainty.md: `python docs/calibrated.py FEATURES --out FOLDER`, an hour or two.

Whether classifiers that are meta-trained are as often right as they say, at one shot and at five: each as its recipe on
features has it, after so many meta-steps, on the same tasks. What is in FOLDER is kept, and a command that was stopped
goes on. `--table` prints what is there, and `--picture FILE` draws it.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

from fewstep.core import Batch, Method, Task, generator
from fewstep.core.noise import Noise
from fewstep.evaluation import interval
from fewstep.evaluation.baselines import logistic_regression
from fewstep.evaluation.calibration import calibration_error, fit_temperature, query_logits
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES

DRAWN = "leo", "platipus", "neural-process"
"""They have a distribution over classifiers: of so many draws the mean probability counts."""
METHODS = *DRAWN, "llama", "bayesian-maml", "cnp", "protonet"
DRAWS, BATCH, QUERIES, BINS = 20, 50, 15, 10
ERROR_BINS = 15
"""Of the expected calibration error; the picture has BINS."""
RESAMPLED = 500
"""Of the test tasks, for intervals of what is no mean over tasks."""


@dataclass(frozen=True)
class Options:
    """Of the measurement."""

    features: tyro.conf.Positional[Path]
    """The features, with their splits."""
    out: Path
    """Folder of all that is made."""
    methods: tuple[str, ...] = METHODS
    """Stems of recipes on features."""
    steps: int = 1500
    """Meta-steps of each."""
    tasks: int = 2000
    """Test tasks."""
    validation_tasks: int = 300
    """To which a temperature is fitted."""
    table: bool = False
    """Print what there is, and compute nothing."""
    picture: Path | None = None
    """Draw what there is, and compute nothing."""


def trained(options: Options, method: str, shots: int) -> Run:
    """A recipe on these features, trained."""
    config = RECIPES[f"{method}-features-{shots}shot"]()
    outer = replace(config.training, steps=options.steps, validation_tasks=options.validation_tasks)
    config = replace(config, data=replace(config.data, path=str(options.features)), training=outer, threads=1)
    run = Run.continued(config, options.out / f"{method}-{shots}", print)
    run.train()
    return run


def by_means(method: Method, support: Batch, query: Batch) -> Tensor:
    """Logits, as in any test."""
    return method.predict(method.adapt(support), query, support)


def by_draws(method: Method, support: Batch, query: Batch) -> Tensor:
    """The logarithm of the mean probability over draws; those that diverged in a task are left out there, and told."""
    many, asked = (Batch(*(part.repeat_interleave(DRAWS, 0) for part in side)) for side in (support, query))
    noise: Noise = method.learner.noise(Task(many, asked), generator(0, 0, "calibration"))
    drawn = method.predict(method.adapt(many, noise=noise), asked, many)
    drawn = drawn.unflatten(0, (-1, DRAWS)).double().softmax(-1)
    finite = drawn.isfinite().all(-1).all(-1)
    if not finite.all():
        lost, tasks = int((~finite).sum()), int((~finite.all(1)).sum())
        print(f"{lost} of {finite.numel()} draws diverged, in {tasks} of {len(finite)} tasks", flush=True)
    return drawn.where(finite[..., None, None], torch.nan).nanmean(1).log()


def measure(options: Options, method: str, shots: int) -> None:
    """Train, and keep the logits of validation and test tasks."""
    ways = {method: by_means, **({f"{method}, {DRAWS} draws": by_draws} if method in DRAWN else {})}
    if all((options.out / f"{name}-{shots}.npz").exists() for name in ways):
        return
    run = trained(options, method, shots)
    with run.at_test():
        run.method.learner.eval()
        for name, predict in ways.items():
            write(options, run, partial(predict, run.method), f"{name}-{shots}.npz")
    if method == "protonet":
        write(options, run, logistic_regression, f"logistic regression-{shots}.npz")


def write(options: Options, run: Run, predict: partial[Tensor], file: str) -> None:
    """The logits of a predictor, and what is right."""
    found = {}
    for split, tasks in (("val", options.validation_tasks), ("test", options.tasks)):
        source = run.problem.source(split, tasks=BATCH, seed=0, queries=QUERIES)
        logits, labels = query_logits(predict, source, tasks)
        found |= {split: logits.astype(np.float32), f"{split}_labels": labels.astype(np.int8)}
    np.savez(options.out / file, **found)
    print(file, flush=True)


def kept(options: Options, shots: int) -> dict[str, dict[str, NDArray[np.generic]]]:
    """What there is at so many shots, by name."""
    files = sorted(options.out.glob(f"*-{shots}.npz"))
    return {file.stem.removesuffix(f"-{shots}"): dict(np.load(file)) for file in files}


def error(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> str:
    """Expected calibration error of tasks, %, with the interval of resampled ones."""
    probabilities = softmax(logits, axis=-1)
    whole = calibration_error(probabilities.reshape(-1, probabilities.shape[-1]), labels.ravel())
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    which = np.minimum((confidence * ERROR_BINS).astype(int), ERROR_BINS - 1)
    apart = np.stack([((right - confidence) * (which == b)).sum(1) for b in range(ERROR_BINS)], 1)  # by task and bin
    assert np.isclose(abs(apart.sum(0)).sum() / labels.size, whole)
    times = np.random.default_rng(0).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), RESAMPLED)
    drawn = abs(times @ apart).sum(1) / labels.size
    return f"{100 * whole:.1f} ± {100 * 1.96 * np.std(drawn):.1f}"


def rows(options: Options, shots: int) -> list[str]:
    """The table, in Markdown."""
    told = [
        f"| {shots} shot{'s' * (shots > 1)} | accuracy, % | log-likelihood, nats | calibration error, % "
        "| temperature | log-likelihood with it | error with it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in kept(options, shots).items():
        logits, labels = of["test"].astype(float), of["test_labels"].astype(int)
        logits = logits.reshape(-1, 5 * QUERIES, logits.shape[-1])  # by task
        labels = labels.reshape(logits.shape[:2])
        temperature = fit_temperature(of["val"].astype(float), of["val_labels"].astype(int))
        cells = [interval(100 * (logits.argmax(-1) == labels).mean(1)).text(decimals=1)]
        for at in (1.0, temperature):
            surprise = np.take_along_axis(log_softmax(logits / at, -1), labels[..., None], -1)[..., 0].mean(1)
            cells += [f"{surprise.mean():.3f} ± {1.96 * surprise.std(ddof=1) / len(surprise) ** 0.5:.3f}"]
            cells += [error(logits / at, labels)]
        cells.insert(3, f"{temperature:.2f}")
        told.append(f"| {name} | {' | '.join(cells)} |")
    return told


def draw(options: Options, file: Path) -> None:
    """How often what is said to be so probable is right: a panel for each method and number of shots."""
    found = [(name, shots, of) for shots in (1, 5) for name, of in kept(options, shots).items()]
    found.sort(key=lambda entry: entry[:2])
    columns = 4
    figure, grid = plt.subplots(
        -(-len(found) // columns),
        columns,
        figsize=(8.4, 0.5 + 2.1 * -(-len(found) // columns)),
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    panels = grid.flatten()
    for panel, (name, shots, of) in zip(panels, found, strict=False):
        temperature = fit_temperature(of["val"].astype(float), of["val_labels"].astype(int))
        panel.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for at, colour, style in ((1.0, "C0", "o-"), (temperature, "C1", "s--")):
            probabilities = softmax(of["test"].astype(float) / at, axis=1)
            sure, right = probabilities.max(1), probabilities.argmax(1) == of["test_labels"]
            which = np.minimum((sure * BINS).astype(int), BINS - 1)
            points = [
                (sure[which == b].mean(), right[which == b].mean()) for b in range(BINS) if (which == b).sum() > 199
            ]
            panel.plot(*zip(*points, strict=True), style, color=colour, markersize=4, linewidth=1)
        panel.set_title(f"{name}, {shots}-shot", fontsize=8)
        panel.set_xlim(0.15, 1)
        panel.set_ylim(0.15, 1)
        panel.set_aspect("equal")
        panel.tick_params(labelsize=7)
    for panel in panels[len(found) :]:
        panel.set_axis_off()
    figure.supxlabel("the largest probability that was said", fontsize=9)
    figure.supylabel("how often it was right", fontsize=9)
    lines = panels[0].lines[1:3]
    figure.legend(
        lines,
        ["as trained", "at a temperature that validation tasks give"],
        loc="outside upper center",
        fontsize=8,
        ncols=2,
    )
    figure.savefig(file, dpi=140)


def main(options: Options) -> None:
    """Measure what is not there yet, and print the tables."""
    options.out.mkdir(parents=True, exist_ok=True)
    if options.picture is not None:
        draw(options, options.picture)
    if not (options.table or options.picture):
        for shots in (1, 5):
            for method in options.methods:
                measure(options, method, shots)
    for shots in (1, 5):
        print("\n".join(rows(options, shots)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Options))
