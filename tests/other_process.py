"""Another process that works in a folder, as far as this one can tell."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fewstep.data.storage.lock import LOCK


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """A lock belongs to an open file: one opened apart is another's, whichever process has opened it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab", buffering=0) as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(b"process 7 on there: fewstep train")
        yield
