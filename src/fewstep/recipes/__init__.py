"""Recipes: complete typed configurations by name, rows of published tables where there are such."""

from collections.abc import Callable, Iterator, Mapping

from fewstep.recipes import omniglot, sinusoid
from fewstep.recipes.config import Config, Testing, from_json, to_json
from fewstep.recipes.published import MAML_FC, OMNIGLOT, Published
from fewstep.recipes.recipe import Recipe

Settings = tuple[tuple[int, int], ...]
_ALL: Settings = ((5, 1), (5, 5), (20, 1), (20, 5))


def _single(make: Callable[[], Config]) -> Recipe:
    name = make.__name__.replace("_", "-")
    return Recipe(name, make, (), name)


def _omniglot(
    make: Callable[[int, int], Config],
    settings: Settings = _ALL,
    published: Mapping[tuple[int, int], Published] | None = None,
) -> Iterator[Recipe]:
    """One recipe for every number of ways and shots."""
    method = make.__name__.replace("_", "-")
    known = OMNIGLOT.get(method, {}) if published is None else published
    for ways, shots in settings:
        name = f"{method}-omniglot-{ways}way-{shots}shot"
        yield Recipe(name, make, (ways, shots), f"{method}-omniglot", tuple(filter(None, [known.get((ways, shots))])))


_RECIPES = (
    _single(omniglot.leo_omniglot),
    _single(omniglot.leo_omniglot_5way),
    *_omniglot(omniglot.maml),
    *_omniglot(omniglot.maml_fc, ((5, 1), (5, 5)), MAML_FC),
    *_omniglot(omniglot.fomaml),
    *_omniglot(omniglot.anil),
    *_omniglot(omniglot.meta_sgd),
    *_omniglot(omniglot.meta_curvature),
    *_omniglot(omniglot.meta_lstm, ((5, 1), (5, 5))),
    *_omniglot(omniglot.reptile),
    *_omniglot(omniglot.imaml),
    *_omniglot(omniglot.protonet),
    *_omniglot(omniglot.protomaml, ((5, 1), (5, 5))),
    _single(sinusoid.maml_sinusoid),
    _single(sinusoid.meta_sgd_sinusoid),
    _single(sinusoid.fomaml_sinusoid),
    _single(sinusoid.meta_curvature_sinusoid),
    _single(sinusoid.meta_curvature_rates_sinusoid),
    _single(sinusoid.reptile_sinusoid),
    _single(sinusoid.imaml_sinusoid),
    _single(sinusoid.meta_lstm_sinusoid),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
"""Every recipe by its name."""

__all__ = ["RECIPES", "Config", "Published", "Recipe", "Testing", "from_json", "to_json"]
