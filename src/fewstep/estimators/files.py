"""Predictions for files: what ``fewstep predict`` does."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewstep.data.features.formats import SUFFIXES, arrays_in, rows_in
from fewstep.data.storage.reading import reading
from fewstep.estimators.classifier import FewShotClassifier
from fewstep.estimators.load import load
from fewstep.estimators.model import TrainedModel
from fewstep.estimators.regressor import FewShotRegressor
from fewstep.evaluation.arrays import slices

logger = logging.getLogger("fewstep")

Table: TypeAlias = tuple[list[str], list[list[str]]]
"""A header, and a row for each query."""

Array: TypeAlias = NDArray[Any]

_TOGETHER = 256
"""Queries that are classified at once: photographs of a whole folder are large as floats."""


def predict(
    run: Path,
    support: Path,
    query: Path,
    *,
    samples: int | None = None,
    noise: float | None = None,
    interval: float | None = None,
    device: str = "auto",
    baseline: str | None = None,
    note: Callable[[str], None] = logger.warning,
) -> Table:
    """Adapt a trained run to the support, and predict for every query: :func:`classify` or :func:`regress`.

    Args:
        run: folder of a trained run.
        support: a file, or of images a folder, as the two say.
        query: likewise.
        samples: of a regression; 100 when omitted.
        noise: of a regression.
        interval: of a regression; 0.9 when omitted.
        device: to compute on, see :func:`~fewstep.estimators.load.load`.
        baseline: predict by this one of the run's test in its place, see
            :meth:`~fewstep.estimators.model.TrainedModel.baseline`.
        note: told, in a line, what a user should know of the predictions.

    Returns:
        A header and a row per query.

    Raises:
        ValueError: when options of a regression are given for a classification; and what the two raise.
    """
    loaded = load(run, device, note)
    if baseline is not None:
        if not isinstance(loaded.model, TrainedModel):
            raise ValueError(f"--baseline is one of a trained run, and {run} holds a simple classifier.")
        loaded = FewShotClassifier(loaded.model.baseline(baseline))
    if isinstance(loaded, FewShotClassifier):
        options = {"samples": samples, "noise": noise, "interval": interval}
        if given := [f"--{name}" for name, value in options.items() if value is not None]:
            only = f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} for regressions only"
            raise ValueError(f"{run} holds a classification, whose predictions are probabilities: {only}.")
        return classify(loaded, support, query)
    loaded.set_params(noise=noise, **({} if samples is None else {"samples": samples}))
    return regress(loaded, support, query, 0.9 if interval is None else interval, note)


# -- classes -----------------------------------------------------------------------------------------------------------


def classify(classifier: FewShotClassifier, support: Path, query: Path) -> Table:
    """Adapt to the support, and label every query.

    Images are read as those that the run was trained on were: reduced to the same size, in colour or grey.

    Args:
        classifier: of a trained run.
        support: a folder with one sub-folder of images per class, or a file of features and labels such as training
            takes, for example ``.npz`` with ``x`` ``[n, features]`` (or images ``[n, channels, height, width]`` from 0
            to 1, or bytes) and ``y`` ``[n]``.
        query: a folder of images, or such a file; labels, where there are any, are not read.

    Returns:
        A header and a row per query: which one, its predicted label, and the probability of every class.

    Raises:
        ValueError: for unlabelled supports, files that cannot be read (the message names the file), and images for a
            run that was trained on features without the network that made them.
    """
    x, y, _ = _examples(support, classifier)
    if y is None:
        raise ValueError(f"{support} has no labels: make one sub-folder of images per class, or an .npz with x and y.")
    classifier.fit(_scaled(x), y)
    queries, _, names = _examples(query, classifier)
    if not len(queries):
        raise ValueError(f"{query} holds 0 rows, so there is nothing to predict: give at least one.")
    blocks = [classifier.predict_proba(_scaled(queries[some])) for some in slices(len(queries), _TOGETHER)]
    probabilities = np.concatenate(blocks)
    labels = classifier.classes_[probabilities.argmax(1)]
    header = ["query", "label", *(f"p({name})" for name in classifier.classes_)]
    rows = zip(names, labels, probabilities, strict=True)
    return header, [[name, str(label), *(f"{value:.6f}" for value in p)] for name, label, p in rows]


def _examples(path: Path, classifier: FewShotClassifier) -> tuple[Array, Array | None, list[str]]:
    """Rows, labels if there are any, and a name for each row."""
    if not path.is_dir():
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path} is neither a folder of images nor a file of features ({', '.join(SUFFIXES)}).")
        x, y = rows_in(path)
        return x, y, [str(i) for i in range(len(x))]
    if classifier.reading is None:
        raise ValueError(
            f"{path} holds images, but the run was trained on features and does not know the network that made them: "
            "give .npz files of such features. A run on features of `fewstep embed` knows it, if "
            "NAME.extractor.safetensors lies beside them when training begins."
        )
    folder = classifier.reading.folder(path)
    labels = None if folder.labels is None else np.array(folder.labels)
    return folder.images, labels, [str(p.relative_to(path)) for p in folder.paths]


def _scaled(x: Array) -> Array:
    """Images from 0 to 1, where they are bytes."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 and x.ndim == 4 else x


