"""Results in a run's folder: the names that they take, and the meta-parameters that they are of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.data.storage.files import begins, read_json, sealed
from fewstep.data.storage.tensors import contents_digest
from fewstep.experiments.begun import mark_of
from fewstep.experiments.folder import CHOICES, CONFIG, ENVIRONMENT, PROBLEM
from fewstep.recipes import Config
from fewstep.training.checkpoint import BEST, read_weights

TEST = "test"
"""The name of a run's own test."""


def tests_of(config: Config) -> dict[str, int | None]:
    """The tests of a run, by the name of their files, and their shots."""
    return {TEST if shots is None else f"{TEST}-{shots}-shot": shots for shots in config.testing.shots or (None,)}


_OF = "of"
_OWN_NAMES = ("trial", "details", *(Path(file).stem for file in (CONFIG, PROBLEM, ENVIRONMENT, CHOICES)))


def check_name(name: str, new_in: Path | None = None) -> None:
    """Refuse a name for an evaluation that is none, or that of another file of a run.

    Args:
        name: written as ``NAME_tasks.csv`` and ``NAME.json``.
        new_in: a folder where it must be new, and no name of the run's own tests. Scores of tasks alone are what an
            evaluation has left that was killed, and are in nobody's way.

    Raises:
        ValueError: saying which file is in its way.
    """
    if not re.fullmatch(r"\w[\w .+=-]{0,99}", name):
        raise ValueError(
            f"an evaluation is written to NAME.json in the run's folder: {name!r} is no NAME of letters, digits, "
            "spaces and . + = - _, up to 100 of them and no sign first."
        )
    plain = name.casefold()
    if plain in _OWN_NAMES or (new_in is not None and re.fullmatch(f"{TEST}(-.*-shot)?", plain)):
        raise ValueError(f"{name}.json is of the run itself: choose another name for this evaluation.")
    if new_in is None:
        return
    result, tasks = new_in / f"{name}.json", new_in / f"{name}_tasks.csv"
    if result.exists() or (tasks.exists() and not begins(tasks, "task,")):
        there = result if result.exists() else tasks
        raise ValueError(f"{there} is there already: choose another name for this evaluation.")


def marked(folder: Path, result: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """A result with what it is of: the run's settings and data, and the meta-parameters as they stand; sealed."""
    return sealed({**result, _OF: {"run": mark_of(folder), "weights": _digest(weights)}})


def own_result(folder: Path, file: str, note: Callable[[str], None]) -> dict[str, Any]:
    """What a file of results holds; nothing where it is not there, or of other meta-parameters than the run's best.

    Older results do not say what they are of, and are taken as they are.

    Args:
        folder: of the run.
        file: of results.
        note: is told that a file was left out.

    Raises:
        ValueError: when a file is damaged.
    """
    result = read_json(folder / file)
    of = result.get(_OF)
    if not isinstance(of, dict):
        return result
    here = {"run": mark_of(folder)}
    if (folder / BEST).exists():
        here["weights"] = _digest(read_weights(folder / BEST))
    if others := [name for name in here if of.get(name) != here[name]]:
        whose = "another run, or of other settings or data" if "run" in others else f"other meta-parameters than {BEST}"
        note(f"{folder / file} is of {whose}: it is left out")
        return {}
    return result


def _digest(weights: Mapping[str, Tensor]) -> str:
    return contents_digest({name: tensor.detach().cpu() for name, tensor in weights.items()}, {})
