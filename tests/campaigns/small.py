"""The commands of the program on data and settings so small that each takes a second or two, and their folders."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from fewstep.experiments.folder import CONFIG
from fewstep.experiments.pretraining import CONFIG as PRETRAINING
from fewstep.experiments.search import study
from fewstep.recipes import RECIPES, Recipe

FEATURES, PHOTOS, NETWORK, RUN, OTHER_RUN = "features.npz", "photos", "network", "run", "other"
"""What lies in the folder of a campaign's inputs: data, a pre-training, and two runs."""

RECIPES_HERE = ("small-maml", "small-reptile")
"""Recipes of a campaign alone, as ``compare`` takes no settings."""

LEO = shlex.split("""
leo-features-1shot --method.latent-rate 0.1 --method.latents 8 --method.latent-steps 2 --method.finetuning-steps 1
--data.queries 4 --training.tasks 4 --training.validation-tasks 20 --training.log-every 7 --training.compile off
--testing.tasks 40 --threads 1
""")

IMAGES = shlex.split("""
leo-omniglot --data.pretraining.epochs 1 --data.pretraining.network.widths 4 8 --data.pretraining.network.pools 2
--data.pretraining.batch 1024 --data.no-rotations --data.ways 5 --training.steps 60 --training.validate-every 20
--training.checkpoint-every 5 --training.validation-tasks 10 --testing.tasks 20 --training.compile off --threads 1
""")

CONVNET = shlex.split("""
--network convnet --network.widths 4 8 --network.pools 2 --batch 4 --size 16 --validation-tasks 20 --epochs 12
--precision float32 --threads 1
""")


@dataclass(frozen=True)
class Small:
    """A command that leaves something behind.

    Attributes:
        name: of the case.
        words: the command without its ``--out``; ``@NAME`` is an input's place.
        out: what is left behind, a folder or a file.
        kept: a file by which its folder goes on with ``--resume`` instead of the same command.
        fresh: starts with an empty cache, whose filling is a part of it.
        weight: how often it is chosen, against the others.
        ranks: torchrun begins so many processes of it; 0 for the command alone.
    """

    name: str
    words: tuple[str, ...]
    out: str = "out"
    kept: str = ""
    fresh: bool = False
    weight: int = 1
    ranks: int = 0

    @property
    def command(self) -> str:
        """The word after ``fewstep``."""
        return self.words[0]

    def given(self, inputs: Path) -> list[str]:
        """The command as it is begun."""
        words = [str(inputs / word[1:]) if word.startswith("@") else word for word in self.words]
        return [*words, "--out", self.out]

    def again(self, inputs: Path, here: Path) -> list[str]:
        """The command that goes on with what lies in a working directory."""
        if self.kept and (here / self.out / self.kept).exists():
            return [self.command, "--resume", self.out]
        return self.given(inputs)


def _features(command: str, words: str) -> tuple[str, ...]:
    return (command, *LEO, "--data.path", f"@{FEATURES}", *words.split())


_STEPS = "--training.steps {} --training.validate-every 20 --training.checkpoint-every 5"

_LONG = _STEPS.format(60)
_ABLATED = "--seeds 1 --no-prune --workers 1 --rows leo"

SMALL: Mapping[str, Small] = {
    one.name: one
    for one in (
        Small("train", _features("train", _STEPS.format(100)), kept=CONFIG, weight=6),
        Small("train, 2 processes", _features("train", f"{_STEPS.format(40)} --processes 2"), kept=CONFIG, weight=3),
        Small("train, torchrun", _features("train", _STEPS.format(200)), kept=CONFIG, weight=5, ranks=2),
        Small("train, images", ("train", *IMAGES), kept=CONFIG, fresh=True),
        Small("pretrain", ("pretrain", f"@{PHOTOS}", *CONVNET), kept=PRETRAINING, fresh=True, weight=6),
        Small("embed", ("embed", f"@{NETWORK}", f"@{PHOTOS}"), out="embedded.npz", fresh=True, weight=3),
        Small("repeat", _features("repeat", f"{_LONG} --seeds 2 --workers 2"), weight=3),
        Small("search", _features("search", f"{_STEPS.format(40)} --trials 4 --no-prune --workers 1"), weight=10),
        Small("search, 2 workers", _features("search", f"{_LONG} --trials 4 --no-prune --workers 2"), weight=2),
        Small("ablate", _features("ablate", f"{_STEPS.format(20)} --trials 2 {_ABLATED}"), weight=2),
        Small("compare", ("compare", f"@{RUN}", f"@{OTHER_RUN}", "--tasks", "200"), weight=2),
        Small("compare, recipes", ("compare", *RECIPES_HERE, "--tasks", "100"), weight=4),
    )
}


def prepare() -> None:
    """The recipes of a campaign, and a search that takes a killed process for dead after seconds, in this process."""
    for name, base in zip(RECIPES_HERE, ("maml-sinusoid", "reptile-sinusoid"), strict=True):
        config = RECIPES[base]()
        often = {"validate_every": 20, "validation_tasks": 20, "log_every": 7, "checkpoint_every": 5}
        few = min(config.training.tasks, 4)
        training = replace(config.training, steps=40, tasks=few, compile="off", **often)
        small = replace(config, recipe=name, training=training, testing=replace(config.testing, tasks=40), threads=1)
        RECIPES[name] = Recipe(name, lambda small=small: small)  # type: ignore[index,misc]
    study.HEARTBEAT, study.GRACE = 1, 2


def make_data(folder: Path) -> None:
    """Features of 18 classes, and photographs of nine."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    centres = random.normal(size=(18, 1, 16))
    rows = (centres + random.normal(size=(18, 30, 16))).astype(np.float32)
    np.savez(folder / FEATURES, features=rows, split=np.repeat([0, 1, 2], 6).astype(np.uint8))
    np.savez(
        folder / "noise.npz", features=random.permuted(rows, axis=2), split=np.repeat([0, 1, 2], 6).astype(np.uint8)
    )
    shutil.rmtree(folder / PHOTOS, ignore_errors=True)
    for split, classes in {"train": 4, "val": 3, "test": 2}.items():
        for c in range(classes):
            place = folder / PHOTOS / split / f"{split}{c}"
            place.mkdir(parents=True)
            for i in range(12):
                row, column = np.mgrid[:20, :24]
                wave = np.sin((row * (c + 1) + column * (len(split) - c)) / 3 + random.uniform(0, 6))
                pixels = 128 + 60 * wave[..., None] * [1, 0.2 * c, -1] + random.normal(0, 10, (20, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
    few = random.permuted(np.arange(12))
    np.savez(folder / "support.npz", x=rows[-2:, few[:5]].reshape(-1, 16), y=np.repeat(["a", "b"], 5))
    np.savez(folder / "query.npz", x=rows[-2:, few[5:]].reshape(-1, 16))
