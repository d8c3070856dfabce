"""Mini-batches of a support, for inner loops that do not see all of it at every step."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.noise import Normal
from fewstep.core.types import Batch


def shuffle_site(rows: int, steps: int, size: int) -> Normal:
    """The random site of a schedule: a number for each row and pass, whose order is the order of the rows."""
    return Normal((-(-steps * size // rows), rows))


def mini_batches(support: Batch, steps: int, size: int, keys: Float[Tensor, "passes rows"] | None) -> Batch:
    """Cut a support into the mini-batches of its inner steps, without replacement.

    The support is shuffled, dealt out, shuffled again and so on; a mini-batch may hold the end of one pass and the
    beginning of the next, as in Reptile's code. Rows of weight zero are never dealt.

    Args:
        support: of one task.
        steps: number of mini-batches.
        size: rows in each of them.
        keys: filled from :func:`shuffle_site`. None, in evaluation: one fixed shuffle, the same for every task.

    Returns:
        Tensors that a step axis leads: ``[steps, size, ...]``.
    """
    rows = len(support.weight)
    if keys is None:
        # Row by row, and as many passes as one row would need: what padding follows changes nothing.
        fixed = np.random.default_rng(0).standard_normal((rows, steps * size))
        keys = torch.from_numpy(fixed).to(support.x).T
    order = torch.where(support.weight > 0, keys, torch.inf).argsort(1)  # padding comes last in every pass
    real = (support.weight > 0).sum().clamp(min=1)
    position = torch.arange(steps * size, device=real.device)
    index = order[(position // real) % len(order), position % real]
    x, y, weight = (tensor[index].unflatten(0, (steps, size)) for tensor in support)
    return Batch(x, y, weight)