# -- numbers -----------------------------------------------------------------------------------------------------------


def regress(
    regressor: FewShotRegressor,
    support: Path,
    query: Path,
    interval: float = 0.9,
    note: Callable[[str], None] = logger.warning,
) -> Table:
    """Adapt to the support, and predict the targets of every query with a central interval.

    A ``.csv`` file has a line of names and then a line of numbers for each point, with commas between them: columns
    whose names begin with x are inputs, in their order, and those whose names begin with y are targets.

    Args:
        regressor: of a trained run; its noise decides whether intervals are of targets or of functions.
        support: an ``.npz`` file with ``x`` ``[n]`` or ``[n, *features]`` and ``y`` ``[n]`` or ``[n, outputs]``, or a
            ``.csv`` file.
        query: likewise; targets, where there are any, are not read.
        interval: its probability, between 0 and 1.
        note: told where intervals say nothing.

    Returns:
        A header and a row per query: which one, and the mean and both ends of the interval; of several targets these
        for each, by its name.

    Raises:
        ValueError: for a support without targets, files that cannot be read (the message names the file), an interval
            out of range, and points that the run was not trained for.
    """
    x, y, names = _points(support)
    if y is None:
        raise ValueError(f"{support} has no targets: give an .npz with x and y, or a .csv whose columns are x… and y….")
    queries, _, _ = _points(query)
    prediction = regressor.fit(_rows(x), y).predict_distribution(_rows(queries))
    if len(prediction.samples) == 1 and prediction.noise is None:
        note("the method finds one function: without --noise its interval has no width.")
    found = np.stack([prediction.mean, *prediction.interval(interval)], -1)  # a target's three numbers together
    titles = [f"{title}({name})" if names[1:] else title for name in names for title in ("mean", "lower", "upper")]
    rows = enumerate(found.reshape(len(queries), -1))
    return ["query", *titles], [[str(i), *(f"{value:.6g}" for value in row)] for i, row in rows]


def _rows(x: Array) -> Array:
    """Single numbers as rows of width one."""
    return x[:, None] if x.ndim == 1 else x


def _points(path: Path) -> tuple[Array, Array | None, list[str]]:
    """Inputs, targets if there are any, and the targets' names."""
    if path.suffix == ".csv":
        return _table(path)
    x, y = _archive(path, "neither an .npz nor a .csv file, in one of which a regression's points come")
    outputs = 0 if y is None else 1 if y.ndim < 2 else y.shape[1]
    return x, y, [f"y{i}" for i in range(outputs)]


def _table(path: Path) -> tuple[Array, Array | None, list[str]]:
    with (
        reading(path, "is no CSV file"),
        path.open(newline="", encoding="utf-8-sig") as file,
    ):  # with Excel's mark or not
        names, *lines = [line for line in csv.reader(file) if line] or [[]]
    names = [name.strip() for name in names]
    inputs, targets = ([name for name in names if name.startswith(letter)] for letter in "xy")
    if not inputs or len(inputs) + len(targets) < len(names):
        raise ValueError(
            f"{path} must begin with a line of names, x… for inputs and y… for targets, and commas between them; got "
            f"{', '.join(map(repr, names)) or 'an empty file'}."
        )
    values = np.empty((len(lines), len(names)))
    for i, line in enumerate(lines):
        if len(line) != len(names):
            raise ValueError(f"{path}: point {i} has {len(line)} numbers, but there are {len(names)} columns.")
        for j, cell in enumerate(line):
            try:
                values[i, j] = float(cell)
            except ValueError:
                raise ValueError(f"{path}: point {i} has {cell!r} for {names[j]}, which is no number.") from None
    is_x = np.array([name.startswith("x") for name in names])
    return values[:, is_x], values[:, ~is_x] if targets else None, targets


def _archive(path: Path, otherwise: str) -> tuple[Array, Array | None]:
    """``x``, and ``y`` where there is one; ``otherwise`` says what a file without the suffix is."""
    if path.suffix != ".npz":
        raise ValueError(f"{path} is {otherwise}.")
    arrays = arrays_in(path)
    if "x" not in arrays:
        raise ValueError(f"{path} holds {sorted(arrays)}, but no array x.")
    return arrays["x"], arrays.get("y")
