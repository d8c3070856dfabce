"""A model as one file of arrays and words: what is written; ``estimators.sharing`` reads it.

A ``NAME.fewstep.safetensors`` file holds tensors, ``learner/…`` and ``extractor/…`` of a trained model or ``centre`` of
a simple one, ``support/…`` where an estimator was fitted, and a digest of them. Its metadata say in JSON what they
belong to: a configuration, which can name nothing but this package's own methods and their settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor

from fewstep.data.storage.files import read_json
from fewstep.data.storage.tensors import read_metadata, write_tensors
from fewstep.experiments.begun import unfinished
from fewstep.experiments.folder import CHOICES, ENVIRONMENT, stored_config
from fewstep.experiments.results import own_result, tests_of
from fewstep.recipes import Config, to_json
from fewstep.training.pretraining import FeatureExtractor

SUFFIX = ".fewstep.safetensors"
"""Of a model's file."""

FORMAT = 1

Described: TypeAlias = tuple[dict[str, Tensor], dict[str, Any]]
"""The tensors of a model, and what is said of them in JSON's types."""


def trained_model(
    config: Config,
    problem: Mapping[str, Any],
    facts: Mapping[str, Any],
    learner: Mapping[str, Tensor],
    extractor: Callable[[Tensor], Tensor] | None,
    temperature: float = 1.0,
) -> Described:
    """Describe a trained model.

    Args:
        config: of its run.
        problem: the shape of its tasks, as a run's ``problem.json`` has it.
        facts: what there is to know of it.
        learner: its meta-parameters by name.
        extractor: of its features, where they are of images.
        temperature: of probabilities.

    Raises:
        ValueError: for an extractor that is a function of the user's own.
    """
    tensors, network = network_of(extractor)
    tensors |= {f"learner/{name}": tensor.clone() for name, tensor in learner.items()}
    about = {"kind": "trained", "extractor": network, "config": json.loads(to_json(config)), "problem": dict(problem)}
    return tensors, about | {"temperature": temperature, "facts": dict(facts)}


def network_of(extractor: Callable[[Tensor], Tensor] | None) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    """The tensors of a model's extractor, and what else it takes to make it again.

    Raises:
        ValueError: for a function of the user's own.
    """
    if extractor is None:
        return {}, None
    if not isinstance(extractor, FeatureExtractor):
        raise not_written("its extractor is a function of your own")
    return {f"extractor/{name}": tensor for name, tensor in extractor.needed().items()}, extractor.metadata()


def not_written(why: str) -> ValueError:
    """The error of a model that no file can hold."""
    return ValueError(
        f"this model cannot be written to a file: {why}, and a file holds no code. Train it by a recipe (fewstep "
        "train), whose run can; or keep your method's state_dict."
    )


def write_model(path: str | Path, described: Described, words: Mapping[str, Any]) -> Path:
    """Write a model's file, whole or not at all.

    Args:
        path: of the file; ``.fewstep.safetensors`` is appended where it has no such suffix. A model there is replaced.
        described: the model.
        words: what else is to be said, in JSON's types.

    Returns:
        The file.

    Raises:
        ValueError: for a file that holds something else, such as a checkpoint or features.
        OSError: if the file cannot be written.
    """
    tensors, about = described
    told = {"format": FORMAT, "fewstep": version("fewstep"), **about, **words}
    path = model_place(path)
    if path.exists() and not _is_model(path):
        raise ValueError(f"{path} is there, and holds no model of fewstep: choose another name, or remove it.")
    write_tensors(path, tensors, {"fewstep": json.dumps(told, ensure_ascii=False)})
    return path


def model_place(path: str | Path) -> Path:
    """Where a model is written to that is asked for by this name."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else path.with_name(path.name + SUFFIX)


def _is_model(path: Path) -> bool:
    with suppress(OSError, KeyError, TypeError, ValueError, RecursionError):
        return "format" in json.loads(read_metadata(path)["fewstep"])
    return False


def facts_of(folder: Path, note: Callable[[str], None]) -> Mapping[str, Any]:
    """What there is to know of a run: its test with its protocol, whether its training had ended, and its versions.

    Args:
        folder: of the run.
        note: is told what was left out, as it is of other meta-parameters.
    """
    tests = [test for file in tests_files(folder) if (test := own_result(folder, file, note))]
    facts: dict[str, Any] = {"test": tests[:1] and tests[0], "more tests": tests[1:]}
    facts |= {"choices": own_result(folder, CHOICES, note), "unfinished": unfinished(folder)}
    versions = read_json(folder / ENVIRONMENT).get("versions", {})
    return {name: value for name, value in facts.items() if value} | {"versions": versions}


def tests_files(folder: Path) -> list[str]:
    """The files of a run's own tests."""
    return [f"{name}.json" for name in tests_of(stored_config(folder))]
