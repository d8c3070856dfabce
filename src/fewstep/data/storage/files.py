"""Writing files so that a reader, or a run that is killed, never meets half of one."""

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to disk, then renamed over it.

    Folders on the way are made.

    Args:
        path: the file; an existing one is replaced.
        content: bytes as they are, text in UTF-8 with its line ends as they are.

    Raises:
        OSError: if the file cannot be written; an existing one is then left as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, for a rename is atomic only within one file system. Not by ``tempfile``, whose files are
    # readable by their owner alone and would stay so after the rename.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
