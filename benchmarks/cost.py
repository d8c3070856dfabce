"""What a meta-step costs on P processes, fitted to one and two: ``python -m benchmarks.cost [--quick] [--out FILE]``.

``t(P) = ⌈T/P⌉ a + c + s(n)``, see docs/scaling.md: a and c from steps of one process with different numbers of tasks T,
the time s to sum n float32 numbers over two processes from sums alone; and then what that foretells of a step of two,
beside the step itself. All processes have one thread.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.processes import TORCHRUN, WARM_UP, MetaSteps, Step, maml, of_leo
from fewstep.core.ranks import ALONE, Ranks
from fewstep.training.distributed import together

CASES: dict[str, Callable[[Ranks, int], MetaSteps]] = {
    "maml-eager": lambda ranks, tasks: maml(ranks, "off", tasks=tasks),
    "leo-5shot": lambda ranks, tasks: of_leo(ranks, compile="off", tasks=tasks),
}
TASKS = 4, 8, 16, 32
SIZES = (1, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Options:
    """The cost of a meta-step on one process and on two."""

    quick: bool = False
    """Few steps of few tasks: whether it runs, not how fast."""
    steps: int = 15
    """That are timed, of each kind."""
    out: Path = Path("cost.json")
    """Gets all times and what was fitted."""
    of: str | None = None
    """A case in the processes that are here, or "sums"; for the benchmark itself."""
    tasks: int = 32
    """Of that case."""


def here(options: Options) -> None:
    """Time what is asked for in these processes; the first of them prints it."""
    torch.set_num_threads(1)
    with together("cpu") as ranks:
        found: Any
        if options.of == "sums":
            found = {str(size): _median(ranks, options.steps, _sum(ranks, size)) for size in SIZES}
        else:
            assert options.of is not None
            found = _median(ranks, options.steps, CASES[options.of](ranks, options.tasks))
        if ranks.first:
            print(json.dumps(found))


def _sum(ranks: Ranks, size: int) -> Step:
    numbers = torch.zeros(size)
    return lambda _: ranks.sum([numbers])


def _median(ranks: Ranks, steps: int, step: Step) -> float:
    seconds = []
    for index in range(WARM_UP + steps):
        ranks.wait()
        began = time.perf_counter()
        step(index)
        ranks.wait()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])


def main(options: Options) -> None:
    """Measure, fit, foretell, and print all of it."""
    steps = 2 if options.quick else options.steps

    def ask(of: str, tasks: int = 0, processes: int = 1) -> Any:
        launcher = TORCHRUN if processes > 1 else ()
        words = [*launcher, "-m", "benchmarks.cost", "--of", of, "--tasks", str(tasks), "--steps", str(steps)]
        done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    sums = {int(size): seconds for size, seconds in ask("sums", processes=2).items()}
    latency = min(sums.values())
    rate = SIZES[-1] * 4 / (sums[SIZES[-1]] - latency)
    print(f"a sum over two processes: {1e3 * latency:.2f} ms and {rate / 2**20:.0f} MB/s", flush=True)
    found: dict[str, Any] = {"sums": sums, "latency": latency, "bytes a second": rate}
    for case in CASES:
        numbers = TASKS[:2] if options.quick else TASKS
        of_one = {tasks: ask(case, tasks) for tasks in numbers}
        of_two = {tasks: ask(case, tasks, 2) for tasks in numbers}
        slope, rest = np.polyfit(list(of_one), list(of_one.values()), 1, w=1 / np.array(list(of_one.values())))
        size = _size(case)
        foretold = {tasks: -(-tasks // 2) * slope + rest + latency + 4 * size / rate for tasks in numbers}
        found[case] = {"one": of_one, "two": of_two, "a": slope, "c": rest, "n": size, "foretold": foretold}
        print(f"{case}: a = {1e3 * slope:.2f} ms, c = {1e3 * rest:.2f} ms, {size:,} meta-parameters", flush=True)
        for tasks in numbers:
            times = of_one[tasks], foretold[tasks], of_two[tasks]
            told = ", ".join(f"{1e3 * seconds:.1f}" for seconds in times)
            print(f"  {tasks} tasks: {told} ms by one, by two as foretold, by two", flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def _size(case: str) -> int:
    return sum(p.numel() for p in CASES[case](ALONE, 1).trainer.method.learner.trained())


if __name__ == "__main__":
    asked = tyro.cli(Options, prog="python -m benchmarks.cost")
    (main if asked.of is None else here)(asked)
