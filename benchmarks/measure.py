"""How things are measured: contenders take turns in one process, and each one's memory is measured in its own."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], Sequence[Tensor] | None]
"""One run of the work. Tensors that it returns are compared with those of the reference."""


@dataclass(frozen=True)
class Contender:
    """One way of doing a case's work.

    ``build`` prepares (data, networks, compilation) and returns the work; preparation is not timed.
    """

    name: str
    build: Callable[[], Work]


@dataclass(frozen=True)
class Case:
    """The same work done by several contenders.

    Attributes:
        name: short, with no spaces.
        what: sizes and settings, for the reader of the table.
        contenders: the first is the one that ratios are relative to.
        tolerance: largest relative difference of results from the reference's; None when there is nothing to compare.
        rounds: turns of each contender.
        flops: the contender whose floating-point operations make the floor.
    """

    name: str
    what: str
    contenders: Sequence[Contender]
    tolerance: float | None = None
    rounds: int = 15
    flops: str | None = None
    memory: bool = True
    notes: dict[str, Any] = field(default_factory=dict)


def seconds(work: Work) -> float:
    """Wall-clock time of one run, the device's included."""
    _synchronise()
    start = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def take_turns(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Every contender once a round, so that what slows the machine down slows all of them; two rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 2):
        for name, work in works.items():
            taken = seconds(work)
            if turn >= 2:
                times[name].append(taken)
    return times


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest entry of the same expected tensor.

    A tensor far smaller than all the others is judged by their size: a bias before a batch norm has no gradient.
    """
    overall = max(tensor.abs().max().item() for tensor in expected)
    return max(
        ((a - b).abs().max() / b.abs().max().clamp(min=1e-4 * overall)).item()
        for a, b in zip(found, expected, strict=True)
    )


def peak_memory(work: Work) -> float:
    """MB that a run needs beyond what is held before it: resident memory on the CPU, allocated memory on a GPU.

    Meant for a process that does nothing else.
    """
    work()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)
    before_kb = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work()
    return (_resident("VmHWM") - before_kb) / 1024


def _resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: peak memory is measured on Linux only")


def matrix_rate(size: int) -> float:
    """Floating-point operations a second of a large square product: what the floor is measured against."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(size, size, device=device)
    out = torch.empty_like(a)
    best = min(seconds(lambda: torch.mm(a, a, out=out)) for _ in range(8))  # type: ignore[func-returns-value]
    return 2 * size**3 / best


def operations(work: Work) -> int:
    """Floating-point operations of one run, as torch counts them (matrix products and convolutions)."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops())
