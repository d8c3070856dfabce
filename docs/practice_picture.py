"""Draws docs/images/practice.png from folders that `docs/practice.py` has left.

python docs/practice_picture.py "CIFAR-FS, last layer, 1 shot=FOLDER[,FOLDER ...]" ...

The first folder of a cell holds residual prototypes and the baselines, others hold rivals on the same tasks. A row is a
cell; what is shown is a method's mean over training seeds less the best baseline's, paired by task, with 95% intervals.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewstep.evaluation import paired
from fewstep.evaluation.figures import error_bar, image, key, legend_below, new_figure, style_rows

COLOURS = {
    "residual-prototypes-features": "#0b6e4f",
    "leo-features": "#b5179e",
    "protonet-features": "#e07a1f",
    "class means": "#9aa0a6",
    "ridge": "#5b8def",
    "logistic regression": "#7a5195",
}
NAMES = {
    "residual-prototypes-features": "residual prototypes",
    "leo-features": "LEO",
    "protonet-features": "ProtoNet",
    "class means": "class means",
    "ridge": "ridge",
    "logistic regression": "logistic regression",
}


def methods(folders: list[Path]) -> dict[str, NDArray[np.float64]]:
    """Scores of a cell by method, averaged over training seeds."""
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for folder in folders:
        with np.load(folder / "scores.npz") as scores:
            for name, values in scores.items():
                found[name.rpartition("-")[0] if ", seed" in name else name].append(values)
    return {name: np.mean(values, axis=0) for name, values in found.items()}


def main(cells: list[str]) -> None:
    """Draw the cells, and print them as rows of a table."""
    figure = new_figure(9.0, 1.2 + 0.62 * len(cells))
    axis = figure.subplots()
    style_rows(axis)
    axis.axvline(0, color="0.35", linewidth=1)
    shown = set()
    for row, cell in enumerate(cells):
        title, folders = cell.rsplit("=", 1)
        scores = methods([Path(folder) for folder in folders.split(",")])
        plain = {name: values for name, values in scores.items() if not name.endswith("-features")}
        best = max(plain, key=lambda name: plain[name].mean())
        print(f"| {title} | {best} {100 * plain[best].mean():.2f} |", end="")
        for name, values in scores.items():
            if name == best:
                continue
            gain = paired(values, plain[best])
            if name in COLOURS:
                shown.add(name)
                place = row + 0.11 * (list(COLOURS).index(name) - 2.5)
                error_bar(axis, place, gain, 100, COLOURS[name], markersize=4)
            print(
                f" {NAMES.get(name, name)} {100 * values.mean():.2f} ({gain.text(percent=True, sign=True)}) |", end=""
            )
        print()
        axis.text(1.0, row, f"best: {best}", transform=axis.get_yaxis_transform(), ha="left", va="center", fontsize=7.5)
    axis.set_yticks(range(len(cells)), [cell.rsplit("=", 1)[0] for cell in cells], fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("accuracy less that of the best baseline, points (paired, 95% intervals)")
    legend_below(figure, [key(NAMES[n], color=c, marker="o", linestyle="") for n, c in COLOURS.items() if n in shown])
    (Path(__file__).parent / "images" / "practice.png").write_bytes(image(figure, "png"))


if __name__ == "__main__":
    main(sys.argv[1:])
