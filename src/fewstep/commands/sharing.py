"""Commands whose work several processes share: torchrun's, or those of ``--processes``."""

from __future__ import annotations

import logging
import os
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fewstep.commands.console import console
from fewstep.commands.long_running import removed_if_empty, stoppable
from fewstep.training.launched import OURS, launched

if TYPE_CHECKING:
    from fewstep.core.ranks import Ranks


@contextmanager
def sharing(device: str) -> Iterator[Ranks]:
    """The processes that share a command's work, of which the first alone speaks, but of errors.

    Args:
        device: that they compute on.
    """
    from fewstep.training.distributed import together

    with together(device) as ranks:
        if not ranks.first:
            console.quiet = True
            logging.disable(logging.WARNING)
            warnings.simplefilter("ignore")
        yield ranks


@contextmanager
def in_folder(folder: Path, kept: Path | None, again: Sequence[str], ranks: Ranks) -> Iterator[None]:
    """Work in a folder, alone or with others, so that a stop says how to go on; the first process sees to the folder.

    Args:
        folder: of the work.
        kept: the folder where the user named it, which stays when it is empty.
        again: the arguments of ``fewstep`` that go on.
        ranks: the processes.
    """
    from fewstep.experiments.folder import all_or_nothing

    with ExitStack() as stack:
        if ranks.first:
            stack.enter_context(removed_if_empty(kept, folder))
        stack.enter_context(stoppable(*again))
        if ranks.first:
            stack.enter_context(all_or_nothing(folder))
        yield


def is_to_begin(processes: int | None, before: int = 1) -> int:
    """How many processes this one is to begin; 0 where it does the work itself, alone or as one of several.

    Args:
        processes: that were asked for.
        before: that there were, for where nothing was asked for.

    Raises:
        ValueError: when torchrun has begun another number.
    """
    if not (given := launched()):
        wanted = processes or before
        return wanted if wanted > 1 else 0
    if OURS not in os.environ and processes not in (None, given):
        raise ValueError(f"torchrun has begun {given} processes: leave --processes out.")
    return 0


def as_many_as_fit(tasks: int, threads: int | None, device: str) -> int:
    """How many processes this machine has room for: one for each of its cores or GPUs, and a task for each of them.

    Args:
        tasks: of a meta-step.
        threads: of each process; None: 1.
        device: that they compute on.
    """
    import torch

    from fewstep.experiments.workers import cores
    from fewstep.training.device import device_here

    on_gpus = torch.device(device_here(device)).type == "cuda"
    return max(1, min(tasks, torch.cuda.device_count() if on_gpus else cores() // (threads or 1)))


def begin(arguments: Sequence[str], processes: int, threads: int | None, again: Sequence[str]) -> None:
    """Give a command to so many processes of this machine.

    Args:
        arguments: of ``fewstep``.
        processes: how many.
        threads: that were asked for, of each; None: they share the cores out.
        again: the arguments that go on where one of them has died.

    Raises:
        ValueError: when one has.
    """
    from fewstep.core.ranks import RankLost
    from fewstep.experiments.workers import cores
    from fewstep.training.distributed import launch

    try:
        launch(arguments, processes, threads or max(1, cores() // processes))
    except RankLost as error:
        go_on = shlex.join(("fewstep", *again))
        raise ValueError(f"{error}: what has been done is kept; continue with: {go_on}") from error
