"""A check that two sources give the same tasks: looked at rather than believed."""

from dataclasses import fields, is_dataclass
from itertools import chain

import numpy as np
import torch

from fewstep.data import EpisodeSampler, TaskSource


def task_difference(a: TaskSource, b: TaskSource, labels: tuple[str, str], split: str, last: int) -> str | None:
    """The first difference between the tasks of two sources, in words; None where they are the same.

    Sources of episodes are the same when their classes, the sizes of these and all counts agree, and the examples that
    they draw; others when their batches are equal. Draws and batches are looked at in the first step and the last.

    Args:
        a: a source.
        b: another.
        labels: their names, for the words.
        split: of both, for the words.
        last: the last step that will be asked for.
    """
    first, second = labels
    if isinstance(a, EpisodeSampler) and isinstance(b, EpisodeSampler):
        one, other = a.dataset, b.dataset
        where = f"{split} classes"
        if one.classes != other.classes:
            return f"{where}: {one.classes} in {first}, {other.classes} in {second}"
        for c, (name, its) in enumerate(zip(one.class_names, other.class_names, strict=True)):
            if name != its:
                return f"{where}: number {c} is {name!r} in {first}, {its!r} in {second}"
        if not np.array_equal(one.offsets, other.offsets):
            c = int(np.flatnonzero(one.sizes != other.sizes)[0])
            return f"examples of {one.class_names[c]!r}: {one.sizes[c]} in {first}, {other.sizes[c]} in {second}"
    for name in [field.name for field in fields(a)] if is_dataclass(a) else ["ways", "tasks"]:
        mine, yours = getattr(a, name), getattr(b, name, None)
        if name not in ("dataset", "dtype", "device") and mine != yours:
            return f"{name}: {mine} in {first}, {yours} in {second}"
    for step in sorted({0, last}):
        if isinstance(a, EpisodeSampler) and isinstance(b, EpisodeSampler):
            mine, yours = vars(a.indices(step)), vars(b.indices(step))
            same = all(np.array_equal(value, yours[name]) for name, value in mine.items())
        else:
            pairs = zip(chain(*a.batch(step)), chain(*b.batch(step)), strict=True)
            # One source may compute in float64: what it rounds to is the same task.
            same = all(x.shape == y.shape and torch.equal(x.float().cpu(), y.float().cpu()) for x, y in pairs)
        if not same:
            return f"what is drawn at step {step} of the source differs"
    return None
