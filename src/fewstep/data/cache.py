"""Files written whole or not at all, and the folder for what can be computed again."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import platformdirs


def cache_folder(folder: str | Path | None = None) -> Path:
    """The folder for cached files: the argument, else ``$FEWSTEP_CACHE``, else the user's cache folder.

    It need not exist, and nothing is created here.
    """
    return Path(folder or os.environ.get("FEWSTEP_CACHE") or platformdirs.user_cache_dir("fewstep"))


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it there in one step.

    A reader, a crash or a second writer therefore sees the old file or the new one, never a part of one. Missing
    folders are created.

    Args:
        path: the file to make or replace.
        write: receives the file, open for binary writing.

    Raises:
        OSError: if the folder cannot be written. The temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.part"
    try:
        with temporary.open("xb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
