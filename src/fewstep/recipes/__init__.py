"""Recipes: complete typed configurations by name, rows of published tables where there are such."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fewstep.recipes import features, omniglot, oscillations, photographs, sine_line, sinusoid
from fewstep.recipes.config import Config, Testing, differences, dotted, from_json, to_json
from fewstep.recipes.problems.images import CifarImages, ImageNetImages
from fewstep.recipes.published import CIFAR_FS, LEO_FEATURES, MINI_IMAGENET, OMNIGLOT, Published
from fewstep.recipes.recipe import Recipe
from fewstep.recipes.space import Range, with_settings


def _single(make: Callable[[], Config]) -> Recipe:
    name = make.__name__.replace("_", "-")
    return Recipe(name, make, (), name)


def _family(
    make: Callable[..., Config],
    dataset: str,
    ways: Sequence[int],
    arguments: Callable[[int, int], tuple[Any, ...]],
    published: Mapping[tuple[int, int], Published],
) -> Iterator[Recipe]:
    """A recipe for each number of ways, and for one shot and for five."""
    stem = f"{make.__name__.replace('_', '-')}-{dataset}"
    some = f"{{{','.join(map(str, ways))}}}" if len(ways) > 1 else str(ways[0])
    for n in ways:
        for k in (1, 5):
            known = (published[n, k],) if (n, k) in published else ()
            yield Recipe(f"{stem}-{n}way-{k}shot", make, arguments(n, k), f"{stem}-{some}way-{{1,5}}shot", known)


def _omniglot(make: Callable[[int, int], Config], *ways: int) -> Iterator[Recipe]:
    return _family(make, "omniglot", ways or (5, 20), lambda n, k: (n, k), OMNIGLOT.get(make.__name__, {}))


def _photographs(make: Callable[[photographs.Data, int], Config]) -> Iterator[Recipe]:
    """Five ways on CIFAR-FS and on miniImageNet."""
    yield from _family(make, "cifarfs", (5,), lambda _, k: (CifarImages, k), CIFAR_FS.get(make.__name__, {}))
    yield from _family(
        make, "miniimagenet", (5,), lambda _, k: (ImageNetImages, k), MINI_IMAGENET.get(make.__name__, {})
    )


def _features(
    make: Callable[[features.Dataset, int], Config], stem: str, *datasets: features.Dataset, space: Sequence[Range] = ()
) -> Iterator[Recipe]:
    """One shot and five on stored features; ``stem`` has a place for the dataset."""
    names = [dataset.lower().replace("-", "") for dataset in datasets]
    some = f"{{{','.join(names)}}}" if len(names) > 1 else names[0]
    for dataset, name in zip(datasets, names, strict=True):
        row = LEO_FEATURES[name].get(make.__name__, {})
        for k in (1, 5):
            known = (row[5, k],) if (5, k) in row else ()
            family = f"{stem.format(some)}-{{1,5}}shot"
            yield Recipe(f"{stem.format(name)}-{k}shot", make, (dataset, k), family, known, tuple(space))


_ALL: tuple[features.Dataset, ...] = ("miniImageNet", "tieredImageNet", "CIFAR-FS")

_RECIPES = (
    *_features(features.leo, "leo-{}", *_ALL, space=features.LEO_SPACE),
    *(
        Recipe(f"leo-features-{k}shot", features.leo_features, (k,), "leo-features-{1,5}shot", space=features.LEO_SPACE)
        for k in (1, 5)
    ),
    *_features(features.leo_paper, "leo-{}-paper", "miniImageNet", "tieredImageNet"),
    *_features(features.leo_multiview, "leo-{}-multiview", "miniImageNet", space=features.LEO_SPACE),
    *_features(features.meta_sgd, "meta-sgd-{}-features", *_ALL, space=features.META_SGD_SPACE),
    *_features(features.meta_curvature, "meta-curvature-{}-features", *_ALL),
    *_features(features.protonet, "protonet-{}-features", *_ALL),
    _single(omniglot.leo_omniglot),
    _single(omniglot.leo_omniglot_5way),
    _single(omniglot.leo_joint_omniglot),
    _single(omniglot.leo_joint_omniglot_5way),
    *_omniglot(omniglot.maml),
    *_omniglot(omniglot.maml_fc, 5),
    *_omniglot(omniglot.fomaml),
    *_omniglot(omniglot.anil),
    *_omniglot(omniglot.meta_sgd),
    *_omniglot(omniglot.meta_curvature),
    *_omniglot(omniglot.meta_lstm, 5),
    *_omniglot(omniglot.reptile),
    *_omniglot(omniglot.imaml),
    *_omniglot(omniglot.protonet),
    *_omniglot(omniglot.protomaml, 5),
    *_photographs(photographs.maml),
    *_photographs(photographs.fomaml),
    *_photographs(photographs.anil),
    *_photographs(photographs.meta_sgd),
    *_photographs(photographs.meta_curvature),
    *_photographs(photographs.meta_lstm),
    *_photographs(photographs.reptile),
    *_photographs(photographs.imaml),
    *_photographs(photographs.protonet),
    _single(sinusoid.maml_sinusoid),
    _single(sinusoid.meta_sgd_sinusoid),
    _single(sinusoid.fomaml_sinusoid),
    _single(sinusoid.meta_curvature_sinusoid),
    _single(sinusoid.meta_curvature_rates_sinusoid),
    _single(sinusoid.reptile_sinusoid),
    _single(sinusoid.imaml_sinusoid),
    _single(sinusoid.meta_lstm_sinusoid),
    _single(sine_line.leo_sine_line),
    _single(sine_line.leo_bound_sine_line),
    _single(sine_line.maml_sine_line),
    _single(sine_line.maml_ensemble_sine_line),
    _single(oscillations.leo_oscillations),
    _single(oscillations.maml_oscillations),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
"""Every recipe by its name."""

__all__ = [
    "RECIPES",
    "Config",
    "Published",
    "Range",
    "Recipe",
    "Testing",
    "differences",
    "dotted",
    "from_json",
    "to_json",
    "with_settings",
]
