"""Writing files so that a reader, or a run that is killed, never meets half of one; CSV and JSON."""

import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to disk, then renamed over it.

    Folders on the way are made.

    Args:
        path: the file; an existing one is replaced.
        content: bytes as they are, text in UTF-8 with its line ends as they are.

    Raises:
        OSError: if the file cannot be written; an existing one is then left as it was.
    """
    with replacing(Path(path)) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which takes its place when all is written, and is gone after an error.

    Folders on the way are made.
    """
    part = _beside(target)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A new folder beside a place, to be filled and renamed to it; what is left of it at the end is removed."""
    part = _beside(target)
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _beside(target: Path) -> Path:
    """A new name beside a place, in a folder that is there.

    In the same folder, for a rename is atomic only within one file system. Not by ``tempfile``, whose files are
    readable by their owner alone and would stay so after the rename.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as a CSV file: floats read back to the same bits, and None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def json_text(value: Any) -> str:
    """Plain values as a JSON file, for programs and for readers."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file.

    Raises:
        ValueError: when the file is not JSON, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, or restore it.") from error
    return value
