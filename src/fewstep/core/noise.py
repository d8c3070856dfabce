"""Every random draw of an adaptation, made once per (seed, step) outside the task map.

Draws inside ``vmap``, its chunks, a loop and compiled code differ from one another. So a learner declares its random
*sites* (one entry per site and inner step), :func:`sample` draws for a whole batch of tasks, :func:`fill` gives the
draws the shapes of the sites, and the per-task functions only read. ``None`` in place of noise means evaluation: means
instead of samples, no dropout.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
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


PIECE = 2**18
"""Numbers of 32 or 64 bits that come from one stream on a CPU, at most: up to a millisecond of work for a thread."""


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
    normal = torch.empty((tasks, normals), dtype=dtype, device=source.device)
    kept = torch.empty((tasks, sum(prod(site.shape) for site in masks)), dtype=torch.bool, device=source.device)
    size = PIECE if source.device.type == "cpu" else max(1, normal.numel(), kept.numel())
    jobs: list[_Job] = [partial(_draw_normals, piece) for piece in normal.view(-1).split(size) if len(piece)]
    first = 0
    for rate, alike in groupby(masks, key=lambda site: site.rate):  # in practice one rate
        last = first + sum(prod(site.shape) for site in alike)
        for columns in kept[:, first:last].split(4 * size, 1):  # an element takes a quarter of a number
            rows = max(1, 4 * size // max(1, columns.shape[1]))
            jobs += [partial(_draw_mask, piece, rate) for piece in columns.split(rows)]
        first = last
    _run(jobs, source)
    return Draws(normal, kept.view(torch.uint8))


_Job: TypeAlias = Callable[[torch.Generator], None]


def _run(jobs: Sequence[_Job], source: torch.Generator) -> None:
    """On a CPU every job has a stream of its own: threads run them in any order, and their number changes nothing.

    Nor does a job change those before it: normals are the same with masks and without.
    """
    if source.device.type != "cpu":
        for job in jobs:
            job(source)
        return
    seeds = torch.empty(len(jobs), dtype=torch.int64, device=source.device).random_(generator=source).tolist()
    left = iter(list(zip(jobs, seeds, strict=True)))
    inference = torch.is_inference_mode_enabled()  # which a thread does not inherit

    def run_some() -> None:
        with torch.inference_mode(inference):
            for job, seed in left:
                job(torch.Generator("cpu").manual_seed(seed))

    helpers = max(0, min(torch.get_num_threads(), len(jobs) // 2) - 1)
    with ThreadPoolExecutor(max(1, helpers)) as pool:  # its threads start when they get work
        helping = [pool.submit(run_some) for _ in range(helpers)]
        run_some()
        for helper in helping:
            helper.result()


def _draw_normals(out: Tensor, source: torch.Generator) -> None:
    out.normal_(generator=source)  # on a CPU in half of numpy's time


def _draw_mask(out: Tensor, rate: float, source: torch.Generator) -> None:
    """True with probability 1 − rate, from sixteen random bits an element: several times cheaper than a float each."""
    least, words = _dropped(rate) - 32768, -(-out.numel() // 4)
    if out.device.type == "cpu":
        # numpy draws bits in half of torch's time, and compares 16-bit numbers in a tenth of it.
        seed = torch.empty((), dtype=torch.int64, device=out.device).random_(generator=source).item()
        drawn = np.random.SFC64(int(seed)).random_raw(words).view(np.int16)
        np.greater_equal(drawn[: out.numel()].reshape(out.shape), np.int16(least), out=out.numpy())
    else:
        bits = torch.empty(words, dtype=torch.int64, device=out.device).random_(-(2**63), None, generator=source)
        torch.ge(bits.view(torch.int16)[: out.numel()].view(out.shape), least, out=out)


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
