"""What a result depends on besides its configuration."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def environment(device: str, dtype: str) -> dict[str, Any]:
    """What a result depends on besides its configuration, for ``environment.json``."""
    versions = {name: version(name) for name in ("fewstep", "numpy", "safetensors", "pillow")}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
        "commit": _commit(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "device": device,
        "dtype": dtype,
    }


def moved(facts: dict[str, Any], begun: str, device: str) -> dict[str, Any]:
    """The facts of a run that goes on with another ``device`` than before; as they are with the same.

    Args:
        facts: of :func:`environment`, and of the moves so far.
        begun: the device that the run was begun on.
        device: where it goes on.
    """
    moves = facts.get("continued", [])
    if device == (moves[-1]["device"] if moves else begun):
        return facts
    now = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "device": device, "machine": machine()}
    return facts | {"continued": [*moves, now]}


def machine() -> str:
    """System, architecture and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str | None:
    """The commit of the source tree that the package runs from, with "+" when it has been changed; None elsewhere."""
    here = Path(__file__).parents[1]
    try:
        ask = ["git", "-C", str(here)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        dirty = subprocess.run([*ask, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
