"""Recipes: complete typed configurations by name, rows of published tables where there are such."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from fewstep.recipes import compared, features, omniglot, oscillations, photographs, sine_line, sinusoid
from fewstep.recipes.config import Config, Testing, differences, dotted, from_json, to_json
from fewstep.recipes.problems.images import CifarImages, ImageNetImages
from fewstep.recipes.published import CIFAR_FS, LEO_FEATURES, MINI_IMAGENET, OMNIGLOT, TIERED_IMAGENET, Published, Row
from fewstep.recipes.recipe import Recipe
from fewstep.recipes.space import Range, with_settings

Space = tuple[Range, ...]


def _dashed(make: Callable[..., Config]) -> str:
    return make.__name__.replace("_", "-")


def _some(values: Sequence[Any]) -> str:
    """Several values as a shell's braces have them."""
    return f"{{{','.join(map(str, values))}}}" if len(values) > 1 else str(values[0])


def _single(*makes: Callable[[], Config]) -> Iterator[Recipe]:
    return (Recipe(_dashed(make), make, (), _dashed(make)) for make in makes)


def _pair(
    make: Callable[..., Config], stem: str, family: str, row: Row, *given: Any, ways: int = 5, space: Space = ()
) -> Iterator[Recipe]:
    """A recipe for one shot and one for five."""
    for k in (1, 5):
        known = (row[ways, k],) if (ways, k) in row else ()
        yield Recipe(f"{stem}-{k}shot", make, (*given, k), f"{family}-{{1,5}}shot", known, space)


def _omniglot(*makes: Callable[[int, int], Config], ways: Sequence[int] = (5, 20)) -> Iterator[Recipe]:
    for make in makes:
        stem, row = f"{_dashed(make)}-omniglot", OMNIGLOT.get(make.__name__, {})
        for n in ways:
            yield from _pair(make, f"{stem}-{n}way", f"{stem}-{_some(ways)}way", row, n, ways=n)


def _photographs(*makes: Callable[[photographs.Data, int], Config], tiered: bool = False) -> Iterator[Recipe]:
    """Five ways on CIFAR-FS, on miniImageNet, and on tieredImageNet where something is published for it."""
    of_tiered = partial(ImageNetImages, dataset="tieredImageNet")
    datasets = ("cifarfs", CifarImages, CIFAR_FS), ("miniimagenet", ImageNetImages, MINI_IMAGENET)
    for make in makes:
        for name, data, published in (*datasets, *([("tieredimagenet", of_tiered, TIERED_IMAGENET)] if tiered else [])):
            stem = f"{_dashed(make)}-{name}-5way"
            yield from _pair(make, stem, stem, published.get(make.__name__, {}), data)


def _features(
    make: Callable[[features.Dataset, int], Config], stem: str, *datasets: features.Dataset, space: Space = ()
) -> Iterator[Recipe]:
    """Stored features; ``stem`` has a place for the dataset."""
    names = [dataset.lower().replace("-", "") for dataset in datasets]
    for dataset, name in zip(datasets, names, strict=True):
        row = LEO_FEATURES[name].get(make.__name__, {})
        yield from _pair(make, stem.format(name), stem.format(_some(names)), row, dataset, space=space)


_PUBLISHED: tuple[features.Dataset, ...] = ("miniImageNet", "tieredImageNet")
_ALL: tuple[features.Dataset, ...] = (*_PUBLISHED, "CIFAR-FS")

