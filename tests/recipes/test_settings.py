"""Settings of methods are what the algorithms' signatures and docstrings say, and need no torch to be read."""

import inspect
import re
import shutil
from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
import torch

from fewstep import algorithms, recipes
from fewstep.commands.evaluate import Evaluate
from fewstep.core import Formulation, Reduction
from fewstep.experiments.run import Run
from fewstep.recipes import RECIPES, from_json, to_json
from fewstep.recipes.config import Algorithm
from fewstep.recipes.methods import settings
from fewstep.recipes.methods.adapting import Adapting, MetaLstm, MetaSgd
from fewstep.recipes.methods.leo import JointLeo, LeoNetwork
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.settings import Settings, arguments_of
from fewstep.recipes.problems.problem import Problem
from fewstep.training import Training
from fewstep.training.device import Place

METHODS: Sequence[type[Settings]] = get_args(Algorithm)

ON_PURPOSE = {
    *((kind, "steps") for kind in METHODS if issubclass(kind, Adapting)),  # one where nothing is said
    *((kind, "support_reduction") for kind in METHODS if issubclass(kind, Adapting)),  # of the loss
    (MetaSgd, "rate"),  # a range, and never one number
    (LeoNetwork, "formulation"),  # by its name
}
"""Settings that say otherwise than an argument of their algorithm."""


def function(kind: type[Settings]) -> Any:
    return getattr(algorithms, kind.algorithm)


def documented(name: str, of: Any) -> str:
    """What a docstring says of an argument, in one line."""
    _, _, section = (inspect.getdoc(of) or "").partition("Args:\n")
    (text,) = re.findall(rf"^    {name}: (.*(?:\n      .*)*)", section, re.MULTILINE)
    return " ".join(text.split())


def members(kind: Any) -> set[Any]:
    return set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"\1", text).lower())


@pytest.mark.parametrize("kind", METHODS)
def test_settings_are_what_the_algorithm_says(kind: type[Settings]) -> None:
    signature, hints = inspect.signature(function(kind)), get_type_hints(function(kind), include_extras=True)
    shown = get_type_hints(kind, include_extras=True)
    compared = 0
    for field in fields(kind):  # type: ignore[arg-type]
        argument = signature.parameters.get(field.name)
        if argument is None or field.name == "network" or (kind, field.name) in ON_PURPOSE:
            continue
        plain, *ranges, help_ = get_args(shown[field.name])
        plain = Annotated[plain, *ranges] if ranges else plain
        assert get_origin(shown[field.name]) is Annotated
        assert members(hints[field.name]) - members(plain) <= {Formulation}, field.name
        assert members(plain) <= members(hints[field.name]), field.name
        default = MISSING if argument.default is inspect.Parameter.empty else argument.default
        assert field.default == default, field.name
        assert words(help_.help) == words(documented(field.name, function(kind))), field.name
        compared += 1
    assert compared or kind.algorithm == "protonet"  # which has no arguments


@pytest.mark.parametrize("kind", METHODS)
def test_every_argument_of_an_algorithm_has_its_sentence(kind: type[Settings]) -> None:
    for name, argument in arguments_of(kind.algorithm).items():
        assert argument.help.endswith((".", ")")), name
        assert "`" not in argument.help, name


def test_words_that_are_written_out_for_want_of_torch_are_those_of_the_core() -> None:
    assert get_type_hints(Training)["task_reduction"] == Reduction
    of_a_run = get_type_hints(Run.test)["statistics"]
    for kind in (recipes.Testing, Evaluate):
        assert members(get_type_hints(kind)["statistics"]) == members(of_a_run)


def test_what_says_otherwise_is_still_needed() -> None:
    for kind, name in ON_PURPOSE:
        assert name in {field.name for field in fields(kind)}  # type: ignore[arg-type]


def test_a_new_argument_of_an_algorithm_appears_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in settings.SOURCES.glob("*.py"):
        shutil.copy(file, tmp_path)
    source = (tmp_path / "maml.py").read_text()
    source = source.replace(
        "    clip: Positive | None = None,\n", "    clip: Positive | None = None,\n    depth: int = 3,\n"
    )
    source = source.replace(
        "        first_order: drop", "        depth: how ``deep``,\n            in metres.\n        first_order: drop"
    )
    (tmp_path / "maml.py").write_text(source)
    monkeypatch.setattr(settings, "SOURCES", tmp_path)

    class Deep(Adapting, algorithm="maml", omit=("clip",)):
        """With what it has of old left out."""

    assert [field.name for field in fields(Deep)][-3:] == ["rate", "first_order", "depth"]  # type: ignore[arg-type]
    assert Deep(network=Network("mlp"), rate=0.1).depth == 3
    assert arguments_of("maml")["depth"] == (int, 3, "How deep, in metres.")


def test_settings_are_given_by_name_and_without_mistakes() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'rat'"):
        MetaLstm(network=Network("mlp"), rat=0.1)
    with pytest.raises(TypeError, match="missing"):
        JointLeo()


def test_a_configuration_with_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    text = to_json(RECIPES["maml-sinusoid"]())
    (tmp_path / "config.json").write_text(text.replace('"first_order"', '"second_order"'))
    with pytest.raises(ValueError, match="second_order"):
        from_json(tmp_path / "config.json")


def numbers(recipe: str) -> tuple[Any, Any]:
    """The loss of a recipe whose network predicts deviations, and the numbers that it makes of a row."""
    config = RECIPES[recipe]()
    problem = config.data.open(Place(torch.device("cpu"), torch.float32), print)
    method = replace(config.method, network=replace(config.method.network, deviations=True)).build(problem)
    support = problem.source("val", tasks=2, seed=0).batch(0).support
    return method.learner.loss, method.predict(method.adapt(support), support).detach()


@pytest.mark.parametrize("stem", ["maml", "leo", "leo-bound", "platipus"])
def test_networks_of_a_regression_predict_deviations(stem: str) -> None:
    loss, made = numbers(f"{stem}-sine-line")
    mean, deviation = loss.readout(made)
    assert (made.shape[-1], mean.shape[-1]) == (2, 1)
    target = mean + 0.5
    expected = -torch.distributions.Normal(mean, deviation).log_prob(target).sum(-1)
    torch.testing.assert_close(loss.rows(made.flatten(0, 1), target.flatten(0, 1)), expected.flatten())


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("maml-ensemble-sine-line", "an ensemble averages targets"),
        ("bayesian-maml-sine-line", "noise of their own"),
        ("llama-sine-line", "classification.. or regression.. for the loss"),
        ("maml-oscillations", "this is forecaster with a head, for targets"),
    ],
)
def test_deviations_are_refused_where_nothing_would_read_them(recipe: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        numbers(recipe)


def test_weights_are_of_the_bound() -> None:
    problem = RECIPES["leo-sine-line"]().data.open(Place(torch.device("cpu"), torch.float32), print)
    with pytest.raises(ValueError, match=r"set method.samples to 1 or more"):
        LeoNetwork(weighted=True).build(problem)


@pytest.mark.parametrize("head", [True, False])
def test_classes_and_features_have_no_deviations(head: bool) -> None:
    problem = Problem(lambda **_: None, (4,), 5, {}, regression=not head)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="an mlp that is a whole network of a regression; this is mlp with"):
        Network("mlp", deviations=True).build(problem, head=head)
