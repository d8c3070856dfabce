"""Where an objective stopped being finite, for a message."""

import math
from contextlib import suppress

import torch
from torch.utils._pytree import tree_map

from fewstep.core.method import Method
from fewstep.core.noise import Noise
from fewstep.core.types import AnyTask, Batch, Point


def where_overflowed(method: Method, tasks: AnyTask, noise: Noise) -> str:
    """Which part of a meta-objective is not finite, at which inner step it first was so, and what to do.

    One of the tasks is adapted to again.
    """
    copies = method.meta_gradient.copies
    with torch.no_grad():
        objectives = method.estimate(tasks, noise).objective
        bad = (~objectives.isfinite()).nonzero().flatten().tolist()
        penalties = [name for name, value in method.penalties().items() if not value.isfinite()]
        if not bad:
            return f"of its parts {', '.join(penalties) or 'none'} is not finite by itself: lower their weights"
        one, own = tree_map(lambda tensor: tensor[bad[0]], (tasks, noise))
        if copies is not None and own is not None:
            own = tree_map(lambda tensor: tensor[0], own["copies"])
        passed: list[Point] = []
        with suppress(RuntimeError):  # linear algebra refuses what is not finite
            method.learner.adapt(Batch(*one.support), noise=own, visit=passed.append)
    where = f"{len(bad)} of {len(objectives)} tasks are not finite after adaptation"
    sizes = [max(tensor.abs().max().item() for tensor in point.value.values()) for point in passed]
    first = next((i for i, size in enumerate(sizes) if not math.isfinite(size)), None)
    if first is None:
        where += f", though what it found is (its largest entry: {max(sizes, default=0.0):.3g})"
    else:
        before = ", ".join(f"{size:.3g}" for size in sizes[:first]) or "none"
        where += f": {', '.join(passed[first].value)} overflowed at point {first + 1} of {len(passed)} of it "
        where += f"(largest entries of those before: {before})"
    longest = tasks.support.x.flatten(2).norm(dim=-1).max().item() if tasks.support.x.is_floating_point() else 0.0
    return (
        f"{where}; the longest support row has length {longest:.3g}. Scale inputs (leo's `normalise`, "
        "networks.UnitLength), lower the inner rates, or shorten inner gradients (`clip`, leo's `latent_clip`)"
    )