_RECIPES = (
    *_features(features.leo, "leo-{}", *_ALL, space=features.LEO_SPACE),
    *_pair(features.leo_features, "leo-features", "leo-features", {}, space=features.LEO_SPACE),
    *_features(features.leo_paper, "leo-{}-paper", *_PUBLISHED),
    *_features(features.leo_multiview, "leo-{}-multiview", "miniImageNet", space=features.LEO_SPACE),
    *_features(features.meta_sgd, "meta-sgd-{}-features", *_ALL, space=features.META_SGD_SPACE),
    *_features(features.meta_curvature, "meta-curvature-{}-features", *_ALL),
    *_features(features.protonet, "protonet-{}-features", *_ALL),
    *_pair(features.meta_sgd_features, "meta-sgd-features", "meta-sgd-features", {}, space=features.META_SGD_SPACE),
    *_pair(
        features.residual_prototypes_features,
        "residual-prototypes-features",
        "residual-prototypes-features",
        {},
        space=features.RESIDUAL_SPACE,
    ),
    *_pair(features.protonet_features, "protonet-features", "protonet-features", {}, space=features.PROTONET_SPACE),
    *(recipe for make in features.OWN for recipe in _pair(make, _dashed(make), _dashed(make), {})),
    *_features(compared.matching, "matching-{}-features", *_PUBLISHED),
    *_features(compared.relation, "relation-{}-features", *_PUBLISHED),
    *_features(compared.tpn, "tpn-{}-features", *_PUBLISHED),
    *_features(compared.tadam, "tadam-{}-features", *_PUBLISHED),
    *_features(compared.ppa, "ppa-{}-features", *_PUBLISHED),
    *_features(compared.dfsl, "dfsl-{}-features", *_PUBLISHED),
    *_features(compared.gaussian_prior, "gaussian-prior-{}-features", *_PUBLISHED),
    *(
        recipe
        for make, space in compared.OWN.items()
        for recipe in _pair(make, _dashed(make), _dashed(make), {}, space=space)
    ),
    *_single(omniglot.leo_omniglot, omniglot.leo_omniglot_5way),
    *_single(omniglot.leo_joint_omniglot, omniglot.leo_joint_omniglot_5way),
    *_omniglot(omniglot.maml),
    *_omniglot(omniglot.maml_fc, ways=(5,)),
    *_omniglot(omniglot.maml_plus_plus),
    *_omniglot(omniglot.fomaml, omniglot.anil, omniglot.cavia, omniglot.meta_sgd, omniglot.deml),
    *_omniglot(omniglot.meta_curvature),
    *_omniglot(omniglot.t_net, omniglot.mt_net),
    *_omniglot(omniglot.bayesian_maml, omniglot.llama, omniglot.platipus),
    *_omniglot(omniglot.meta_lstm, ways=(5,)),
    *_omniglot(omniglot.reptile, omniglot.imaml, omniglot.protonet),
    *_omniglot(omniglot.matching, omniglot.relation, omniglot.tpn, omniglot.snail, omniglot.csn, omniglot.tadam),
    *_omniglot(omniglot.protomaml, ways=(5,)),
    *_photographs(photographs.maml_plus_plus),
    *_photographs(photographs.maml, photographs.fomaml, photographs.anil, photographs.cavia),
    *_photographs(photographs.meta_sgd, photographs.deml, photographs.meta_curvature),
    *_photographs(photographs.meta_lstm, photographs.reptile),
    *_photographs(photographs.t_net, photographs.mt_net),
    *_photographs(photographs.bayesian_maml, photographs.llama, photographs.platipus),
    *_photographs(photographs.imaml, photographs.protonet),
    *_photographs(photographs.matching),
    *_photographs(photographs.relation, photographs.tpn, tiered=True),
    *_photographs(photographs.snail, photographs.csn, photographs.tadam),
    *_single(sinusoid.maml_sinusoid, sinusoid.meta_sgd_sinusoid, sinusoid.fomaml_sinusoid),
    *_single(sinusoid.cavia_sinusoid, sinusoid.t_net_sinusoid, sinusoid.mt_net_sinusoid),
    *_single(sinusoid.bayesian_maml_sinusoid, sinusoid.llama_sinusoid),
    *_single(sinusoid.meta_curvature_sinusoid, sinusoid.meta_curvature_rates_sinusoid),
    *_single(sinusoid.cnp_sinusoid, sinusoid.neural_process_sinusoid),
    *_single(sinusoid.reptile_sinusoid, sinusoid.imaml_sinusoid, sinusoid.meta_lstm_sinusoid),
    *_single(sine_line.leo_sine_line, sine_line.leo_deviations_sine_line),
    *_single(sine_line.leo_bound_sine_line, sine_line.leo_weighted_sine_line),
    *_single(sine_line.maml_sine_line, sine_line.maml_ensemble_sine_line),
    *_single(sine_line.bayesian_maml_sine_line, sine_line.llama_sine_line, sine_line.platipus_sine_line),
    *_single(
        sine_line.cnp_sine_line,
        sine_line.cnp_smooth_sine_line,
        sine_line.neural_process_sine_line,
        sine_line.neural_process_weighted_sine_line,
    ),
    *_single(oscillations.leo_oscillations, oscillations.maml_oscillations),
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
