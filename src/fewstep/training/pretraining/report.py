"""The report of a pre-training, for a human reader."""

import csv
import json
from pathlib import Path

from fewstep.data.storage.files import write_atomically
from fewstep.evaluation.figures import image, new_figure, style_curve
from fewstep.evaluation.statistics import Interval
from fewstep.evaluation.tables import markdown_lines, settings_lines

CURVES, REPORT = "learning_curves.png", "report.md"


def learning_curves(folder: Path) -> None:
    """Draw loss and accuracy on the base classes, and nearest class mean on the validation classes, by epoch."""
    series: dict[tuple[str, str], list[float]] = {}
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            series.setdefault((row["split"], row["name"]), []).append(float(row["value"]))
    validation = {name: values for (split, name), values in series.items() if split == "validation"}

    figure = new_figure(7.0, 5.6)
    from matplotlib.ticker import MaxNLocator

    upper, lower = figure.subplots(2, 1, sharex=True)
    loss = series[("train", "loss")]
    epochs = range(1, len(loss) + 1)
    upper.plot(epochs, loss, color="C0", marker="." if len(loss) < 40 else None, linewidth=1.2)
    upper.set_ylabel("cross-entropy, nats")
    upper.set_ylim(bottom=0)
    upper.set_title("Loss on base classes, mean over the epoch", loc="left", fontsize=10)
    accuracy = [100 * value for value in series[("train", "accuracy")]]
    train_style = {"color": "0.6", "marker": "." if len(loss) < 40 else None, "linewidth": 1.0}
    lower.plot(epochs, accuracy, **train_style, label="base classes, all ways, augmented training images")
    for i, (name, values) in enumerate(validation.items(), start=1):
        scaled = [100 * value for value in values]
        style = {"color": f"C{i}", "marker": "o", "markersize": 3.5, "linewidth": 1.4}
        lower.plot(epochs, scaled, **style, label=f"validation classes, 5-way: {name}")
    lower.set_ylabel("accuracy, %")
    lower.set_title("Accuracy", loc="left", fontsize=10)
    lower.legend(frameon=False, fontsize=8)
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    lower.set_xlim(0, len(loss) + 0.5)
    lower.set_ylim(bottom=0)
    for axis in (upper, lower):
        style_curve(axis)
    write_atomically(folder / CURVES, image(figure, "png"))


def write_report(folder: Path) -> Path:
    """Write ``report.md``, and ``learning_curves.png`` beside it, from what a pre-training left in its folder.

    Returns:
        The path of the report.

    Raises:
        OSError: when the folder cannot be read or written.
    """
    config, scores, environment, network = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("pretraining", "scores", "environment", "network")
    )
    rows = [
        [layer, split, f"{shots}-shot", Interval(**score).text(percent=True), str(score["tasks"])]
        for layer, of in scores.items()
        for split, by in of.items()
        for shots, score in by.items()
    ]
    learning_curves(folder)
    lines = [
        f"# Pre-training on {config['images']['name']}",
        "",
        f"{network['images']:,} images of {network['classes']} base classes; no other class was trained on.",
        "",
        "## Nearest class mean",
        "",
        *(
            markdown_lines([["layer", "classes", "shots", "accuracy, %", "tasks"], *rows])
            if rows
            else ["There are no validation or test classes."]
        ),
        "",
        "5-way, 15 queries a class (fewer ways and queries where a split is smaller), task seed 0; features averaged "
        "over space, of length 1; inductive; mean ± half of the 95% interval over tasks. The best epoch was chosen on "
        "the validation classes.",
        "",
        "## Learning curves",
        "",
        f"![Loss and accuracy by epoch]({CURVES})",
        "",
        "## Configuration",
        "",
        *settings_lines(config),
        "",
        "## Environment",
        "",
        *settings_lines(environment),
    ]
    write_atomically(folder / REPORT, "\n".join(lines) + "\n")
    return folder / REPORT
