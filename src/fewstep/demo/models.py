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
        noise: of the regression's tasks.
        names: what the pages call them.
    """

    characters: TrainedModel
    functions: TrainedModel
    noise: float
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
        elif _noise(model):
            of_functions = str(run)
        else:
            wanted = "28 × 28 drawings, such as Omniglot's, or of sine-or-line tasks with noise"
            raise ValueError(f"{run} cannot be shown: the demo has pages for models of {wanted}")
    characters, functions = opened(of_characters, device), opened(of_functions, device)
    assert isinstance(characters, TrainedModel), "it was looked at, or ships"
    assert isinstance(functions, TrainedModel), "likewise"
    return Models(characters, functions, _noise(functions), {"characters": of_characters, "functions": of_functions})


def _of_characters(model: object) -> bool:
    return isinstance(model, TrainedModel) and not model.regression and model.reading == Reading()


def _noise(model: object) -> float:
    """Of sine-or-line tasks; zero for any other."""
    origin = model.origin if isinstance(model, TrainedModel) else None
    return origin.config.data.noise if origin is not None and isinstance(origin.config.data, SineOrLineTasks) else 0.0
