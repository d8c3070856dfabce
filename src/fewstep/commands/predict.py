"""``fewstep predict``: predictions for examples of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import tyro

from fewstep.commands.arguments import checked
from fewstep.commands.console import aside, point_to
from fewstep.core.ranges import Count, Positive, Within

Baseline: TypeAlias = Literal["nearest class mean", "nearest class mean, centred", "ridge", "logistic regression"]
Probability: TypeAlias = Annotated[float, Within(0.0, 1.0, above=True, below=True)]


@checked
def predict(
    run: tyro.conf.Positional[Path],
    support: Path,
    query: Path,
    samples: Count | None = None,
    noise: Positive | None = None,
    interval: Probability | None = None,
    device: str = "auto",
    baseline: Baseline | None = None,
    out: Path | None = None,
) -> None:
    """Predict for queries from a handful of examples: their classes, or in a regression their targets.

    Args:
        run: folder of a trained run, a model's file, or the name of a model that ships with fewstep (`fewstep list`).
        support: a folder with one sub-folder of images per class, or an .npz file with x [n, features] and y [n]; for a
            regression such a file, with y [n] or [n, outputs], or a .csv file whose columns are named x… and y….
        query: a folder of images, or an .npz file with x; for a regression also a .csv file.
        samples: regression: functions to draw, of a method that has a distribution of them; 100 when omitted.
        noise: regression: standard deviation of targets about a function. Intervals are then of targets; without it,
            of functions.
        interval: regression: probability of the interval that is written beside the mean; 0.9 when omitted.
        device: "cpu", "cuda" or "cuda:1"; auto is where the run was trained, or if this machine does not have that, a
            GPU or the CPU.
        baseline: predict by this one of the run's test, on the same features, in place of what was meta-trained.
        out: CSV file to write, in place of earlier predictions; printed when omitted.
    """
    from fewstep.data.storage.files import begins, csv_text, write_atomically
    from fewstep.estimators.files import predict as predictions

    if out is not None and out.exists() and not (out.is_file() and begins(out, "query,")):
        raise ValueError(f"{out} is there, and holds no predictions: give another file to --out.")
    remarks = aside()
    header, rows = predictions(
        run,
        support,
        query,
        samples=samples,
        noise=noise,
        interval=interval,
        device=device,
        baseline=baseline,
        note=lambda line: remarks.print(f"note: {line}"),
    )
    text = csv_text([header, *rows])
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text)
        point_to(f"{len(rows)} predictions", out)
