"""Writing files so that a reader, or a run that is killed, never meets half of one; CSV and JSON."""

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fewstep.data.storage.lock import unless_used, used


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to disk, then renamed over it.

    Folders on the way are made.

    Args:
        path: the file; an existing one is replaced.
        content: bytes as they are, text in UTF-8 with its line ends as they are.

    Raises:
        OSError: if the file cannot be written; an existing one is then left as it was.
        ValueError: for text with the name of a file whose bytes are no UTF-8.
    """
    try:
        encoded = content.encode() if isinstance(content, str) else content
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 20) : error.end + 20]
        raise ValueError(
            f"{path} cannot hold a name whose bytes are no UTF-8 (in {around!a}): rename what is called so."
        ) from error
    with replacing(Path(path)) as file:
        file.write(encoded)


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which takes its place when all is written, and is gone after an error.

    Folders on the way are made.
    """
    with _beside(target, lambda part: os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o666))) as part:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """A new folder beside a place, to be filled and renamed to it; what is left of it at the end is removed."""
    with _beside(target, Path.mkdir) as part:
        yield part


@contextmanager
def _beside(target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new part beside a place, which is gone in the end; what killed processes have left of this place goes first.

    In the same folder, for a rename is atomic only within one file system. Not by ``tempfile``, whose files are
    readable by their owner alone and would stay so after the rename.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear(target)
    while True:
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        _ours.add(part.absolute())
        try:
            make(part)
            with used(part) as there:
                if there:
                    yield part
                    return
        finally:
            _remove(part)
            _ours.discard(part.absolute())


_ours = set[Path]()
"""Parts of this process, which a file system of the net does not tell from others' by a lock."""


def _clear(target: Path) -> None:
    """Remove what killed processes have left of a place."""
    left, names = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part"), list[str]()
    with suppress(OSError):  # a folder that can be written, but not listed
        names = os.listdir(target.parent)
    for part in (target.with_name(name) for name in names if left.fullmatch(name)):
        if part.absolute() not in _ours:
            with unless_used(part) as unused:
                if unused:
                    _remove(part)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


def begins(path: Path, text: str) -> bool:
    """Whether a file begins as one of ours does, so that it may be replaced."""
    with path.open("rb") as file:
        return file.read(len(text.encode())) == text.encode()


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as a CSV file: floats read back to the same bits, and None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def json_text(value: Any) -> str:
    """Plain values as a JSON file, for programs and for readers."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with a digest of them, by which :func:`read_json` sees that they are what was written."""
    return {**values, _DIGEST: _digest(values)}


_DIGEST = "digest"


def _digest(values: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(values))  # a tuple is a list in a file
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, without its digest where it was :func:`sealed`; empty where there is no file.

    Raises:
        ValueError: when the file is not JSON, holds no object, or something else than was sealed.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}")
        if _DIGEST in value and value.pop(_DIGEST) != _digest(value):
            raise ValueError("its contents do not match its digest")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, or restore it.") from error
    return value
