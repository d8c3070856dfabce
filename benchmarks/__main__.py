"""``python -m benchmarks``: run the cases, print a table, write it as JSON and Markdown."""

import json
import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.cases import CASES, QUICK
from benchmarks.one import measured


@dataclass(frozen=True)
class Options:
    """Benchmarks of fewstep beside a hand-written loop and other libraries."""

    only: tuple[str, ...] = ()
    """Cases to run, or beginnings of their names. Empty: all."""
    quick: bool = False
    """Tiny sizes: whether everything runs and agrees, not how fast."""
    out: Path = Path("benchmarks.json")
    """JSON file for the results, with a Markdown table beside it; cases in it that are not run again are kept."""
    threads: int | None = None
    """CPU threads. None: as many as torch takes by itself."""


def main(options: Options) -> None:
    """Run every case, and print what it says: in a process of its own where times and memory are what is asked for."""
    console, results = Console(), {}
    if options.out.exists():
        results = json.loads(options.out.read_text())["cases"]
    chosen = [n for n in (QUICK if options.quick else CASES) if not options.only or n.startswith(options.only)]
    found = _quickly(chosen) if options.quick else map(partial(_case, options), chosen)
    for name, result in zip(chosen, found, strict=True):
        console.print(f"[dim]{name}[/]")
        results[name] = result
        options.out.write_text(json.dumps({"machine": machine(options), "cases": results}, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(results))
    for name in chosen:
        console.print(table(results[name]))


def _quickly(names: list[str]) -> Iterator[dict[str, Any]]:
    """Where no time is judged, all cores work, and a process goes from case to case."""
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(measured, quick=True, threads=1), names)


def _case(options: Options, name: str) -> dict[str, Any]:
    """A case's times, and the memory of each contender."""
    result = _process(options, name)
    for contender in result["contenders"]:
        if result["memory"]:
            contender["peak_mb"] = _process(options, name, contender["name"])["peak_mb"]
    return result


def _process(options: Options, case: str, memory_of: str | None = None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.one", case]
    command += ["--memory-of", memory_of] if memory_of else []
    command += ["--threads", str(options.threads)] if options.threads else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with status {done.returncode}; its error is above.")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine(options: Options) -> dict[str, Any]:
    """What ran it."""
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": options.threads or torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peers": peers.installed(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


COLUMNS = ("", "time", "quartiles", "speed-up", "peak memory", "time / floor")


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a contender: time and memory relative to the case's first, and time relative to the floor."""
    first = result["contenders"][0]
    made = []
    for row in result["contenders"]:
        low, middle, high = (value / first["seconds"][1] for value in row["seconds"])
        peak = f"{row['peak_mb'] / max(first['peak_mb'], 1):.2f} ({row['peak_mb']:.0f} MB)" if "peak_mb" in row else ""
        floor = f"{row['seconds'][1] * result['flops_a_second'] / result['flops']:.1f}" if result.get("flops") else ""
        made.append((row["name"], f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"{1 / middle:.2f}×", peak, floor))
    return made


def table(result: dict[str, Any]) -> Table:
    """A case for the terminal."""
    made = Table(*COLUMNS, title=result["what"], title_justify="left", box=box.SIMPLE_HEAD)
    for row in rows(result):
        made.add_row(*row)
    return made


def markdown(results: dict[str, Any]) -> str:
    """All cases for a page."""
    lines: list[str] = []
    for result in results.values():
        lines += [f"**{result['what']}**", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows(result)] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks"))
