"""What a test does not keep: which classes a run takes for which, and whether its probabilities are what they say."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewstep.data import Dataset
from fewstep.data.episodes import EpisodeSampler
from fewstep.data.storage.files import json_text, read_json
from fewstep.evaluation.arrays import to_numpy
from fewstep.evaluation.inner_loop import evaluating
from fewstep.evaluation.tables import write_files
from fewstep.experiments.asked import TEST_BATCH
from fewstep.experiments.report.recorded import DETAILS
from fewstep.experiments.results import marked
from fewstep.experiments.run import Run
from fewstep.recipes.problems.images import Classification

BATCH = 20
"""Tasks at once."""

QUERIES = 15
"""Of each class; fewer where some class has fewer."""

BINS = 15
"""Of equal width, as :func:`~fewstep.evaluation.calibration.calibration_error` has them."""

SHOWN, EXAMPLES = 8, 3
"""Hard classes in a report, and pictures of each."""


def sampler_of(run: Run) -> EpisodeSampler | None:
    """The tasks of a run's own test, with a few of its queries; None where they do not say which classes they are of.

    Classes and supports do not depend on the number of queries.
    """
    testing, problem = run.config.testing, run.problem
    asked = {"shots": next(iter(testing.shots), None), "seed": testing.seed, "tasks": min(testing.tasks, TEST_BATCH)}
    source = None if problem.regression else problem.source("test", queries=1, **asked)
    if not isinstance(source, EpisodeSampler):
        return None
    return replace(source, queries=min(QUERIES, int(source.dataset.sizes.min()) - source.shots))


def measure(run: Run, tasks: int, progress: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
    """Predict the first test tasks of a run once more, and write what comes of it to ``details.json`` in its folder.

    Args:
        run: trained, as :meth:`Run.open` gives it.
        tasks: how many; they have the classes and the supports of its own test, and some of its queries.
        progress: called with the number of tasks done, and all.

    Returns:
        What is written, which a page shows.

    Raises:
        ValueError: where there is nothing to measure.
        OSError: if the file cannot be written.
    """
    source = sampler_of(run)
    if source is None:
        raise ValueError(f"{run.folder} is no classification of a data set: it has no confusion to measure.")
    if "scores" in read_json(run.folder / DETAILS):
        raise ValueError(f"{run.folder / DETAILS} holds an evaluation, as older versions allowed: rename it.")
    method, executor = run.method, run.config.training.make_executor()
    statistics = run.config.testing.statistics or method.meta_gradient.statistics
    if not method.learner.batch_normalised:
        statistics = "query"  # of which nothing is made
    tasks = min(tasks, run.config.testing.tasks)
    probabilities, labels, classes = [], [], []
    with run.at_test(), evaluating(method.learner), torch.no_grad():
        for done in range(0, tasks, BATCH):
            step, first = divmod(done, source.tasks)
            drawn = source.indices(step).part(slice(first, first + min(BATCH, tasks - done)))
            support, query = source.assemble(drawn)
            point = method.adapt(support, executor, statistics)
            logits = method.predict(point, query, support, executor, statistics)
            probabilities.append(to_numpy(logits.double().softmax(-1)))
            labels.append(query.y.argmax(-1).cpu().numpy())
            classes.append(drawn.classes)
            progress(done + len(drawn), tasks)
    found = np.concatenate(classes), np.concatenate(probabilities), np.concatenate(labels)
    about = f"Of the first {tasks:,} test tasks, with {source.queries} of each class as queries."
    hard = hardest(source.dataset, *found, shown=_images(run, source.dataset))
    details = {"about": about, "calibration": calibration(*found[1:]), "classes": hard}
    write_files(run.folder, {DETAILS: json_text(marked(run.folder, details, run.method.learner.state_dict()))})
    return details


def _images(run: Run, dataset: Dataset) -> Dataset:
    """What the classes look like: of features of images, the images."""
    data = run.config.data
    if run.problem.extractor is None or not isinstance(data, Classification):
        return dataset
    images = data.examples("test", run.note)
    return images if images.class_names == dataset.class_names else dataset


def calibration(
    probabilities: Float[np.ndarray, "tasks rows ways"], labels: Int[np.ndarray, "tasks rows"]
) -> dict[str, Any]:
    """How often the answer is right, by how probable it was said to be: expected calibration error and its bins."""
    confidence, right = probabilities.max(-1).ravel(), (probabilities.argmax(-1) == labels).ravel()
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for b in range(BINS):
        here = which == b
        rows = int(here.sum())
        means = (float(confidence[here].mean()), float(right[here].mean())) if rows else (0.0, 0.0)
        bins.append({"from": b / BINS, "rows": rows, "confidence": means[0], "accuracy": means[1]})
    error = sum(one["rows"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / len(right)
    return {
        "error": float(error),
        "confidence": float(confidence.mean()),
        "accuracy": float(right.mean()),
        "bins": bins,
    }


def hardest(
    dataset: Dataset,
    classes: Int[np.ndarray, "tasks ways"],
    probabilities: Float[np.ndarray, "tasks rows ways"],
    labels: Int[np.ndarray, "tasks rows"],
    shown: Dataset,
) -> list[dict[str, Any]]:
    """The classes with the fewest right answers, each with the one that it is most often taken for.

    A class that few tasks have met is left out: of those met at least half as often as the middle one, and thrice.

    Args:
        dataset: that the classes are of.
        classes: of the tasks.
        probabilities: of the classes of its task for every query.
        labels: the right ones, by their places in the task.
        shown: the same classes, of which pictures are shown where it holds images.
    """
    count, ways = dataset.classes, classes.shape[1]
    taken, met = np.zeros((count, count), int), np.zeros((count, count), int)
    true, said = (np.take_along_axis(classes, places, 1) for places in (labels, probabilities.argmax(-1)))
    np.add.at(taken, (true, said), 1)
    for way in range(ways):  # every query meets all classes of its task
        np.add.at(met, (true, np.broadcast_to(classes[:, way, None], true.shape)), 1)
    queries, tasks = taken.sum(1), np.bincount(classes.ravel(), minlength=count)
    enough = tasks >= max(3.0, 0.5 * float(np.median(tasks[tasks > 0])))
    right = np.where(enough, taken.diagonal() / np.maximum(queries, 1), math.inf)
    found = list[dict[str, Any]]()
    for one in np.argsort(right, kind="stable")[:SHOWN]:
        wrong = taken[one].copy()
        wrong[one] = 0
        if not wrong.any():  # the rest are right throughout, or hardly met
            break
        other = int(wrong.argmax())
        found.append(
            {
                "name": dataset.class_names[one],
                "right": float(right[one]),
                "queries": int(queries[one]),
                "pictures": pictures(shown, int(one)),
                "other": dataset.class_names[other],
                "mistaken": float(wrong[other] / met[one, other]),
                "met": int(met[one, other]),
                "other_pictures": pictures(shown, other),
            }
        )
    return found


def pictures(dataset: Dataset, of: int) -> list[str]:
    """A few examples of a class as ``data:`` URLs; none where they are no images."""
    shape = dataset.feature_shape
    if dataset.tokens or len(shape) != 3 or shape[0] not in (1, 3):
        return []
    first, last = (int(bound) for bound in dataset.offsets[of : of + 2])
    return [_picture(image) for image in dataset.gather(np.arange(first, min(first + EXAMPLES, last)))]


def _picture(image: Float[Tensor, "channels height width"]) -> str:
    """An image as a PNG in a URL, its values from black to white."""
    from PIL import Image

    low, high = (float(bound) for bound in image.aminmax())
    if low < 0 or high > 1:  # in other units, such as standard deviations
        image = (image - low) / ((high - low) or 1.0)
    values = (255 * image).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
    made, file = Image.fromarray(values), io.BytesIO()
    made.thumbnail((84, 84))
    made.save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
