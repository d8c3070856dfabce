"""The files of an analysis."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewstep.evaluation.figures import image, images
from fewstep.evaluation.tables import record_rows, write_files
from fewstep.experiments.analyse.plot import draw_codes, draw_curvature
from fewstep.experiments.analyse.result import Analysis, CodeMap


def write(found: Analysis, folder: Path) -> None:
    """Write pictures as PNG and SVG, their numbers as CSV, and ``analysis.md`` and ``analysis.json``, which come last.

    Args:
        found: what is to be written.
        folder: made where it is not there; every file is written whole or not at all.
    """
    files: dict[str, Any] = {}
    if found.codes is not None:
        files |= images("codes", partial(image, draw_codes(found.codes))) | {"codes.csv": code_rows(found.codes)}
    files |= images("curvature", partial(image, draw_curvature(found)))
    files |= {"curvature.csv": record_rows(found.boxes()), "curvature_tasks.csv": found.task_rows()}
    if found.training:
        files["training.csv"] = record_rows(found.along_training())
    numbers = {name: vars(value) for name, value in found.numbers().items()}
    files |= {"analysis.md": found.markdown(), "analysis.json": {"protocol": found.protocol, "numbers": numbers}}
    write_files(folder, files)


def code_rows(codes: CodeMap) -> list[list[Any]]:
    """The places of each code on both maps, below their names."""
    tasks, each = codes.before.shape[:2]
    places = [*codes.tsne, *codes.components]
    head = [f"{name}_{when}_{axis}" for name in ("tsne", "pca") for when in ("before", "after") for axis in "xy"]
    classes = [[""]] * (tasks * each) if codes.classes is None else [[codes.names[c]] for c in codes.classes.ravel()]
    rows = np.concatenate(places, axis=1).tolist()
    return [["task", "class", *head], *([i // each, *classes[i], *row] for i, row in enumerate(rows))]
