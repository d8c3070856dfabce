"""Two processes of one thread beside one process of two: ``python -m benchmarks.processes [--quick] [--out FILE]``.

Contenders take turns, each turn in fresh processes that time their steps after a few to warm up. Both have two cores.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

from fewstep import leo
from fewstep.core.ranks import Ranks
from fewstep.data import Dataset, EpisodeSampler, TaskSource
from fewstep.recipes import RECIPES
from fewstep.training import Trainer, Training
from fewstep.training.distributed import together
from fewstep.training.pretraining import Pretrainer
from fewstep.training.pretraining.presets import preset

Step = Callable[[int], object]
Compile = Literal["on", "off"]
PREDICTED = {"maml-eager": 1.7, "maml-compiled": 1.7, "pretraining": 1.4, "leo-5shot": 1.2}
"""How many times faster two processes are to be; written down before it was measured."""

WARM_UP = 3


@dataclass(frozen=True)
class MetaSteps:
    """Meta-steps of a trainer."""

    trainer: Trainer

    def __call__(self, index: int) -> object:
        return self.trainer.step(*self.trainer.inputs(index))


def maml(ranks: Ranks, compile: Compile, tasks: int) -> MetaSteps:
    """Convolutional MAML on Omniglot, 5-way 1-shot."""
    config = RECIPES["maml-omniglot-5way-1shot"]()
    problem = config.data.open(config.prepare_device(), lambda _: None, None)
    source = problem.source("train", tasks=tasks, seed=0)
    return _trainer(config.method.build(problem), source, Training(steps=1000, compile=compile, executor="loop"), ranks)


def of_leo(ranks: Ranks, compile: Compile, tasks: int) -> MetaSteps:
    """LEO, 5-way 5-shot, tasks of 640 features."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 1, 640)) + random.normal(size=(20, 40, 640))
    data = Dataset.from_labels(torch.from_numpy(rows.astype(np.float32)).flatten(0, 1), np.repeat(np.arange(20), 40))
    source = EpisodeSampler(data, ways=5, shots=5, queries=15, tasks=tasks, seed=0)
    return _trainer(leo(640), source, Training(steps=1000, compile=compile), ranks)


def pretraining(ranks: Ranks, quick: bool) -> Step:
    """A residual network of nine layers on 32 × 32 images, float32."""
    images = torch.randint(0, 256, (640, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Dataset.from_labels(images.numpy(), np.repeat(np.arange(16), 40))
    trainer = Pretrainer(data, preset("resnet-9", 32), seed=0, ranks=ranks)
    trainer.network.train()

    def step(index: int) -> object:
        trainer.state.step = index
        return trainer.advance(*trainer.batches.at(index))

    return step


def _trainer(method: Any, source: TaskSource, options: Training, ranks: Ranks) -> MetaSteps:
    return MetaSteps(Trainer(method, source, options, lambda _: 0.0, folder=Path(tempfile.mkdtemp()), ranks=ranks))


CASES: dict[str, Callable[[Ranks, bool], Step]] = {
    "maml-eager": lambda ranks, quick: maml(ranks, "off", 4 if quick else 32),
    "maml-compiled": lambda ranks, quick: maml(ranks, "off" if quick else "on", 4 if quick else 32),
    "pretraining": pretraining,
    "leo-5shot": lambda ranks, quick: of_leo(ranks, "off" if quick else "on", 12),
}


@dataclass(frozen=True)
class Options:
    """Two processes of one thread beside one process of two."""

    only: tuple[str, ...] = ()
    """Cases to run. Empty: all."""
    quick: bool = False
    """One turn of few steps: whether it runs, not how fast."""
    turns: int = 3
    """Of each contender."""
    steps: int = 10
    """That are timed in a turn."""
    out: Path = Path("processes.json")
    """Gets all times."""
    of: str | None = None
    """One turn of this case, in the processes that are here; for the benchmark itself."""
    threads: int = 1
    """Of each of these."""


def turn(options: Options) -> None:
    """Time the steps of a case in these processes; the first of them prints it."""
    assert options.of is not None
    torch.set_num_threads(options.threads)
    with together("cpu") as ranks:
        step, seconds, sums = CASES[options.of](ranks, options.quick), list[float](), list[float]()
        for index in range(WARM_UP + options.steps):
            ranks.wait()
            began = time.perf_counter()
            step(index)
            ranks.wait()
            seconds.append(time.perf_counter() - began)
        parameters = torch.zeros(1_000_000)
        for _ in range(5):
            began = time.perf_counter()
            ranks.sum([parameters])
            sums.append(time.perf_counter() - began)
        (memory,) = ranks.sum([torch.tensor(_proportional())])
        if ranks.first:
            found = {"seconds": seconds[WARM_UP:], "memory_mb": float(memory), "sum_of_4_mb": min(sums)}
            print(json.dumps(found))


def _proportional() -> float:
    """Memory of this process in MB: pages that several share count by their share."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main(options: Options) -> None:
    """Let the contenders take turns, and print how many times faster two processes are."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for case in CASES:
        if options.only and case not in options.only:
            continue
        found[case] = {"one": [], "two": []}
        for _ in range(1 if options.quick else options.turns):
            for name, launcher, threads in (("one", (), 2), ("two", TORCHRUN, 1)):
                words = [*launcher, "-m", "benchmarks.processes", "--of", case, "--threads", str(threads)]
                words += ["--steps", "2", "--quick"] if options.quick else ["--steps", str(options.steps)]
                done = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
                found[case][name].append(json.loads(done.stdout.splitlines()[-1]))
            options.out.write_text(json.dumps(found, indent=1) + "\n")
        one, two = (_median(found[case][name]) for name in ("one", "two"))
        memory = max(t["memory_mb"] for t in found[case]["two"]) / max(t["memory_mb"] for t in found[case]["one"])
        print(
            f"{case}: {one / two:.2f} times faster (predicted: {PREDICTED[case]}); {1000 * one:.1f} and "
            f"{1000 * two:.1f} ms a step; memory of both {memory:.2f} times that of one",
            flush=True,
        )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def _median(turns: list[dict[str, list[float]]]) -> float:
    return statistics.median(second for turn in turns for second in turn["seconds"])


if __name__ == "__main__":
    asked = tyro.cli(Options, prog="python -m benchmarks.processes")
    (main if asked.of is None else turn)(asked)
