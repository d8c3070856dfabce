"""The report of a pre-training, for a human reader."""

from datetime import timedelta
from pathlib import Path

from fewstep.data.storage.files import read_json, write_atomically
from fewstep.data.storage.log import METRICS, read_log
from fewstep.evaluation.figures import image, new_figure, style_curve
from fewstep.evaluation.statistics import Interval
from fewstep.evaluation.tables import markdown_lines, settings_lines

CURVES, REPORT = "learning_curves.png", "report.md"


def how_far(done: int, total: int, pace: float, unit: str = "") -> str:
    """Where something stands that takes long: "300 of 5,000 batches (6%), 0:12:30 left".

    Args:
        done: how many of them.
        total: how many there are.
        pace: seconds for one.
        unit: what they are.
    """
    left = timedelta(seconds=round(max(0, total - done) * pace))
    return f"{done:,} of {total:,}{' ' if unit else ''}{unit} ({done / max(total, 1):.0%}), {left} left"


def learning_curves(folder: Path) -> None:
    """Draw loss and accuracy on the base classes, and nearest class mean on the validation classes, by epoch."""
    series: dict[tuple[str, str], list[float]] = {}
    for _, split, name, value in read_log(folder / METRICS):
        series.setdefault((split, name), []).append(value)
    validation = {name: values for (split, name), values in series.items() if split == "validation"}

    figure = new_figure(7.0, 5.6)
    from matplotlib.ticker import MaxNLocator

    upper, lower = figure.subplots(2, 1, sharex=True)
    loss = series[("train", "loss")]
    epochs = range(1, len(loss) + 1)
    marker = "." if len(loss) < 40 else None
    upper.plot(epochs, loss, color="C0", marker=marker, linewidth=1.2)
    upper.set(ylabel="cross-entropy, nats", ylim=(0, None))
    upper.set_title("Loss on base classes, mean over the epoch", loc="left", fontsize=10)
    accuracy = [100 * value for value in series[("train", "accuracy")]]
    label = "base classes, all ways, augmented training images"
    lower.plot(epochs, accuracy, color="0.6", marker=marker, linewidth=1.0, label=label)
    for i, (name, values) in enumerate(validation.items(), start=1):
        scaled = [100 * value for value in values]
        style = {"color": f"C{i}", "marker": "o", "markersize": 3.5, "linewidth": 1.4}
        lower.plot(epochs, scaled, **style, label=f"validation classes, 5-way: {name}")
    lower.set(xlabel="epoch", xlim=(0, len(loss) + 0.5), ylabel="accuracy, %", ylim=(0, None))
    lower.set_title("Accuracy", loc="left", fontsize=10)
    lower.legend(frameon=False, fontsize=8)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axis in (upper, lower):
        style_curve(axis)
    write_atomically(folder / CURVES, image(figure, "png"))


def write_report(folder: Path) -> Path:
    """Write ``report.md``, and ``learning_curves.png`` beside it, from what a pre-training left in its folder.

    Returns:
        The path of the report.

    Raises:
        ValueError: when a file is damaged.
        OSError: when the folder cannot be read or written.
    """
    config, scores, environment, network = (
        read_json(folder / f"{name}.json") for name in ("pretraining", "scores", "environment", "network")
    )
    rows = [
        [layer, split, f"{shots}-shot", Interval(**score).text(percent=True), str(score["tasks"])]
        for layer, of in scores.items()
        for split, by in of.items()
        for shots, score in by.items()
    ]
    learning_curves(folder)
    table = markdown_lines([["layer", "classes", "shots", "accuracy, %", "tasks"], *rows])
    blocks = [
        f"# Pre-training on {config['images']['name']}",
        f"{network['images']:,} images of {network['classes']} base classes; no other class was trained on.",
        "## Nearest class mean",
        "\n".join(table) if rows else "There are no validation or test classes.",
        "5-way, 15 queries a class (fewer ways and queries where a split is smaller), task seed 0; features averaged "
        "over space, of length 1; inductive; mean ± half of the 95% interval over tasks. The best epoch was chosen on "
        "the validation classes.",
        "## Learning curves",
        f"![Loss and accuracy by epoch]({CURVES})",
        "## Configuration",
        "\n".join(settings_lines(config)),
        "## Environment",
        "\n".join(settings_lines(environment)),
    ]
    write_atomically(folder / REPORT, "\n\n".join(blocks) + "\n")
    return folder / REPORT
