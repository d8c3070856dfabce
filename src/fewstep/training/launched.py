"""What a process is told of others that were begun with it: by torchrun, or by a command of fewstep."""

import os

OURS = "FEWSTEP_LAUNCHED"
"""Of the environment of processes that a command has begun, beside what torchrun tells its own."""

PARENT = os.getppid()
"""The process that has begun this one, as early as this one can know: it gets another one when that has ended."""


def launched() -> int:
    """How many processes torchrun or a command has begun, this one among them; 0 where there are no others.

    Raises:
        ValueError: for a number that is none.
    """
    told = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    size = os.environ["WORLD_SIZE"] if all(name in os.environ for name in told) else "1"
    if not size.isdecimal():
        raise ValueError(f"WORLD_SIZE is {size!r}, and no number of processes: unset it, or begin them with torchrun.")
    return int(size) if int(size) > 1 else 0


def spoken_for() -> bool:
    """Whether another process tells the user what has come to them all."""
    return bool(launched()) and (os.environ["RANK"] != "0" or OURS in os.environ)


def by_torchrun() -> bool:
    """Whether an agent of torchrun has begun this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def restarted() -> bool:
    """Whether torchrun has begun these processes once more, after one of them had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def may_restart() -> bool:
    """Whether torchrun would do so."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0
