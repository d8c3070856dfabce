"""Tasks that several processes share out: the numbers of one, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CASES
from numpy.typing import NDArray
from torch.utils._pytree import tree_map

from fewstep.algorithms import reptile
from fewstep.commands.main import main
from fewstep.core import Differentiate, Loop, Vmap, generator
from fewstep.core.ranks import RankLost, Ranks
from fewstep.data import Dataset, EpisodeSampler
from fewstep.networks import mlp
from fewstep.training import Trainer, Training, distributed
from fewstep.training.distributed import together

SOME = ("leo", "residual-prototypes", "imaml-mlp", "reptile-mlp", "maml-mlp-norm")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in SOME], ids=lambda case: case.name)
def test_meta_gradients_of_shares_sum_to_that_of_the_batch(case) -> None:
    """Four tasks in three shares, so that none is as large as every other; with noise and regularisers."""
    method, tasks = case.build()
    count = len(tasks.support.weight)

    def step(own: slice, executor: Vmap | Loop) -> list[torch.Tensor]:
        share = tree_map(lambda tensor: tensor[own], tasks)
        draws = method.draws(share, generator(0, 0, "noise"), count)
        found = Differentiate(method, executor)(share, draws, own.start, count)
        return [found.objective, *found.metrics.values(), *found.gradients]

    shares = [step(Ranks(rank, 3).share(count), Vmap(chunk=1) if rank else Loop()) for rank in range(3)]
    for parts, whole in zip(zip(*shares, strict=True), step(slice(0, count), Vmap()), strict=True):
        torch.testing.assert_close(sum(parts), whole, rtol=1e-9, atol=1e-12)


def numbers(folder: Path) -> list[NDArray[np.float64]]:
    """What a run came to: its log, and its scores task by task."""
    files = "metrics.csv", "test-5-shot_tasks.csv", "test-10-shot_tasks.csv"
    return [np.genfromtxt(folder / file, delimiter=",")[1:] for file in files]


def lives(process: str) -> bool:
    """Whether it is there, and not only its status, for whoever has adopted it."""
    try:
        return "State:\tZ" not in Path("/proc", process, "status").read_text()
    except OSError:
        return False


ALONE = [sys.executable, "-m", "fewstep"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *ALONE[1:]]


def after_a_checkpoint(
    folder: Path, words: list[str], number: int, rank: int | None = None, launcher: list[str] = ALONE
) -> tuple[int, str]:
    """Run a command, and send a signal to it, or to one of its processes, when the folder's checkpoint is new."""
    last = folder / "last.safetensors"
    before = last.stat().st_mtime_ns if last.exists() else 0
    command = subprocess.Popen([*launcher, *words], stdout=-1, stderr=subprocess.STDOUT, text=True)
    while command.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
        time.sleep(0.01)
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(command.pid if rank is None else int(children[rank]), number)
    told, _ = command.communicate(timeout=60)
    until = time.monotonic() + 10  # the pipe that was read ends a moment before the process that wrote to it
    while any(map(lives, children)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(lives, children)), "a process outlived its command"
    return command.returncode, " ".join(told.split())


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a command as Linux shows them")
def test_a_training_of_two_processes_is_that_of_one_whatever_happens(tmp_path: Path) -> None:
    """Stopped, one killed, begun by torchrun and one killed again: what one process comes to that was left alone."""
    words = [
        *("train", "maml-sinusoid", "--dtype", "float64", "--threads", "1", "--training.compile", "off"),
        *("--training.steps", "90", "--training.validate-every", "30", "--training.validation-tasks", "5"),
        *("--training.checkpoint-every", "5", "--testing.tasks", "5"),
    ]
    alone, two = tmp_path / "alone", tmp_path / "two"
    main([*words, "--out", str(alone)])
    again = f"continue with: fewstep train --resume {two}"
    status, told = after_a_checkpoint(two, [*words, "--out", str(two), "--processes", "2"], signal.SIGTERM)
    assert (status, again in told) == (143, True)
    status, told = after_a_checkpoint(two, ["train", "--resume", str(two)], signal.SIGKILL, 1)
    assert status == 2
    assert "process 1 of 2, counted from 0, was killed by SIGKILL (was memory short?)" in told
    assert again in told
    restarting = [*TORCHRUN[:3], "--max-restarts", "1", *TORCHRUN[3:]]
    status, told = after_a_checkpoint(two, ["train", "--resume", str(two)], signal.SIGKILL, 1, restarting)
    assert (status, "exitcode: -9" in told) == (0, True)
    for of_two, of_one in zip(numbers(two), numbers(alone), strict=True):
        np.testing.assert_allclose(of_two, of_one, rtol=1e-9)
    facts = json.loads((two / "environment.json").read_text())
    assert [one["processes"] for one in (facts, *facts["continued"])] == [2, 2, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a command as Linux shows them")
def test_processes_end_with_their_torchrun(tmp_path: Path) -> None:
    words = ["train", "maml-sinusoid", "--training.steps", "100000", "--training.compile", "off"]
    words += ["--training.checkpoint-every", "5", "--training.validate-every", "100000"]
    status, _ = after_a_checkpoint(tmp_path, [*words, "--out", str(tmp_path)], signal.SIGKILL, launcher=TORCHRUN)
    assert status == -signal.SIGKILL


def test_processes_meet_in_a_room_that_no_earlier_ones_have_been_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun in any order, in a store in which there are the words of others: of dead ones, after a restart."""
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=10))
    store = torch.distributed.HashStore()
    rooms = set()
    for late in (0, 1, 2):

        def meet(rank: int, last: int = late) -> str:
            time.sleep(0.1 * (rank == last))
            return distributed._room(store, rank, 3)

        with ThreadPoolExecutor(3) as pool:
            (room,) = set(pool.map(meet, range(3)))
        rooms.add(room)
    assert len(rooms) == 3


@pytest.mark.parametrize("alive", [False, True], ids=["its torchrun is gone", "another has not come"])
def test_a_process_that_meets_nobody_says_so(alive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = agent.port
    if not alive:
        del agent
    here = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in (here | {"TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=0.5))
    with pytest.raises(RankLost, match="others had not" if alive else "do not meet"), together("cpu"):
        pass


def test_processes_that_cannot_share_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("RANK", "0"),
        ("LOCAL_RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", ""),
        ("MASTER_PORT", "0"),
    ):
        monkeypatch.setenv(name, value)
    out = str(tmp_path / "run")
    for words, why in (
        (("train", "maml-sinusoid", "--out", out, "--processes", "3"), "torchrun has begun 2 processes"),
        (("repeat", "maml-sinusoid", "--seeds", "2", "--out", out), "give fewstep repeat without it"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert why in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "maml-sinusoid", "--out", out])
    assert "WORLD_SIZE is 'two', and no number of processes" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_tasks_that_cannot_be_shared_out_are_refused(tmp_path: Path) -> None:
    """More processes than tasks, and tasks of which one begins with what another has left."""
    data = Dataset.from_labels(torch.randn(30, 6), np.repeat(np.arange(3), 10))
    source = EpisodeSampler(data, ways=3, shots=5, queries=2, tasks=2, seed=0)
    method = reptile(mlp((6, 5, 3)), rate=0.1, steps=2, batch=5, rule="adam", carried=True)
    options = Training(steps=2, executor="loop", compile="off")
    with pytest.raises(ValueError, match="3 processes cannot share 2 tasks"):
        Trainer(method, source, options, lambda _: 0.0, folder=tmp_path, ranks=Ranks(0, 3))
    trainer = Trainer(method, source, options, lambda _: 0.0, folder=tmp_path, ranks=Ranks(0, 2))
    with pytest.raises(ValueError, match="each goes on from what the one before it has left"):
        trainer.advance()
