"""Whether two folders hold the same results, to the bit.

Left out is what tells of the doing and not of the result: wall times (``seconds`` in counters and tables, ``costs``
of a comparison), memory, the facts of the machine and of resumptions (``environment.json``), the page that shows both
(``report.html``; all else in it is of files that are compared), the word by which a run knows its checkpoints, logs
and locks, the checkpoint before the last one, Optuna's database (its table ``trials.csv`` is compared), and the
digests of files that have wall times in them (``*.key``, of checkpoints, the names of ``scores/*.json``).
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

LEFT_OUT = (
    "environment.json",
    "report.html",
    "previous.safetensors",
    ".lock",
    "log.txt",
    "study.db",
    "study.db-journal",
    ".part",
    ".key",
)
"""Ends of names of files that are not compared."""

OF_TIME = re.compile(r".*seconds.*|costs|key|waiting|run|digest|log")
"""Names of entries that are not compared."""


def differences(folder: Path, expected: Path, *, without: str = "") -> list[str]:
    """What differs, in words; nothing where all results are the same.

    Args:
        folder: of results, or a file of them.
        expected: what they should be.
        without: one more file that is not compared.
    """
    if expected.is_file():
        return [] if folder.is_file() and _content(folder, expected) == _content(expected, expected) else [folder.name]
    ours, theirs = _files(folder), _files(expected)
    found = [f"{name} is missing" for name in sorted(theirs.keys() - ours.keys())]
    found += [f"{name} is too much" for name in sorted(ours.keys() - theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        if name != without and _content(ours[name], folder) != _content(theirs[name], expected):
            found.append(f"{name} differs")
    return [one for one in found if not without or without not in one]


def _files(folder: Path) -> dict[str, Path]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(LEFT_OUT)]
    paths = [path for path in paths if "-damaged-" not in str(path.relative_to(folder))]  # set aside, and made again
    return {_name(path, folder): path for path in paths}


def _name(path: Path, folder: Path) -> str:
    if path.parent.name == "scores":  # named by a digest of its run's checkpoint, which has wall times in it
        return f"scores/{hashlib.sha256(repr(_content(path, folder)).encode()).hexdigest()[:8]}"
    return str(path.relative_to(folder))


def _content(path: Path, folder: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                facts = {key: _plain(re.sub(r'[^"]*features.npz', "", v)) for key, v in (file.metadata() or {}).items()}
            return {key: (value.dtype.str, value.shape, value.tobytes()) for key, value in tensors.items()}, _timeless(
                facts
            )
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: (file[key].dtype.str, file[key].shape, file[key].tobytes()) for key in file}
        if path.suffix == ".json":
            return _timeless(json.loads(path.read_text(encoding="utf-8")))
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as table:
                return [
                    {k: v for k, v in row.items() if not OF_TIME.fullmatch(k or "")} for row in csv.DictReader(table)
                ]
        if path.suffix in (".md", ".svg"):
            text = path.read_text(encoding="utf-8").replace(str(folder), "HERE")
            return "\n".join(
                line
                for line in text.splitlines()
                if not re.search(r"\d s\b|seconds|^\| (started|command|commit|continued|peak_memory)", line)
            )
    except Exception as error:
        return f"unreadable: {type(error).__name__} {path}"
    return path.read_bytes()


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if not OF_TIME.fullmatch(k)}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return value
