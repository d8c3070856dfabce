"""Writing files so that a reader, or a run that is killed, never meets half of one; and JSON."""

import json
import os
import secrets
from pathlib import Path
from typing import Any


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


def json_text(value: Any) -> str:
    """Plain values as a JSON file, for programs and for readers."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file, or none with an object.

    Raises:
        ValueError: when the file is not JSON.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, or restore it.") from error
    return value if isinstance(value, dict) else {}
