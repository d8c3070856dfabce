"""What reading a file that is damaged comes to: one error, with the file's name, whatever the reader stumbled over."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reading(path: str | Path, what: str, advice: str = "") -> Iterator[None]:
    """Turn any failure of a reader into an error that names the file.

    A damaged file makes readers fail in as many ways as they have lines: zip archives alone raise six types of errors.
    That a file is not there, or may not be read, is said by its own error, and so is what names the file already.

    Args:
        path: of the file.
        what: is to be said of it else, such as "is no image".
        advice: what to do.

    Raises:
        ValueError: for whatever is raised inside.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise
    except Exception as error:
        told = str(error)
        if isinstance(error, ValueError) and told.startswith(str(path)):
            raise
        why = " ".join(told.split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or {what} ({why:.300})" + (f": {advice}" if advice else "")) from error
