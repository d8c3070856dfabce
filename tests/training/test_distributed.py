"""Tasks that several processes share out: real processes, and the numbers of one."""

import multiprocessing
from pathlib import Path

import numpy as np
import torch
from cases import CASES
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from fewstep.algorithms import leo
from fewstep.commands.main import main
from fewstep.core import Differentiate, Vmap, generator
from fewstep.core.ranks import ALONE, Ranks
from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation import evaluate

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["fewstep.training", "fewstep.algorithms", "fewstep.evaluation"])
NAMES = ("leo", "residual-prototypes", "imaml-mlp", "reptile-mlp")


def numbers(ranks: Ranks) -> dict[str, NDArray[np.float64]]:
    """Meta-gradients with noise and regularisers, and an evaluation, all in float64."""
    cases, found = {case.name: case for case in CASES}, {}
    for name in NAMES:
        method, tasks = cases[name].build()
        count = len(tasks.support.weight)
        own = ranks.share(count)
        draws = method.draws(tasks, generator(0, 0, "noise"))
        share = tree_map(lambda tensor, own=own: tensor[own], tasks)
        step = Differentiate(method, Vmap(chunk=1))(share, draws, own.start, count)
        sums = ranks.sum([step.objective, *step.metrics.values(), *step.gradients])
        found[name] = torch.cat([tensor.flatten() for tensor in sums]).numpy()
    random = np.random.default_rng(0)
    rows = torch.from_numpy(random.normal(size=(8, 1, 4)) + random.normal(size=(8, 9, 4))).flatten(0, 1)
    data = Dataset.from_labels(rows, np.repeat(np.arange(8), 9))
    source = EpisodeSampler(data, ways=3, shots=1, queries=None, tasks=4, seed=0, dtype=torch.float64)
    torch.manual_seed(0)
    method = leo(4, latents=2)
    method.learner.double()
    evaluation = evaluate(method, source, 11, batch=3, ranks=ranks)
    assert evaluation.protocol["query rows"] == 24
    return found | {f"score/{name}": scores for name, scores in evaluation.scores.items()}


def share(rank: int, size: int, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=size)
    np.savez(f"{out}-{rank}", **numbers(Ranks(rank, size)))
    torch.distributed.destroy_process_group()


def test_processes_that_share_tasks_come_to_the_numbers_of_one(tmp_path: Path) -> None:
    """Four tasks a meta-step, and eleven of an evaluation: no share is as large as every other."""
    size = 3
    meeting, out = str(tmp_path / "meeting"), str(tmp_path / "found")
    running = [PROCESSES.Process(target=share, args=(rank, size, meeting, out)) for rank in range(size)]
    for process in running:
        process.start()
    expected = numbers(ALONE)
    for process in running:
        process.join(timeout=120)
        assert process.exitcode == 0
    for rank in range(size):
        with np.load(f"{out}-{rank}.npz") as found:
            assert found.files == list(expected)
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-12, err_msg=f"{name}, rank {rank}")


def test_a_training_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """By the command: the same log, checkpoints and test, up to rounding; and it goes on with one process alone."""
    words = [
        *("train", "maml-sinusoid", "--dtype", "float64", "--threads", "1", "--training.compile", "off"),
        *("--training.steps", "8", "--training.validate-every", "4", "--training.validation-tasks", "5"),
        *("--training.checkpoint-every", "2", "--testing.tasks", "5"),
    ]
    for name, processes in (("alone", "1"), ("two", "2")):
        main([*words, "--out", str(tmp_path / name), "--processes", processes])
    for file in ("metrics.csv", "test-5-shot_tasks.csv", "test-10-shot_tasks.csv"):
        alone, two = (np.genfromtxt(tmp_path / name / file, delimiter=",")[1:] for name in ("alone", "two"))
        np.testing.assert_allclose(two, alone, rtol=1e-9)
    (tmp_path / "two" / "last.safetensors").unlink()
    (tmp_path / "two" / "previous.safetensors").rename(tmp_path / "two" / "last.safetensors")
    main(["train", "--resume", str(tmp_path / "two")])
    again = np.genfromtxt(tmp_path / "two" / "metrics.csv", delimiter=",")[1:]
    np.testing.assert_allclose(again, np.genfromtxt(tmp_path / "alone" / "metrics.csv", delimiter=",")[1:], rtol=1e-9)
