"""Classifying files: what ``fewstep predict`` does."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewstep.classifier import FewShotClassifier
from fewstep.run import load

_TOGETHER = 256
"""Queries that are classified at once: photographs of a whole folder are large as floats."""


def classify(run: Path, support: Path, query: Path) -> tuple[list[str], list[list[str]]]:
    """Adapt a trained run to the support, and label every query.

    Images are read as those that the run was trained on were: reduced to the same size, in colour or grey.

    Args:
        run: folder of a trained run.
        support: a folder with one sub-folder of images per class, or an ``.npz`` file with ``x`` ``[n, features]`` (or
            images ``[n, channels, height, width]`` from 0 to 1, or bytes) and ``y`` ``[n]``.
        query: a folder of images, or an ``.npz`` file with ``x``; labels, where there are any, are not read.

    Returns:
        A header and a row per query: which one, its predicted label, and the probability of every class.

    Raises:
        ValueError: for unlabelled supports, files that cannot be read (the message names the file), and images for a
            run that was trained on features without the network that made them.
    """
    classifier = load(run)
    x, y, _ = _read(support, classifier)
    if y is None:
        raise ValueError(f"{support} has no labels: make one sub-folder of images per class, or an .npz with x and y.")
    classifier.fit(_scaled(x), y)
    queries, _, names = _read(query, classifier)
    blocks = [classifier.predict_proba(_scaled(queries[i : i + _TOGETHER])) for i in range(0, len(queries), _TOGETHER)]
    probabilities = np.concatenate(blocks) if blocks else np.empty((0, len(classifier.classes_)))
    labels = classifier.classes_[probabilities.argmax(1)]
    header = ["query", "label", *(f"p({name})" for name in classifier.classes_)]
    rows = zip(names, labels, probabilities, strict=True)
    return header, [[name, str(label), *(f"{value:.6f}" for value in p)] for name, label, p in rows]


def _read(
    path: Path, classifier: FewShotClassifier
) -> tuple[NDArray[np.generic], NDArray[np.generic] | None, list[str]]:
    """Rows, labels if there are any, and a name for each row."""
    if path.is_dir():
        if classifier.reading is None:
            raise ValueError(
                f"{path} holds images, but the run was trained on features and does not know the network that made "
                "them: give .npz files of such features. A run on features of `fewstep embed` knows it, if "
                "NAME.extractor.safetensors lies beside them when training begins."
            )
        folder = classifier.reading.folder(path)
        labels = None if folder.labels is None else np.array(folder.labels)
        return folder.images, labels, [str(p.relative_to(path)) for p in folder.paths]
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


def _scaled(x: NDArray[np.generic]) -> NDArray[np.generic]:
    """Images from 0 to 1, where they are bytes."""
    return x.astype(np.float32) / 255 if x.dtype == np.uint8 and x.ndim == 4 else x
