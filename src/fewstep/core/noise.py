"""Every random draw of an adaptation, made once per (seed, step) outside the task map.

Draws inside ``vmap``, its chunks, a loop and compiled code differ from one another. So a learner declares its random
*sites* (one entry per site and inner step), :func:`draw` fills them for a whole batch of tasks, and the per-task
functions only read. ``None`` in place of noise means evaluation: means instead of samples, no dropout.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Normal:
    """Standard-normal draws of one task, of the given shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Mask:
    """Inverted-dropout factors of one task: 0 with probability ``rate``, else 1/(1 − rate)."""

    shape: tuple[int, ...]
    rate: float


Sites: TypeAlias = Mapping[str, Normal | Mask]
Noise: TypeAlias = Any
"""A nest of dicts and lists of tensors in the shape of the sites it was drawn for, or None (evaluation)."""


def generator(seed: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """An independent random stream for one (seed, step, purpose), reachable without drawing what came before."""
    entropy = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> np.uint64(1)))


def draw(sites: Any, tasks: int, source: torch.Generator, dtype: torch.dtype = torch.float32) -> Noise:
    """Fill a nest of sites with draws for ``tasks`` tasks: every tensor is ``[tasks, *shape]``.

    Args:
        sites: dicts and lists whose leaves are :class:`Normal` or :class:`Mask`.
        tasks: number of tasks.
        source: the random stream; its device is where the draws are made.
        dtype: floating-point type of the result.
    """
    match sites:
        case Normal(shape):
            return torch.randn((tasks, *shape), generator=source, device=source.device, dtype=dtype)
        case Mask(shape, rate):
            return _mask((tasks, *shape), rate, source, dtype)
        case Mapping():
            return {name: draw(site, tasks, source, dtype) for name, site in sites.items()}
        case _:
            return [draw(site, tasks, source, dtype) for site in sites]


def _mask(shape: tuple[int, ...], rate: float, source: torch.Generator, dtype: torch.dtype) -> Tensor:
    # Sixteen random bits an element, taken four at a time from 64-bit draws: several times cheaper than a uniform
    # float each. The probability is rounded to 1/65536 and the scale uses the rounded one, so the mean is exactly 1.
    count = int(np.prod(shape))
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=source.device)
    bits = words.random_(-(2**63), None, generator=source).view(torch.int16)[:count].view(shape)
    dropped = round(rate * 65536)
    return (bits >= dropped - 32768).to(dtype).mul_(65536 / (65536 - dropped))
