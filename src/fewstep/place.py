"""Where and in what precision to compute."""

from dataclasses import dataclass
from typing import Literal

import torch

from fewstep.allocator import keep_freed_memory


@dataclass(frozen=True)
class Place:
    """Where and in what precision to compute.

    Attributes:
        device: of tasks and meta-parameters.
        dtype: of tasks and meta-parameters.
    """

    device: torch.device
    dtype: torch.dtype


def place(device: str, dtype: Literal["float32", "float64"] = "float32", threads: int | None = None) -> Place:
    """Device and dtype by their names; sets the number of threads, and has the allocator keep freed memory.

    Args:
        device: "cpu", "cuda" or "cuda:1".
        dtype: floating-point type.
        threads: of the CPU. None: as many as torch takes by itself.

    Raises:
        ValueError: for a device that is not there, or no threads.
    """
    keep_freed_memory()
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}.")
        torch.set_num_threads(threads)
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return Place(found, getattr(torch, dtype))
