"""A drawing named by a learner that saw one example of each class: before it adapts, on the way, and after."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from fewstep.core import Batch, Point
from fewstep.demo.drawing import as_omniglot, drawing
from fewstep.estimators.model import TrainedModel, one_task

FEWEST, MOST = 2, 5
"""Characters of a task."""

LETTERS = "ABCDE"
"""Their names."""


class Naming(NamedTuple):
    """What a learner makes of a query.

    Attributes:
        stages: the probability of each class, by what has been done: nothing, latent steps, all steps. Where a method
            has no codes, there are no latent steps.
        codes: of each class at each latent step, on their first two principal components; none without codes.
        shown: the part of the codes' variance that these components have.
    """

    stages: dict[str, Float[np.ndarray, " ways"]]
    codes: Float[np.ndarray, "moments codes 2"]
    shown: float


def named(
    model: TrainedModel, examples: UInt8[np.ndarray, "ways 1 28 28"], query: UInt8[np.ndarray, "1 28 28"]
) -> Naming:
    """Adapt to one example of each class, and name the query at each stage of the adaptation.

    Args:
        model: of Omniglot's drawings.
        examples: a class each, 255 for ink.
        query: likewise.

    Raises:
        ValueError: for a number of classes that the model does not take.
    """
    rows = model.rows(np.concatenate([examples, query[None]]).astype(np.float32) / 255)
    one_hot = torch.eye(len(examples), dtype=rows.dtype, device=rows.device)
    support, asked = one_task(rows[:-1], one_hot), one_task(rows[-1:], one_hot[:1])
    model.check(support, model.statistics)
    learner = model.own.learner
    learner.examine(support)
    support, asked = (Batch(*(tensor[0] for tensor in batch)) for batch in (support, asked))

    def probabilities(point: Point) -> Float[np.ndarray, " ways"]:
        logits = learner.predict(point, asked, support, statistics=model.statistics)[0] / model.temperature
        return np.asarray(logits.double().softmax(0).cpu().numpy())

    passed: list[Point] = []
    with torch.no_grad():
        end, _ = learner.adapt(support, visit=passed.append)
        coded = [point for point in passed if point.value.keys() != end.value.keys()]
        decoded = [learner.start.decode(point, None) for point in (coded[:1] + coded[-1:] or passed[:1])]
        points = [*decoded, end]
        names = ("before", "latent", "after") if coded else ("before", "after")[-len(points) :]
        stages = {name: probabilities(point) for name, point in zip(names, points, strict=True)}
    codes, shown = _principal([next(iter(point.value.values())).double().cpu().numpy() for point in coded])
    return Naming(stages, codes, shown)


def _principal(codes: list[Any]) -> tuple[Float[np.ndarray, "moments codes 2"], float]:
    """All codes of a task on their first two principal components, whose largest loadings are positive."""
    if not codes:
        return np.zeros((0, 0, 2)), 0.0
    every = np.stack(codes)
    centred = every.reshape(-1, every.shape[-1]) - every.reshape(-1, every.shape[-1]).mean(0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(np.take_along_axis(axes[:2], np.abs(axes[:2]).argmax(1)[:, None], 1))
    total = float(np.square(values).sum())
    found = np.zeros((*every.shape[:2], 2))
    found[..., : len(axes)] = (centred @ axes.T).reshape(*every.shape[:2], -1)
    return found, float(np.square(values[:2]).sum()) / total if total > 0 else 0.0


def answer(model: TrainedModel, examples: Any, query: Any) -> tuple[Naming, UInt8[np.ndarray, "pictures 1 28 28"]]:
    """Name a drawing of a page.

    Args:
        model: of Omniglot's drawings.
        examples: of the page: a list of drawings, one of each class, see :func:`~fewstep.demo.drawing.drawing`.
        query: the drawing that is to be named.

    Returns:
        What it is named, and what the learner saw: the examples, then the query.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(examples, list) or not FEWEST <= len(examples) <= MOST:
        raise ValueError(f"{FEWEST} to {MOST} examples are needed, one of each character")
    given = [drawing(one, f"example {LETTERS[i]}") for i, one in enumerate(examples)]
    images = np.stack([as_omniglot(strokes) for strokes in [*given, drawing(query, "the query")]])
    return named(model, images[:-1], images[-1]), images
