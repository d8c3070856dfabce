"""The folder for what can be computed again, who is told of its making, and arrays as file contents."""

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import platformdirs
from numpy.typing import NDArray

Report: TypeAlias = Callable[[str], None]
"""Receives sentences on what takes time."""


def cache_folder(folder: str | Path | None = None) -> Path:
    """The folder for cached files: the argument, else ``$FEWSTEP_CACHE``, else the user's cache folder.

    It need not exist, and nothing is created here.
    """
    return Path(folder or os.environ.get("FEWSTEP_CACHE") or platformdirs.user_cache_dir("fewstep"))


@contextmanager
def kept_in(folder: Path, what: str, room: str = "room for them") -> Iterator[None]:
    """What writes into the cache: an error of the disk names the folder, and the variable by which it is another one.

    Args:
        folder: of the cache.
        what: is to be kept, for the message.
        room: that it needs, for the message.

    Raises:
        OSError: of the class of the first one, where one comes from inside.
        ConnectionError: one of the net is no error of the disk, and stays as it is.
    """
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise type(error)(
            f"cannot keep {what} in {folder} ({error}): set $FEWSTEP_CACHE to a folder that can be written and has "
            f"{room}"
        ) from error


def npy(array: NDArray[np.generic]) -> bytes:
    """An array as the contents of an ``.npy`` file, without pickles.

    Raises:
        ValueError: if it holds Python objects.
    """
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npz(arrays: Mapping[str, NDArray[np.generic]], *, compressed: bool) -> bytes:
    """Named arrays as the contents of an ``.npz`` file, without pickles.

    Raises:
        ValueError: if an array holds Python objects.
    """
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
