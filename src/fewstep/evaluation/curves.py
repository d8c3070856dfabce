"""Learning curves of a run, from its metrics."""

import csv
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from fewstep.data.storage.files import write_atomically
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
    with path.open(newline="", encoding="utf-8") as file:
        try:
            for row in csv.DictReader(file):
                series[row["split"], row["name"]].append((int(row["step"]), float(row["value"])))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} must have the columns step, split, name, value, all filled: {error!r}") from error
    return dict(series)
