"""Several processes that work on one thing: torchrun's, or those that a command begins on this machine."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import IO

import torch
import torch.distributed

from fewstep.core.ranks import ALONE, RankLost, Ranks
from fewstep.training.device import device_here
from fewstep.training.launched import OURS, PARENT, by_torchrun, launched
from fewstep.training.stopping import SIGNALS, Stopped, let_signals_in, signals_later

PATIENCE = timedelta(days=1)
"""How long a process waits for the others, of which one may be reading or embedding data. Those that have ended are
known at once."""

MEETING = timedelta(minutes=10)
"""How long it waits for all of them to begin."""

ENDING = 60.0
"""Seconds that the other processes have to end in when one has failed, or when they are asked to."""

LOOKING = 1.0
"""Seconds between two looks at whether torchrun's agent is there."""


@contextmanager
def together(device: str = "auto") -> Iterator[Ranks]:
    """The processes that were begun with this one; this one alone where there are no others.

    They speak to each other by gloo, and of what is on GPUs by NCCL; each process has the GPU of its local rank.

    Args:
        device: that they compute on.

    Raises:
        ValueError: for fewer GPUs than processes, or one GPU for all of them.
    """
    if not launched():
        yield ALONE
        return
    local, place = int(os.environ["LOCAL_RANK"]), torch.device(device_here(device))
    if place.type == "cuda":
        if place.index is not None or local >= torch.cuda.device_count():
            raise ValueError(
                f"processes have a GPU each, and this machine has {torch.cuda.device_count()}: begin no more processes "
                "than that, with --device cuda; or take --device cpu."
            )
        torch.cuda.set_device(local)
    if OURS in os.environ or by_torchrun():
        threading.Thread(target=_end_with_launcher, daemon=True).start()
        let_signals_in()
    try:
        _meet("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
        yield Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    except RankLost:
        if OURS in os.environ:  # the launcher knows which one, and says so
            raise SystemExit(RankLost.status) from None
        raise
    torch.distributed.destroy_process_group()  # not after an error: then nobody is there to do it with


def _meet(backend: str) -> None:
    """Join the group of all processes, in a room of the store that no earlier ones have been in.

    torchrun's processes meet in the store of its agent. After a restart the addresses of dead processes lie there, and
    ``init_process_group`` by itself would call them; ``TORCHELASTIC_RESTART_COUNT`` is not the same on all machines
    (pytorch/pytorch#135712). So each process lays a new word there, the first one lays the list of them all, and each
    one whose word is in the list confirms it: its first word names the room.
    """
    try:
        store, rank, size = next(torch.distributed.rendezvous("env://", timeout=MEETING))
        room = _room(store, rank, size)
    except torch.distributed.DistError as error:
        raise RankLost(f"processes that were begun together do not meet: {str(error).splitlines()[0]}") from error
    store.set_timeout(PATIENCE)
    own = torch.distributed.PrefixStore(room, store)
    torch.distributed.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)


def _room(store: torch.distributed.Store, rank: int, size: int) -> str:
    word, deadline = secrets.token_hex(8), time.monotonic() + MEETING.total_seconds()
    laid = [f"word/{each}" for each in range(size)]
    store.set(laid[rank], word)
    while time.monotonic() < deadline:
        if rank == 0 and store.check(laid):
            store.set("words", " ".join(store.get(name).decode() for name in laid))
            if store.add(f"confirmed/{word}", 0) == size - 1:
                return word
        elif rank and store.check(["words"]) and word in (words := store.get("words").decode().split()):
            store.add(f"confirmed/{words[0]}", 1)
            return words[0]
        time.sleep(0.02)  # unlike the store's own waiting, this lets signals in
    raise RankLost(f"{MEETING.total_seconds() / 60:g} minutes after process {rank} had begun, others had not")


def launch(arguments: Sequence[str], processes: int, threads: int) -> None:
    """Run ``fewstep ARGUMENTS`` in several processes of this machine, as ``torchrun --standalone`` would.

    The first of them has this one's terminal; what another one has to say is shown where that has ended them all. A
    signal to this process ends them in order. They end with this process, however that ends.

    Args:
        arguments: of ``fewstep``.
        processes: how many.
        threads: of each, unless the arguments or ``OMP_NUM_THREADS`` say otherwise.

    Raises:
        RankLost: when one has died without a word; the others have ended then too.
        SystemExit: when one has ended with an error, which has been told; or all, by a signal to this process.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = os.environ | {
        OURS: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": str(True),  # they meet in the store of this process
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    if sys.platform == "linux":
        shared.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever address this machine's name stands for
    ranks: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        errors = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, processes))]
        try:
            with signals_later(*SIGNALS):
                for rank, error in enumerate(errors):
                    ranks.append(_begun(arguments, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, error))
            failed = _first_to_fail(ranks)
        except Stopped as stop:
            for process in ranks:
                process.send_signal(stop.signal)
            _wait(ranks)
            raise SystemExit(stop.status) from None
        finally:
            for process in ranks:
                process.kill()
                process.wait()
                assert process.stdin is not None
                process.stdin.close()
        if failed is not None:
            _tell(ranks, failed, errors)


def _begun(arguments: Sequence[str], told: Mapping[str, str], error: IO[bytes] | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fewstep", *arguments],
        env=told,
        stdin=subprocess.PIPE,  # whose end tells of this process's
        stdout=None if error is None else subprocess.DEVNULL,
        stderr=error,
    )


def _first_to_fail(ranks: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait for all; after a failure, as long as the others may need to end: which was the first."""
    while None in (statuses := [process.poll() for process in ranks]) and not any(statuses):
        time.sleep(0.05)
    failed = [rank for rank, status in enumerate(statuses) if status]
    if not failed:
        return None
    _wait(ranks)
    by_itself = [rank for rank in failed if statuses[rank] != RankLost.status]
    return (by_itself or failed)[0]


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + ENDING
    while None in [process.poll() for process in ranks] and time.monotonic() < deadline:
        time.sleep(0.05)


def _tell(ranks: Sequence[subprocess.Popen[bytes]], failed: int, errors: Sequence[IO[bytes] | None]) -> None:
    """Raise what has ended them all."""
    own = ranks[0].returncode  # whose words the user has seen
    status, error = ranks[failed].returncode, errors[failed]
    if own > 0 and own != RankLost.status:
        raise SystemExit(own)
    if error is not None and status > 0:
        error.seek(0)
        if words := error.read().decode(errors="replace").strip():
            print(f"process {failed} of {len(ranks)}:\n{words}", file=sys.stderr)
            raise SystemExit(status)
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"has ended with status {status}"
    short = " (was memory short?)" if status == -9 else ""
    raise RankLost(f"process {failed} of {len(ranks)}, counted from 0, {how}{short}")


def _end_with_launcher() -> None:
    """Nobody would read what processes without their launcher come to, and their folder may be wanted by another."""
    if OURS in os.environ:
        os.read(0, 1)
    while OURS not in os.environ and os.getppid() == PARENT:
        time.sleep(LOOKING)
    os._exit(1)
