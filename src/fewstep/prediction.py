"""Classifying files: what ``fewstep predict`` does."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewstep.data.images import image_folder
from fewstep.run import load


def classify(run: Path, support: Path, query: Path) -> tuple[list[str], list[list[str]]]:
    """Adapt a trained run to the support, and label every query.

    Args:
        run: folder of a trained run.
        support: a folder with one sub-folder of images per class, or an ``.npz`` file with ``x`` ``[n, features]`` (or
            images ``[n, 1, 28, 28]``) and ``y`` ``[n]``.
        query: a folder of images, or an ``.npz`` file with ``x``; labels, where there are any, are not read.

    Returns:
        A header and a row per query: which one, its predicted label, and the probability of every class.

    Raises:
        ValueError: for unlabelled supports and files that cannot be read; the message names the file.
    """
    classifier = load(run)
    x, y, _ = _read(support)
    if y is None:
        raise ValueError(f"{support} has no labels: make one sub-folder of images per class, or an .npz with x and y.")
    classifier.fit(x, y)
    queries, _, names = _read(query)
    probabilities = classifier.predict_proba(queries)
    labels = classifier.classes_[probabilities.argmax(1)]
    header = ["query", "label", *(f"p({name})" for name in classifier.classes_)]
    rows = zip(names, labels, probabilities, strict=True)
    return header, [[name, str(label), *(f"{value:.6f}" for value in p)] for name, label, p in rows]


def _read(path: Path) -> tuple[NDArray[np.generic], NDArray[np.generic] | None, list[str]]:
    """Rows, labels if there are any, and a name for each row."""
    if path.is_dir():
        folder = image_folder(path)
        images = folder.images.astype(np.float32) / 255
        labels = None if folder.labels is None else np.array(folder.labels)
        return images, labels, [str(p.relative_to(path)) for p in folder.paths]
    if path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder of images nor an .npz file.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "x" not in archive:
                raise ValueError(f"{path} holds {sorted(archive)}, but no array x of features.")
            x, y = archive["x"], archive.get("y")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return x, y, [str(i) for i in range(len(x))]
