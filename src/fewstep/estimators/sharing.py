"""Models and fitted estimators in one file each: arrays, and words about them. Reading one runs nothing of it.

What is in it: see :mod:`fewstep.experiments.model_file`.
"""

from __future__ import annotations

import copyreg
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fewstep.core.ranges import as_given
from fewstep.core.types import Statistics
from fewstep.data import TaskSource
from fewstep.data.images.files import Reading
from fewstep.data.storage.reading import reading
from fewstep.data.storage.tensors import read_metadata, read_tensors
from fewstep.estimators.model import Model, Origin, SimpleModel, TrainedModel
from fewstep.evaluation.inner_loop import set_inner_loop
from fewstep.evaluation.simple import Simple
from fewstep.experiments.model_file import FORMAT, Described, network_of, not_written, trained_model, write_model
from fewstep.recipes.config import from_text
from fewstep.recipes.problems.problem import Problem
from fewstep.training.checkpoint import restore
from fewstep.training.device import device_of_trained, prepare_device
from fewstep.training.pretraining import FeatureExtractor

logger = logging.getLogger("fewstep")

Note = Callable[[str], None]


def assembled(
    origin: Origin,
    load: Callable[[torch.nn.Module], object],
    extractor: FeatureExtractor | None,
    *,
    device: str = "auto",
    note: Note = logger.warning,
    temperature: float = 1.0,
) -> TrainedModel:
    """A trained model, of its configuration and its numbers; neither training data nor a cache is needed.

    Args:
        origin: where it comes from.
        load: puts the numbers into a learner.
        extractor: of images, where it was trained on features of them.
        device: see :func:`~fewstep.training.device.device_of_trained`.
        note: told, in a line, when it was trained on what is not here.
        temperature: of probabilities.
    """
    config, shape = origin.config, origin.problem
    inputs, regression = tuple(shape["inputs"]), shape["regression"]
    problem = Problem(_no_data, inputs, shape["outputs"], {}, extractor, regression=regression)
    place = prepare_device(device_of_trained(config.device, device, note), config.dtype)
    with as_given(), torch.random.fork_rng(devices=[]):  # what is drawn is overwritten
        method = config.method.build(problem)
    method.learner.to(place.device, place.dtype)
    load(method.learner)
    set_inner_loop(method.learner, **config.at_test())
    # A test may be transductive; a prediction is only where its user says so.
    tested = config.testing.statistics
    statistics: Statistics = tested if tested in ("joined", "running") else "support"
    reading = _reading(problem)
    if extractor is not None:
        reading = extractor.to(place.device).reading or Reading()
    return TrainedModel(method, extractor, shape["normalise"], statistics, reading, False, temperature, origin)


def _reading(problem: Problem) -> Reading | None:
    """How files become the images that a method takes; None where it takes features or numbers."""
    if problem.of_features or problem.regression:
        return None
    channels, size, _ = problem.inputs
    grey = channels == 1  # Omniglot's
    return Reading(size, grey, invert=grey)


def _no_data(*_: Any, **__: Any) -> TaskSource:
    raise AssertionError("a loaded run has no tasks")


# -- files -------------------------------------------------------------------------------------------------------------


def write(
    path: str | Path, model: Model, more: Mapping[str, Tensor] | None = None, words: Mapping[str, Any] | None = None
) -> Path:
    """Write a model's file, whole or not at all.

    Args:
        path: of the file; ``.fewstep.safetensors`` is appended where it has no such suffix.
        model: trained, with an origin; or simple.
        more: tensors beside its own.
        words: what else is to be said, in JSON's types.

    Returns:
        The file.

    Raises:
        ValueError: for a model that no configuration describes.
        OSError: if the file cannot be written.
    """
    tensors, about = _described(model)
    return write_model(path, (tensors | dict(more or {}), about), words or {})


def _described(model: Model) -> Described:
    if isinstance(model, SimpleModel):
        simple, centre = model.simple, model.simple.centre
        told: dict[str, Any] = {"kind": "simple", "rule": simple.rule, "penalty": simple.penalty}
        told["normalise"] = simple.normalise
        tensors, told["extractor"] = network_of(model.extractor)
        told["facts"] = dict(model.facts)
        if isinstance(centre, Tensor):
            return tensors | {"centre": centre}, told
        return tensors, told | {"centre": centre}
    assert isinstance(model, TrainedModel), "models are simple or trained"
    if (origin := model.origin) is None:
        raise not_written("it has no configuration")
    learner = model.method.learner.state_dict()
    return trained_model(origin.config, origin.problem, origin.facts, learner, model.extractor, model.temperature)


def read(
    path: str | Path, device: str = "auto", note: Note = logger.warning
) -> tuple[Model, dict[str, Tensor], dict[str, Any]]:
    """The model of a file, its other tensors, and all that it says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, none of a model, or of a newer version; or there is no such device.
    """
    with reading(path, "holds no model of fewstep", "fetch or export it again"):
        tensors, metadata = read_tensors(path)
        told = dict(json.loads(metadata["fewstep"]))
        if told["format"] > FORMAT:
            raise ValueError(f"it is of format {told['format']}, written by fewstep {told['fewstep']}: install that")
        model = _rebuilt(tensors, told, device, note)
    return model, tensors, told


def told_by(path: str | Path) -> dict[str, Any]:
    """What a model's file says, without reading its numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no model.
    """
    with reading(path, "holds no model of fewstep", "fetch or export it again"):
        return dict(json.loads(read_metadata(path)["fewstep"]))


def _rebuilt(
    tensors: Mapping[str, Tensor], told: Mapping[str, Any], device: str = "auto", note: Note = logger.warning
) -> Model:
    network = None
    if (settings := told.get("extractor")) is not None:
        network = FeatureExtractor.rebuilt(_below(tensors, "extractor/"), settings)
    if told["kind"] == "simple":
        centre = tensors.get("centre", told.get("centre"))
        simple = Simple(told["rule"], float(told["penalty"]), centre, bool(told.get("normalise", False)))
        reading = None if network is None else network.reading or Reading()
        return SimpleModel(simple, told["facts"], network, reading)
    with as_given():
        config = from_text(json.dumps(told["config"]), "its configuration")
    origin = Origin(config, told["problem"], told["facts"])
    weights = _below(tensors, "learner/")
    return assembled(
        origin,
        lambda learner: restore(learner, weights, "its numbers"),
        network,
        device=device,
        note=note,
        temperature=told["temperature"],
    )


def _below(tensors: Mapping[str, Tensor], stem: str) -> dict[str, Tensor]:
    return {name.removeprefix(stem): tensor for name, tensor in tensors.items() if name.startswith(stem)}


# -- pickles -----------------------------------------------------------------------------------------------------------


def _reduced(model: TrainedModel) -> Any:
    """A trained model in a pickle: arrays and words where a configuration describes it, else whatever it holds."""
    try:
        tensors, about = _described(model)
    except ValueError:
        return object.__reduce_ex__(model, 4)
    return _unpickled, ({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, about)


def _unpickled(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> Model:
    return _rebuilt({name: torch.from_numpy(array) for name, array in arrays.items()}, about)


copyreg.pickle(TrainedModel, _reduced)
