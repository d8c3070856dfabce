"""Compilation of the meta-objective, where a compiler is there and succeeds."""

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import torch
import torch._functorch.config

from fewstep.core import Estimate
from fewstep.data.storage.cache import cache_folder

logger = logging.getLogger("fewstep")

T = TypeVar("T")


def compiled(function: Callable[..., Estimate]) -> Callable[..., Estimate]:
    """``function`` compiled into one graph with its derivative; generated code is kept in fewstep's cache folder.

    Shapes are constants of the graph: others compile again.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    graph = torch.compile(function, fullgraph=True, dynamic=False, options={"cpp_wrapper": True})

    def call(*arguments: object) -> Estimate:
        # Left alone, the partitioner saves boolean masks for the backward pass, which a CPU writes one by one, and
        # saves what is cheaper to compute again: for 5-shot LEO this setting is a third of the time.
        with torch._functorch.config.patch(aggressive_recomputation=True):
            return graph(*arguments)

    return call


def or_eager(fast: Callable[..., T], eager: Callable[..., T]) -> Callable[..., T]:
    """``fast`` unless its first call fails: then, with one warning, ``eager`` from there on.

    An error of the arguments themselves is raised again by ``eager``.
    """
    chosen: Callable[..., T] | None = None

    def call(*arguments: object) -> T:
        nonlocal chosen
        if chosen is not None:
            return chosen(*arguments)
        try:
            result, chosen = fast(*arguments), fast
        except Exception as error:  # the compiler's failures have no common base class
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            result, chosen = eager(*arguments), eager
            logger.warning("compilation failed, training goes on without it (training.compile=off): %s", reason)
        return result

    return call
