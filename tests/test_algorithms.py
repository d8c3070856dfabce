"""Arguments of the algorithms: what none of them takes is refused by name, before torch meets it."""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from torch import nn

from fewstep import algorithms
from fewstep.core import Method
from fewstep.core.ranges import Whole, Within
from fewstep.networks import Ensemble, Generated, Particle, mlp

ANY: dict[str, Any] = {
    "features": 8,
    "inputs": 3,
    "outputs": 2,
    "centre": 8,
    "rate": 0.1,
    "steps": 1,
    "prox": 1.0,
    "module": nn.Identity(),
    "ways": 5,
    "key": nn.Identity(),
    "concepts": nn.Identity(),
    "weights": 8,
}


def made(name: str, **others: Any) -> Method:
    """A method with arguments that it takes, but for others."""
    function: Callable[..., Method] = getattr(algorithms, name)
    parameters = inspect.signature(function).parameters
    given = {one: ANY[one] for one, p in parameters.items() if one in ANY and p.default is inspect.Parameter.empty}
    if "network" in parameters:
        generated = name in ("protonet", "protomaml", "r2d2")
        given["network"] = (
            nn.Sequential(nn.Linear(3, 4), Generated()) if generated else mlp((3, 4, 2), context=int(name == "cavia"))
        )
    if name == "bayesian_maml":
        given["network"] = Ensemble(lambda: Particle(mlp((3, 2)), 0.1), 2)
    return function(**given | others)


def wrong(kind: Any) -> Iterator[Any]:
    """Values that a type does not take."""
    for metadata in getattr(kind, "__metadata__", ()):
        if isinstance(metadata, Whole):
            yield from (metadata.low - 1, 2.5)
        if isinstance(metadata, Within):
            yield from (metadata.low if metadata.above else metadata.low - 1, math.inf, math.nan)
            if math.isfinite(metadata.high):
                yield metadata.high if metadata.below else metadata.high + 1
    if get_origin(kind) is Literal:
        yield "something else"
    for inner in () if get_origin(kind) is Literal else get_args(kind):
        yield from ([value] for value in wrong(inner)) if get_origin(kind) is tuple else wrong(inner)


@pytest.mark.parametrize("name", algorithms.__all__)
def test_an_algorithm_names_the_argument_that_it_does_not_take(name: str) -> None:
    made(name)
    function = getattr(algorithms, name)
    hints = get_type_hints(getattr(function, "func", function), include_extras=True)
    refused = 0
    for argument in inspect.signature(function).parameters:
        for value in wrong(hints[argument]):
            with pytest.raises(ValueError, match=rf"^{argument} must be .*got"):
                made(name, **{argument: value})
            refused += 1
    numbers = [one for one, kind in hints.items() if kind in (int, float) and one != "return"]
    assert not numbers, f"{numbers} take any number"
    assert refused or name == "protonet"
