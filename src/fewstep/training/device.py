"""Where and in what precision to compute."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from fewstep.core.ranges import MOST_THREADS

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt, in glibc's malloc.h


@dataclass(frozen=True)
class Place:
    """Where and in what precision to compute.

    Attributes:
        device: of tasks and meta-parameters.
        dtype: of tasks and meta-parameters.
    """

    device: torch.device
    dtype: torch.dtype


def prepare_device(device: str, dtype: Literal["float32", "float64"] = "float32", threads: int | None = None) -> Place:
    """Device and dtype by their names; sets the number of threads, and has the allocator keep freed memory.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:1"; see :func:`device_here`.
        dtype: floating-point type.
        threads: of the CPU. None: as many as torch takes by itself.

    Raises:
        ValueError: for a device that is not there, or no threads or too many.
    """
    keep_freed_memory()
    if threads is not None:
        if not 1 <= threads <= MOST_THREADS:  # of a run of old too, whose settings are else taken as they are
            raise ValueError(f"threads must be from 1 to {MOST_THREADS}, got {threads}.")
        torch.set_num_threads(threads)
    return Place(_usable(device_here(device)), getattr(torch, dtype))


def device_here(name: str) -> str:
    """The device that a name stands for on this machine: of "auto" the GPU where there is one, else the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def device_of_trained(trained: str, asked: str, note: Callable[[str], None]) -> str:
    """Where to compute with what was trained before: weights have no device, but rounding has.

    Args:
        trained: the device of training.
        asked: a device; "auto" is that of training where this machine has it, else what "auto" means here.
        note: is told when the device of training is not here.
    """
    if asked != "auto":
        return asked
    try:
        _usable(trained)
    except ValueError:
        here = device_here("auto")
        note(f"trained on {trained}, which this machine does not have: going on with {here}, to other last digits")
        return here
    return trained


def _usable(device: str) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {why}. Give --device auto, or cpu.") from error
    return found


@contextmanager
def same_threads() -> Iterator[int]:
    """Torch's number of CPU threads, which is the same again afterwards: configurations may set others."""
    before = torch.get_num_threads()
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Keep freed memory in the process, up to 2 GB of it, instead of returning it to the system.

    glibc gives every large tensor fresh pages and takes them back when it dies, so that a meta-step, which makes
    and frees the same tensors over and over, spends much of its time in page faults. Nothing happens under other C
    libraries.
    """
    if sys.platform.startswith("linux") and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for option, value in ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)):
            mallopt(ctypes.c_int(option), ctypes.c_int(value))
