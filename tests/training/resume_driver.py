"""A small but complete LEO meta-training in a process of its own, for the resume tests to kill.

Noise, dropout, Adam, clipping, decay, auxiliary losses, a running mean, validation, early stopping and checkpoints all
take part.
"""

from dataclasses import replace
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch
from killing import kill_in_write

from fewstep.algorithms import leo
from fewstep.core import Auxiliary, Batch, Decay, Learner, generator
from fewstep.core.loss import cross_entropy
from fewstep.data import Dataset, EpisodeSampler, RandomRows, l2_normalise
from fewstep.evaluation import evaluate
from fewstep.training import Trainer, Training

OPTIONS = Training(
    steps=200,
    tasks=4,
    rate=3e-2,
    clip_value=0.1,
    clip_norm=0.1,
    validate_every=10,
    validation_tasks=20,
    patience=3,
    log_every=7,
    checkpoint_every=5,
    average=0.9,
    keep=3,
)


def trainer(folder: Path, options: Training = OPTIONS, auxiliaries: bool = False) -> Trainer:
    torch.set_num_threads(1)
    torch.manual_seed(generator(0, 0, "initialisation").initial_seed())
    random = np.random.default_rng(0)
    centres = random.normal(size=(20, 1, 16)).astype(np.float32)
    rows = (centres + random.normal(size=(20, 10, 16)).astype(np.float32)).reshape(200, 16)
    data = Dataset.from_labels(l2_normalise(torch.from_numpy(rows)), np.repeat(np.arange(20), 10))
    method = leo(16, latents=4, kl_weight=0.1, encoder_penalty_weight=1e-3, orthogonality_weight=0.1)
    named = [torch.nn.Linear(4, 20), torch.nn.Linear(4, 20)]

    def naming(learner: Learner, batch: Batch, by: int = 0) -> torch.Tensor:
        return cross_entropy(named[by](learner.start.encoder(batch.x)), batch.y).mean()  # type: ignore[union-attr,operator]

    stepping = Auxiliary(naming, RandomRows(data, 8), None, lambda done: 0.9 ** int(1 + 20 * done), named[0], "step")
    added = Auxiliary(partial(naming, by=1), RandomRows(data, 8), 0.01, lambda done: 0.5, named[1], "term")
    decays = [Decay(1.0, ["start.decoder.weight"], "initial")]
    method = replace(method, decays=decays, auxiliaries=[stepping, added] if auxiliaries else [])
    train = EpisodeSampler(data, ways=5, shots=1, queries=3, tasks=options.tasks, seed=0)
    held_out = EpisodeSampler(data, ways=5, shots=1, queries=3, tasks=options.validation_tasks, seed=1)
    score = lambda m: evaluate(m, held_out, options.validation_tasks, baselines=False).interval().mean  # noqa: E731
    return Trainer(method, train, options, score, folder=folder)


def train(folder: Path, started: Event, write: int = 0) -> None:
    """Train where the folder stands, and set ``started`` when it begins.

    With a ``write`` the process kills itself in the middle of its checkpoint write of that number: after the temporary
    file, before the rename.
    """
    if write:
        kill_in_write(write)
    run = trainer(folder, auxiliaries=True)
    started.set()
    run.run()
