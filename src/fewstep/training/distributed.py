"""Several processes that train or evaluate one method: torchrun's, or those that a command begins by itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed

from fewstep.core.ranks import ALONE, Ranks


def launched() -> bool:
    """Whether this is one of several processes that torchrun has begun."""
    return torch.distributed.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def together() -> Iterator[Ranks]:
    """The processes that torchrun has begun with this one; this one alone where there are no others.

    They speak to each other by gloo, and on GPUs by NCCL; each process has the GPU of its local rank.
    """
    if not launched():
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


def launch(processes: int, module: str, arguments: Sequence[str]) -> None:
    """Run ``python -m module arguments`` in several processes of this machine, as ``torchrun --standalone`` does.

    Raises:
        SystemExit: with the status of the one that failed first; the others are ended then.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's own default, which it warns of
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the failed process has said why
    try:
        main(["--standalone", f"--nproc-per-node={processes}", "-m", module, *arguments])
    except ChildFailedError as error:
        raise SystemExit(error.get_first_failure()[1].exitcode) from None
