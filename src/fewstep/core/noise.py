"""Every random draw of an adaptation, made once per (seed, step) outside the task map.

Draws inside ``vmap``, its chunks, a loop and compiled code differ from one another. So a learner declares its random
*sites* (one entry per site and inner step), :class:`Draws` draws for a batch of tasks, :func:`fill` gives what was
drawn the shapes of the sites, and the per-task functions only read. ``None`` in place of noise means evaluation: means
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


Site: TypeAlias = Normal | Mask
Sites: TypeAlias = Mapping[str, Site]
Noise: TypeAlias = Any
"""A nest of dicts and lists of tensors in the shape of the sites that it fills, or None (evaluation)."""


def entry(noise: Noise, name: str) -> Noise:
    """A part of noise by its name, or None in evaluation."""
    return None if noise is None else noise[name]


def own_draws(noise: Noise, module: str) -> Noise:
    """What a part draws by itself; None in evaluation, and where noise was made for one that draws nothing."""
    return None if noise is None else noise.get(module)


def generator(seed: int, step: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """An independent random stream for one (seed, step, purpose), reachable without drawing what came before.

    Example:
        >>> [torch.randint(100, (3,), generator=generator(seed=0, step=7, stream="noise")) for _ in range(2)]
        [tensor([80, 17, 23]), tensor([80, 17, 23])]
    """
    entropy = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(entropy >> np.uint64(1)))


PIECE = 2**18
"""Numbers of 32 or 64 bits that come from one stream on a CPU, at most: up to a millisecond of work for a thread."""


class Drawn(NamedTuple):
    """The randomness of some tasks, before it is given the shapes of its sites.

    Two tensors, however many sites there are: few calls of the generator, and few inputs of a compiled function.

    Attributes:
        normal: standard-normal numbers.
        kept: 0 or 1, a byte each.
    """

    normal: Float[Tensor, "tasks normals"]
    kept: UInt8[Tensor, "tasks elements"]


@dataclass(frozen=True)
class _Piece:
    """A rectangle of a table that one stream fills."""

    table: int
    rows: slice
    columns: slice
    fill: Callable[[Tensor, torch.Generator], None]


class Draws:
    """The random numbers of a batch of tasks, made when they are asked for: ``draws[a:b]`` for tasks a to b.

    How the batch is cut changes nothing. Cut in order, nothing is made twice: what a stream gives to the tasks from b
    on is kept until these are asked for. So one task after another takes the memory of one, and a little more.

    On a CPU every piece has a stream of its own: threads fill them in any order, and their number changes nothing.
    Other devices draw everything at once, from one stream.

    Args:
        sites: dicts and lists whose leaves are :class:`Normal` or :class:`Mask`.
        tasks: number of tasks.
        source: the random stream; its device is where the draws are made.
        dtype: floating-point type of the normal numbers.

    Example:
        >>> method = leo(8, latents=3)
        >>> draws = method.draws(clusters, generator(0, 0, "noise"))  # for four tasks
        >>> step = Differentiate(method, Vmap(chunk=2))(clusters, draws)  # reads draws[0:2], then draws[2:4]
        >>> len(draws[2:4].normal), draws[2:4].kept.unique()  # normal numbers, and what dropout keeps
        (2, tensor([0, 1], dtype=torch.uint8))
    """

    def __init__(self, sites: Any, tasks: int, source: torch.Generator, dtype: torch.dtype = torch.float32) -> None:
        leaves = list(_leaves(sites))
        normals = sum(prod(site.shape) for site in leaves if isinstance(site, Normal))
        masks = [site for site in leaves if isinstance(site, Mask)]
        self._tasks, self._normals, self._masked = tasks, normals, sum(prod(site.shape) for site in masks)
        self._dtype, self._device = dtype, source.device
        on_cpu = source.device.type == "cpu"
        pieces = list(self._pieces(masks, PIECE if on_cpu else max(1, tasks * max(normals, self._masked))))
        self._open: dict[int, Tensor] = {}  # pieces that go on beyond the tasks asked for last
        self._whole: Drawn | None = None
        if on_cpu:
            # Normals before masks, so that they are the same with masks and without.
            seeds = torch.empty(len(pieces), dtype=torch.int64, device="cpu").random_(generator=source)
            self._streams = list(zip(pieces, seeds.tolist(), strict=True))
        else:
            tables = self._tables(tasks)
            for piece in pieces:
                piece.fill(tables[piece.table][piece.rows, piece.columns], source)
            self._whole = self._drawn(tables, tasks)

    def __getitem__(self, tasks: slice) -> Drawn:
        """The randomness of consecutive tasks."""
        first, last, _ = tasks.indices(self._tasks)
        if self._whole is not None:
            return Drawn(*(tensor[first:last] for tensor in self._whole))
        tables = self._tables(last - first)
        jobs: list[_Job] = []
        parts: list[tuple[Tensor, Tensor]] = []
        still_open: dict[int, Tensor] = {}
        for i, (piece, seed) in enumerate(self._streams):
            scale = self._normals if piece.table == 0 else 1
            start, stop = first * scale, last * scale
            begin, end = max(piece.rows.start, start), min(piece.rows.stop, stop)
            if begin >= end:
                continue
            target = tables[piece.table][begin - start : end - start, piece.columns]
            if (begin, end) == (piece.rows.start, piece.rows.stop):
                jobs.append((piece, target, seed))
                continue
            if i in self._open:
                whole = self._open[i]
            else:
                shape = (piece.rows.stop - piece.rows.start, piece.columns.stop - piece.columns.start)
                whole = torch.empty(shape, dtype=target.dtype)
                jobs.append((piece, whole, seed))
            parts.append((target, whole[begin - piece.rows.start : end - piece.rows.start]))
            if end < piece.rows.stop:
                still_open[i] = whole
        _run(jobs)
        for target, part in parts:
            target.copy_(part)
        self._open = still_open
        return self._drawn(tables, last - first)

    def _pieces(self, masks: Sequence[Mask], size: int) -> Iterator[_Piece]:
        """Of at most ``size`` numbers of 32 or 64 bits; an element of a mask takes a quarter of one."""
        numbers = self._tasks * self._normals
        for row in range(0, numbers, size):
            yield _Piece(0, slice(row, min(row + size, numbers)), slice(0, 1), _draw_normals)
        first = 0
        for rate, alike in groupby(masks, key=lambda site: site.rate):  # in practice one rate
            last = first + sum(prod(site.shape) for site in alike)
            for column in range(first, last, 4 * size):
                columns = slice(column, min(column + 4 * size, last))
                rows = max(1, 4 * size // (columns.stop - column))
                for row in range(0, self._tasks, rows):
                    yield _Piece(1, slice(row, min(row + rows, self._tasks)), columns, partial(_draw_mask, rate))
            first = last

    def _tables(self, tasks: int) -> tuple[Tensor, Tensor]:
        """Room for the normal numbers of so many tasks, a row each, and for their masks, a row a task."""
        normal = torch.empty((tasks * self._normals, 1), dtype=self._dtype, device=self._device)
        return normal, torch.empty((tasks, self._masked), dtype=torch.bool, device=self._device)

    def _drawn(self, tables: tuple[Tensor, Tensor], tasks: int) -> Drawn:
        return Drawn(tables[0].view(tasks, self._normals), tables[1].view(torch.uint8))


_Job: TypeAlias = tuple[_Piece, Tensor, int]
"""A piece, where it goes, and the seed of its stream."""


def _run(jobs: Sequence[_Job]) -> None:
    left = iter(jobs)
    inference = torch.is_inference_mode_enabled()  # which a thread does not inherit

    def run_some() -> None:
        with torch.inference_mode(inference):
            for piece, target, seed in left:
                piece.fill(target, torch.Generator("cpu").manual_seed(seed))

    helpers = max(0, min(torch.get_num_threads(), len(jobs) // 2) - 1)
    if not helpers:
        return run_some()
    with ThreadPoolExecutor(helpers) as pool:  # its threads start when they get work
        helping = [pool.submit(run_some) for _ in range(helpers)]
        run_some()
        for helper in helping:
            helper.result()


def _draw_normals(out: Tensor, source: torch.Generator) -> None:
    out.normal_(generator=source)  # on a CPU in half of numpy's time


def _draw_mask(rate: float, out: Tensor, source: torch.Generator) -> None:
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


def fill(sites: Any, drawn: Drawn) -> Noise:
    """Give what was drawn the shapes of its sites: a nest of views ``[tasks, *shape]``."""
    taken = {"normal": 0, "kept": 0}

    def take(site: Site) -> Tensor:
        kind = "normal" if isinstance(site, Normal) else "kept"
        flat: Tensor = getattr(drawn, kind)
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


def _map(function: Callable[[Site], Any], sites: Any) -> Any:
    if isinstance(sites, (Normal, Mask)):  # not a union or a match: torch 2.9 traces neither
        return function(sites)
    if isinstance(sites, Mapping):
        return {name: _map(function, site) for name, site in sites.items()}
    return [_map(function, site) for site in sites]


def _leaves(sites: Any) -> Iterator[Site]:
    if isinstance(sites, (Normal, Mask)):
        yield sites
        return
    for site in sites.values() if isinstance(sites, Mapping) else sites:
        yield from _leaves(site)
