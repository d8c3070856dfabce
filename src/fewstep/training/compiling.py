"""Compilation of the meta-gradient, where a compiler is there and succeeds."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch._functorch.config

from fewstep.core import MetaStep
from fewstep.data.storage.cache import cache_folder
from fewstep.training.timing import timed

logger = logging.getLogger("fewstep")

T = TypeVar("T")


def compiled(function: Callable[..., MetaStep], backend: str = "inductor") -> Callable[..., MetaStep]:
    """``function`` compiled: into one graph with the derivatives that it takes, if this torch traces these.

    Generated code is kept in fewstep's cache folder; where that cannot be written, in torch's own.
    Shapes are constants of the graph: others compile again.
    """
    from torch._dynamo import config  # which takes a second

    folder = cache_folder() / "inductor"
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ and _writable(folder):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    whole = hasattr(config, "trace_autograd_ops")
    settings: dict[str, Any] = {}
    if backend == "inductor":
        # A graph without a tape counts as inference, for which torch lays out convolutions anew: those of few rows
        # become a third slower by it.
        settings["options"] = {"cpp_wrapper": True, "layout_optimization": False}
    graph = torch.compile(function, fullgraph=whole, dynamic=False, backend=backend, **settings)

    def call(*arguments: object) -> MetaStep:
        if whole:
            with config.patch(trace_autograd_ops=True):
                return graph(*arguments)
        # Two graphs. Left alone, the partitioner saves boolean masks for the backward pass, which a CPU writes one by
        # one, and saves what is cheaper to compute again: for 5-shot LEO this setting is a third of the time.
        with torch._functorch.config.patch(aggressive_recomputation=True):
            return graph(*arguments)

    return call


def _writable(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


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
            with timed("compilation"):
                result, chosen = fast(*arguments), fast
        except Exception as error:  # the compiler's failures have no common base class
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            result, chosen = eager(*arguments), eager
            logger.warning("compilation failed, training goes on without it (training.compile=off): %s", reason)
        return result

    return call
