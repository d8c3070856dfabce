"""Locks between processes: working alone in a folder, and waiting for another that makes the same file.

A lock goes with its process, however that ends. Its file stays: removing it would let a third process lock a new one
while a second still waits for the old. File systems and platforms without locks are trusted.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file by which a process says that it works in a folder."""

LOG = "log.txt"
"""The output of a command that runs in the background; like the lock it may be there before anything else."""


def alone_in(folder: Path) -> AbstractContextManager[bool]:
    """Work in a folder while no other process does; the claim ends with this process, however that ends.

    Raises:
        ValueError: when another process works there.
    """

    def refuse() -> None:
        raise ValueError(f"another process is at work in {folder}: wait for it, or give another --out.")

    folder.mkdir(parents=True, exist_ok=True)
    return _held(folder / LOCK, refuse)


def one_at_a_time(lock: Path, note: Callable[[str], None]) -> AbstractContextManager[bool]:
    """Wait until no other process makes this store; false where the file system knows no locks."""
    return _held(lock, lambda: note(f"waiting for another process that makes {lock.stem}"))


@contextmanager
def _held(lock: Path, taken: Callable[[], None]) -> Iterator[bool]:
    """Hold a lock, after a call of ``taken`` where another process has it; false where there are no locks."""
    with lock.open("ab") as file:
        held = fcntl is not None
        try:
            if held:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            taken()
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        except OSError:
            held = False
        yield held
