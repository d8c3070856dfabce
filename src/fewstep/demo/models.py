"""What the demo runs: the models that ship with the package, or a run in place of one of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fewstep.data.images.files import Reading
from fewstep.estimators.model import TrainedModel
from fewstep.estimators.opened import opened
from fewstep.recipes.problems.functions import SineOrLineTasks

CHARACTERS, FUNCTIONS = "omniglot-leo", "sine-line-leo"
"""Those that ship."""


class Models(NamedTuple):
    """One for each page.

    Attributes:
        characters: names drawings.
        functions: regresses points.
        tasks: that the regression was trained on.
        names: what the pages call them.
    """

    characters: TrainedModel
    functions: TrainedModel
    tasks: SineOrLineTasks
    names: dict[str, str]


def models(run: str | Path | None = None, device: str = "cpu") -> Models:
    """The models of the demo.

    Args:
        run: a trained run's folder, or a model's file, to take the place of the shipped one of its kind.
        device: see :class:`~fewstep.FewShotClassifier`.

    Raises:
        ValueError: for a run that is neither of drawings as Omniglot's nor of sine-or-line tasks with noise.
    """
    of_characters, of_functions = str(CHARACTERS), str(FUNCTIONS)
    if run is not None:
        model = opened(run, device)
        if _of_characters(model):
            of_characters = str(run)
        elif _tasks(model):
            of_functions = str(run)
        else:
            wanted = "28 × 28 drawings, such as Omniglot's, or of sine-or-line tasks with noise"
            raise ValueError(f"{run} cannot be shown: the demo has pages for models of {wanted}")
    characters, functions = opened(of_characters, device), opened(of_functions, device)
    tasks = _tasks(functions)
    assert isinstance(characters, TrainedModel), "it was looked at, or ships"
    assert isinstance(functions, TrainedModel), "likewise"
    assert tasks is not None, "likewise"
    return Models(characters, functions, tasks, {"characters": of_characters, "functions": of_functions})


def _of_characters(model: object) -> bool:
    return isinstance(model, TrainedModel) and not model.regression and model.reading == Reading()


def _tasks(model: object) -> SineOrLineTasks | None:
    """The sine-or-line tasks of a model, if it is of such with noise."""
    origin = model.origin if isinstance(model, TrainedModel) else None
    tasks = None if origin is None else origin.config.data
    return tasks if isinstance(tasks, SineOrLineTasks) and tasks.noise > 0 else None
