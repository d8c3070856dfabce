"""The folder of an experiment: what is in it, and how it is found again."""

from __future__ import annotations

from pathlib import Path

from fewstep.recipes import Config, from_json


def best_checkpoint(folder: Path) -> Path:
    """The file of the best meta-parameters.

    Raises:
        ValueError: when there is none yet.
    """
    best = folder / "best.safetensors"
    if not best.exists():
        raise ValueError(f"{folder} has no best.safetensors: training has not reached its first validation yet.")
    return best


def stored_config(folder: Path) -> Config:
    """The configuration of a run.

    Raises:
        ValueError: when the folder is not a run.
    """
    if not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} is not a run of fewstep: it has no config.json. Give the folder that `train` printed."
        )
    return from_json(folder / "config.json")
