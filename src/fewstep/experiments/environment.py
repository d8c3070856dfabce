"""What a result depends on besides its configuration."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from fewstep.data.storage.files import read_json, sealed
from fewstep.evaluation.tables import write_files
from fewstep.experiments.folder import ENVIRONMENT


def environment(device: str, dtype: str) -> dict[str, Any]:
    """What a result depends on besides its configuration, for ``environment.json``."""
    versions = {name: version(name) for name in ("fewstep", "numpy", "safetensors", "pillow")}
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **versions},
        "commit": _commit(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        **_processes(),
        "device": device,
        "dtype": dtype,
    }


def resumption(facts: dict[str, Any], device: str, dtype: str, step: int) -> tuple[dict[str, Any], list[str]]:
    """The facts of a run with one more resumption; and what is otherwise than before, of all that decides last digits.

    Args:
        facts: of :func:`environment`, and of the resumptions so far.
        device: where it goes on.
        dtype: of its numbers.
        step: that it goes on from.

    Returns:
        The facts, and sentences.
    """
    kept = facts.get("continued")
    before = [one for one in kept if isinstance(one, dict)] if isinstance(kept, list) else []
    now = {("at" if name == "started" else name): value for name, value in environment(device, dtype).items()}
    then, told = (before or [facts])[-1], []
    for name in ("threads", "processes", "machine"):
        if name in then and then[name] != now[name]:
            told.append(f"{name}: {then[name]} before, {now[name]} now")
    versions = then.get("versions")
    for name in ("fewstep", "torch"):
        if isinstance(versions, dict) and versions.get(name) != now["versions"][name]:
            told.append(f"{name}: {versions.get(name)} before, {now['versions'][name]} now")
    return facts | {"continued": [*before, {"step": step} | now]}, told


def record_resumption(folder: Path, device: str, dtype: str, step: int) -> list[str]:
    """Say in a run's ``environment.json`` where training goes on; what is otherwise than it was, in sentences."""
    facts, told = resumption(read_json(folder / ENVIRONMENT), device, dtype, step)
    write_files(folder, {ENVIRONMENT: sealed(facts)})
    return told


def record_memory(folder: Path, device: str) -> None:
    """Say there what memory training took at most, of several resumptions the largest."""
    facts = read_json(folder / ENVIRONMENT)
    kept, now = facts.get("peak_memory"), peak_memory(device)
    before = {name: size for name, size in kept.items() if isinstance(size, int)} if isinstance(kept, dict) else {}
    facts["peak_memory"] = {name: max(size, before.get(name, 0)) for name, size in now.items()}
    write_files(folder, {ENVIRONMENT: sealed(facts)})


def processes_before(facts: Mapping[str, Any]) -> int:
    """How many processes a run was last computed by, on each machine if there were several.

    Args:
        facts: of ``environment.json``; of runs before there could be several, they say nothing of it.
    """
    continued = facts.get("continued")
    last = continued[-1] if isinstance(continued, list) and continued else facts
    number, machines = (last.get(name, 1) if isinstance(last, dict) else 1 for name in ("processes", "machines"))
    return max(1, number // machines) if isinstance(number, int) and isinstance(machines, int) and machines > 0 else 1


def _processes() -> dict[str, int]:
    """How many processes share the tasks out, and how many machines they are on."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {"processes": 1}
    size = torch.distributed.get_world_size()
    return {"processes": size, "machines": max(1, size // int(os.environ.get("LOCAL_WORLD_SIZE", size)))}


def machine() -> str:
    """System, architecture and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def peak_memory(device: str) -> dict[str, int]:
    """Bytes that this process has held at most since it began, by where: in main memory, and of tensors on a GPU.

    Args:
        device: that it computes on.
    """
    found = {}
    with suppress(ImportError):  # a module of Unix
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["cpu"] = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.startswith("cuda"):
        found[device] = torch.cuda.max_memory_allocated(device)
    return found


def _commit() -> str | None:
    """The commit of the source tree that the package runs from, with "+" when it has been changed; None elsewhere."""
    here = Path(__file__).parents[1]
    try:
        # Without locks: one that is killed would leave its own in the repository.
        ask = ["git", "--no-optional-locks", "-C", str(here)]
        commit = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        dirty = subprocess.run([*ask, "status", "--porcelain", "."], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
