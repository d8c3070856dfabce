"""A small but complete pre-training in a process of its own, for the resume tests to kill.

    python pretraining_driver.py FOLDER CASE [--kill-in-write N]

Augmentation, the optimiser's moments, running statistics, validation, early stopping and checkpoints all take part, and
dropout where the case has it. With ``--kill-in-write N`` the process kills itself in the middle of its N-th checkpoint
write: after the temporary file, before the rename.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from pictures import SMALL, everything, pictures

from fewstep.training.checkpoint import State
from fewstep.training.pretraining import Architecture, Pretrainer, Pretraining, Standardised

sys.path.append(str(Path(__file__).parents[1]))
from killing import kill_in_write

CASES: dict[str, tuple[Pretraining, int]] = {
    "sgd": (replace(SMALL, optimiser="sgd", schedule="steps", rate=0.05, weight_decay=5e-4, epochs=2), 0),
    "adamw": (replace(SMALL, network=Architecture("resnet9", (4, 4, 6, 8)), epochs=2), 0),
    "dropout": (
        replace(SMALL, network=Architecture("wrn", depth=10, factor=1, dropout=0.5, strides=(2, 2, 2)), epochs=2),
        0,
    ),
    "stopping": (replace(SMALL, epochs=40), 2),
    "long": (replace(SMALL, epochs=16), 12),
}
"""Settings and patience of runs of five steps an epoch."""


def accuracy(network: Standardised) -> dict[str, float]:
    held_out = pictures(seed=1)
    named = network(everything(held_out)).argmax(1)
    return {"accuracy": (named == torch.from_numpy(held_out.labels)).float().mean().item()}


def pretrainer(folder: Path | None, case: str, seconds: float = 0.0) -> Pretrainer:
    options, patience = CASES[case]
    return Pretrainer(
        pictures(), options, seed=3, folder=folder, validate=accuracy, patience=patience, checkpoint_seconds=seconds
    )


def note(state: State, _: dict[str, float]) -> None:
    print("step", state.step, flush=True)
    # On a busy machine whoever reads this may be slow, and is to find a run that is not at its end.
    time.sleep(0.3 if state.step > 20 else 0.0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--kill-in-write" in sys.argv:
        kill_in_write(int(sys.argv[-1]))
    run = pretrainer(Path(sys.argv[1]), sys.argv[2])
    run.run(note)
    print("finished", flush=True)
