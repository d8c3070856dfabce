"""Locks between processes: working alone in a folder, and waiting for another that makes the same file.

A lock goes with its process, however that ends. Its file stays, with a line on who works while somebody does. File
systems and platforms without locks are trusted.
"""

import errno
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file by which a process says that it works in a folder."""

LOG = "log.txt"
"""The output of a command that runs in the background; like the lock it may be there before anything else."""

_mine: dict[Path, tuple[int, os.stat_result]] = {}
"""The lock files that this process holds: which of its threads, for a lock within a lock of the same is none, and the
folder that each lay in."""


class AtWork(ValueError):
    """Another process works in a folder."""


def alone_in(folder: Path) -> AbstractContextManager[bool]:
    """Work in a folder while no other process does; the claim ends with this process, however that ends.

    In a thread that works there alone already it is that claim.

    Raises:
        AtWork: when another process, or another thread, works there; a ValueError.
    """
    lock = folder / LOCK

    def refuse() -> None:
        raise AtWork(
            f"another process is at work in {folder}{_who(lock)}: wait for it, or stop it, or take another folder."
        )

    folder.mkdir(parents=True, exist_ok=True)
    return _held(lock, refuse)


def require_there(folder: Path) -> None:
    """Refuse to write on in a folder that this process works alone in, when it has been moved away or removed.

    Raises:
        ValueError: rather than that another folder is made in its place, which has not all that belongs to it.
    """
    if (held := _mine.get((folder / LOCK).absolute())) is None:
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        if os.path.samestat(held[1], folder.stat()):
            return
    raise ValueError(
        f"{folder} was moved or removed while this process worked in it: nothing more is written. If it was moved, go "
        "on from where it is now."
    )


@contextmanager
def alone_after(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Work in a folder alone, after another process that does; meanwhile ``waiting`` is called every second."""
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(alone_in(folder))
                break
            except AtWork:
                waiting()
                time.sleep(1.0)
        yield


def in_turn(folder: Path) -> AbstractContextManager[bool]:
    """Work in a folder alone, after another process that does; false where the file system knows no locks."""
    folder.mkdir(parents=True, exist_ok=True)
    return _held(folder / LOCK, lambda: None)


def one_at_a_time(lock: Path, note: Callable[[str], None]) -> AbstractContextManager[bool]:
    """Wait until no other process makes this store; false where the file system knows no locks."""
    return _held(lock, lambda: note(f"waiting for another process that makes {lock.stem}"))


@contextmanager
def _held(lock: Path, taken: Callable[[], None]) -> Iterator[bool]:
    """Hold a lock, after a call of ``taken`` where another process has it; false where there are no locks."""
    place, thread = lock.absolute(), threading.get_ident()
    if place in _mine and _mine[place][0] == thread:
        yield True
        return
    file, held = _locked(lock, taken)
    with file:
        if held:
            _mine[place] = thread, lock.parent.stat()
            with suppress(OSError):  # a full disk
                file.write(f"process {os.getpid()} on {platform.node()}: {_command()}".encode())
        try:
            yield held
        finally:
            if held:
                del _mine[place]
                with suppress(OSError):
                    file.truncate(0)


def _locked(lock: Path, taken: Callable[[], None]) -> tuple[Any, bool]:
    """The open file of a lock, and whether it is held."""
    while True:
        file, owned = _opened(lock)
        try:
            if fcntl is None:
                return file, False
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                taken()
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            except OSError:
                if not owned:  # a file system of the net locks only what may be written
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(lock)) from None
                return file, False
            # It may have been removed meanwhile: then it keeps nobody away who comes later.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    with suppress(OSError):
                        file.truncate(0)  # what a killed process has left
                    return file, True
        except BaseException:
            file.close()
            raise
        file.close()
        lock.parent.mkdir(parents=True, exist_ok=True)


def _opened(lock: Path) -> tuple[Any, bool]:
    """The file of a lock, made where it is not there, and whether it can be written: not, if another user made it.

    Raises:
        OSError: when it can be neither written nor, in a folder that can be, read.
    """
    try:
        return lock.open("ab", buffering=0), True
    except PermissionError:
        if fcntl is None or not os.access(lock.parent, os.W_OK):
            raise
        return lock.open("rb", buffering=0), False


@contextmanager
def used(path: Path) -> Iterator[bool]:
    """Use a new file or folder, so that :func:`unless_used` knows; false where another process has removed it."""
    with _open(path) as descriptor:
        if descriptor is None:
            yield path.exists()
            return
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            there = os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            there = False
        yield there


@contextmanager
def unless_used(path: Path) -> Iterator[bool]:
    """Whether no process is in :func:`used` of a file or folder, nor comes into it meanwhile.

    False where that cannot be known: of a platform or a file system without locks.
    """
    with _open(path) as descriptor:
        free = False
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
        yield free


@contextmanager
def _open(path: Path) -> Iterator[int | None]:
    """A descriptor of a file or folder, to be locked by; none where there are no locks, or it cannot be opened."""
    descriptor: int | None = None
    if fcntl is not None:
        with suppress(OSError):  # a file system of the net locks only what may be written
            descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _who(lock: Path) -> str:
    """What the process that holds a lock says of itself, in parentheses."""
    try:
        told = " ".join(lock.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""
    return f" ({told})" if told else ""


def _command() -> str:
    words = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]).replace("__main__.py", "fewstep")
    return words if len(words) <= 100 else f"{words[:99]}…"
