"""Learning curves of a run, from its metrics."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.log import read_log
from fewstep.evaluation.figures import image, new_figure, style_curve
from fewstep.evaluation.statistics import Score

Series: TypeAlias = list[tuple[int, float]]


def learning_curves(metrics_csv: str | os.PathLike[str], out_png: str | os.PathLike[str]) -> None:
    """Draw the training loss, and the score of training and validation tasks, over meta-steps.

    Accuracy is drawn in percent, over the range that was measured. Losses and errors have a logarithmic axis when they
    span more than a factor of 30, and one that starts at zero otherwise. Values that are not finite leave a gap.

    Args:
        metrics_csv: long format with the columns ``step, split, name, value``; the splits ``train`` and
            ``validation``; the name ``loss`` and that of the score.
        out_png: written whole or not at all.

    Raises:
        ValueError: when the file has no such columns, or no value to draw.
        OSError: if a file cannot be read or written.
    """
    series = _read(Path(metrics_csv))
    loss = series.get(("train", "loss"), [])
    scores = [name for split, name in series if split == "validation"]
    if not loss and not scores:
        raise ValueError(f"{metrics_csv} has neither a training loss nor a validation score yet: train a little longer")

    panels = (1 if loss else 0) + len(scores)
    figure = new_figure(7.0, 0.7 + 2.6 * panels)
    from matplotlib.ticker import MaxNLocator

    axes = list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
    for axis in axes:
        style_curve(axis)
    axes[-1].set_xlabel("meta-step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))

    if loss:
        axis, (steps, values) = axes[0], zip(*loss, strict=True)
        axis.plot(steps, values, color="C0", linewidth=1.2, marker="." if len(steps) < 30 else None)
        unit = "query loss, nats" if "accuracy" in scores else "query loss"
        axis.set_ylabel(unit + _from_zero_or_log(axis, values))
        axis.set_title("Training tasks, averaged between logged steps", loc="left", fontsize=10)

    for axis, name in zip(axes[panels - len(scores) :], scores, strict=True):
        score = Score(name)
        drawn: list[float] = []
        for split, style in (
            ("train", {"color": "0.6", "linewidth": 1.0, "label": "training tasks, averaged between logged steps"}),
            ("validation", {"color": "C1", "linewidth": 1.4, "marker": "o", "markersize": 3.5, "label": "validation"}),
        ):
            if points := series.get((split, name)):
                steps, values = zip(*points, strict=True)
                axis.plot(steps, [score.scale * value for value in values], **style)
                drawn += values
        axis.set_ylabel(score.unit + ("" if score.percent else _from_zero_or_log(axis, drawn)))
        axis.set_title("Score", loc="left", fontsize=10)
        axis.legend(frameon=False, fontsize=8)

    axes[-1].set_xlim(left=0)
    write_atomically(out_png, image(figure, "png"))


def curves_in_words(metrics_csv: str | os.PathLike[str]) -> list[str]:
    """What the curves of :func:`learning_curves` show, a sentence each; the first has the scores that it is judged by.

    Training is the mean over the last tenth of the logged steps, and validation the best score, which is kept. Then

    - training has *diverged* if its loss ended as no finite number, or the last tenth is above the first tenth;
    - *overfitting*: training is 5 points of accuracy above validation, or validation has 1.5 times its error. With more
      ways in training than in validation the gap is larger than it looks;
    - *still improving*: the best validation is the last one, and 0.5 points, or 2% of the error, better than the best
      of the first four fifths;
    - *falling*: the last validation is 2 points, or 10% of the error, worse than the best.

    Args:
        metrics_csv: as for :func:`learning_curves`. Of several scores the first is judged.

    Raises:
        ValueError: when the file has no such columns.
        OSError: if it cannot be read.
    """
    series = _read(Path(metrics_csv))
    told = _divergence([value for _, value in series.get(("train", "loss"), [])])
    name = next((name for split, name in series if split == "validation"), None)
    points = [(step, value) for step, value in series.get(("validation", name or ""), []) if math.isfinite(value)]
    if name is None or not points:
        return told
    score = Score(name)
    sign = 1 if score.percent else -1

    def improvement(better: float, worse: float) -> float:
        """In points, or in parts of the worse error."""
        return 100 * (better - worse) if score.percent else (worse - better) / max(abs(worse), 1e-12)

    best_step, best = max(points, key=lambda point: sign * point[1])
    last_step, last = points[-1]
    training = _end([value for _, value in series.get(("train", name), [])])
    shown = [f"training {_shown(score, training)}"] if training is not None else []
    shown += [f"validation {_shown(score, best)} at its best, step {best_step:,} of {last_step:,}"]
    first = ", ".join(shown)
    if training is None:
        overfits = False
    elif score.percent:
        overfits = 100 * (training - best) >= _GAP
    else:  # a ratio of log-likelihoods, which may be negative, says nothing
        overfits = training > 0 and best >= _RATIO * training
    if overfits:
        told.insert(0, f"{first}: overfitting to the classes or tasks of training.")
    else:
        told.insert(0, f"{first}.")
    early = [value for _, value in points[: math.ceil(0.8 * len(points))]]
    if best_step == last_step and len(points) > len(early):
        before = max(early, key=lambda value: sign * value)
        if improvement(best, before) >= (0.5 if score.percent else 0.02):
            told.append("Validation was still improving at the end: more meta-steps may help.")
    elif improvement(best, last) >= (2 if score.percent else 0.1):
        told.append(f"Validation fell to {_shown(score, last)} after that; the best meta-parameters are those kept.")
    return told


_GAP, _RATIO = 5.0, 1.5
"""From which difference of accuracies in points, or ratio of errors, on one speaks of overfitting."""


def _shown(score: Score, value: float) -> str:
    return f"{100 * value:.1f}%" if score.percent else f"{value:.3g}"


def _end(values: list[float]) -> float | None:
    """The mean of the last tenth of what is finite."""
    finite = [value for value in values if math.isfinite(value)]
    last = finite[-max(1, len(finite) // 10) :]
    return sum(last) / len(last) if last else None


def _divergence(losses: list[float]) -> list[str]:
    if not losses:
        return []
    if not math.isfinite(losses[-1]):
        return [
            "Training has diverged: its loss is no finite number at the end. Lower training.rate or the inner rates."
        ]
    begin, end = _end(losses[: max(1, len(losses) // 10)]), _end(losses)
    if begin is not None and end is not None and len(losses) > 1 and end > begin:
        return [f"Training has diverged: its loss was {begin:.3g} at first and is {end:.3g} at the end."]
    return []


def _from_zero_or_log(axis: Any, values: Iterable[float]) -> str:
    """Scale the axis of a loss, and say so."""
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 30 * min(finite):
        axis.set_yscale("log")
        return ", log scale"
    if finite and min(finite) >= 0:
        axis.set_ylim(bottom=0)
    return ""


def _read(path: Path) -> dict[tuple[str, str], Series]:
    """Points by split and name, in the order of the file."""
    series: dict[tuple[str, str], Series] = defaultdict(list)
    for step, split, name, value in read_log(path):
        series[split, name].append((step, value))
    return dict(series)
