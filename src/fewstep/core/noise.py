"""Every random draw of an adaptation, made once per (seed, step) outside the task map.

Draws inside ``vmap``, its chunks, a loop and compiled code differ from one another. So a learner declares its random
*sites* (one entry per site and inner step), :func:`sample` draws for a whole batch of tasks, :func:`fill` gives the
draws the shapes of the sites, and the per-task functions only read. ``None`` in place of noise means evaluation: means
instead of samples, no dropout.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Normal:
    """Standard-normal draws of one task, of the given shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Mask:
    """For each element of one task's tensor of the given shape, 0 with probability ``rate``, else 1."""

    shape: tuple[int, ...]
    rate: float


Sites: TypeAlias = Mapping[str, Normal | Mask]
Noise: TypeAlias = Any
"""A nest of dicts and lists of tensors in the shape of the sites that it fills, or None (evaluation)."""


def generator(seed: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """An independent random stream for one (seed, step, purpose), reachable without drawing what came before."""
    entropy = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> np.uint64(1)))


class Draws(NamedTuple):
    """The randomness of a batch of tasks, before it is given the shapes of its sites.

    Two tensors, however many sites there are: few calls of the generator, and few inputs of a compiled function.

    Attributes:
        normal: standard-normal numbers.
        kept: 0 or 1, a byte each.
    """

    normal: Float[Tensor, "tasks normals"]
    kept: UInt8[Tensor, "tasks elements"]


def sample(sites: Any, tasks: int, source: torch.Generator, dtype: torch.dtype = torch.float32) -> Draws:
    """Draw all that a nest of sites needs, for ``tasks`` tasks.

    Args:
        sites: dicts and lists whose leaves are :class:`Normal` or :class:`Mask`.
        tasks: number of tasks.
        source: the random stream; its device is where the draws are made.
        dtype: floating-point type of the normal numbers.
    """
    normals = sum(prod(site.shape) for site in _leaves(sites) if isinstance(site, Normal))
    masks = [site for site in _leaves(sites) if isinstance(site, Mask)]
    elements = sum(prod(site.shape) for site in masks)
    normal = torch.randn((tasks, normals), generator=source, device=source.device, dtype=dtype)
    # Sixteen random bits an element, four elements from one 64-bit draw: several times cheaper than a float each.
    words = torch.empty(-(-tasks * elements // 4), dtype=torch.int64, device=source.device)
    bits = words.random_(-(2**63), None, generator=source).view(torch.int16)[: tasks * elements].view(tasks, elements)
    kept = torch.empty(tasks, elements, dtype=torch.bool, device=source.device)
    first = 0
    for rate, alike in groupby(masks, key=lambda site: site.rate):  # in practice one rate, and one comparison
        last = first + sum(prod(site.shape) for site in alike)
        torch.ge(bits[:, first:last], _dropped(rate) - 32768, out=kept[:, first:last])
        first = last
    return Draws(normal, kept.view(torch.uint8))


def _dropped(rate: float) -> int:
    """How many of the 65536 values of sixteen bits mean zero."""
    return round(rate * 65536)


def fill(sites: Any, draws: Draws) -> Noise:
    """Give draws the shapes of their sites: a nest of views ``[tasks, *shape]``."""
    taken = {"normal": 0, "kept": 0}

    def take(site: Normal | Mask) -> Tensor:
        kind = "normal" if isinstance(site, Normal) else "kept"
        flat: Tensor = getattr(draws, kind)
        first, taken[kind] = taken[kind], taken[kind] + prod(site.shape)
        return flat[:, first : taken[kind]].view(len(flat), *site.shape)

    return _map(take, sites)


def copied(sites: Any, copies: int) -> Any:
    """A nest of sites with an axis before all others, for so many independent draws of each."""
    return _map(lambda site: replace(site, shape=(copies, *site.shape)), sites)


def dropout(x: Float[Tensor, "*shape"], kept: UInt8[Tensor, "*shape"], rate: float) -> Float[Tensor, "*shape"]:
    """Inverted dropout: zero with probability ``rate``, else ``x / (1 − rate)``.

    The rate is rounded to 1/65536, and the scale uses the rounded one, so the mean over masks is exactly ``x``. A mask
    becomes a float where it is used: until then it takes a byte, and compiled code fuses it into the product.
    """
    return x * (kept.to(x.dtype) * (65536 / (65536 - _dropped(rate))))


def _map(function: Callable[[Normal | Mask], Any], sites: Any) -> Any:
    match sites:
        case Normal() | Mask():
            return function(sites)
        case Mapping():
            return {name: _map(function, site) for name, site in sites.items()}
        case _:
            return [_map(function, site) for site in sites]


def _leaves(sites: Any) -> Iterator[Normal | Mask]:
    match sites:
        case Normal() | Mask():
            yield sites
        case _:
            for site in sites.values() if isinstance(sites, Mapping) else sites:
                yield from _leaves(site)
