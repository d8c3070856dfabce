"""Recipes on stored features of the systems that LEO's paper is compared with.

On the published embeddings of miniImageNet and tieredImageNet they have the outer loops of their papers. Matching and
relation networks, TPN and TADAM learn an embedding of images there; here it is a layer on the features, whose size is
ours. On features of your own the outer loop is a short one.
"""

from dataclasses import replace
from typing import Any

from fewstep.recipes.config import Algorithm, Config, Testing, unnamed
from fewstep.recipes.features import Dataset, on_own
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Dfsl, GaussianPrior, Ppa
from fewstep.recipes.methods.remembering import Matching, Relation, Tadam, Tpn
from fewstep.recipes.omniglot import TRAINING
from fewstep.recipes.problems.stored_features import Embeddings
from fewstep.recipes.space import Range

_WIDE = Network("mlp", hidden=(640,))
_SPREAD = Network("mlp", hidden=(640,), std=0.3)


def _published(dataset: Dataset, shots: int, method: Algorithm, data: dict[str, Any], **training: Any) -> Config:
    """On published embeddings, tested on 600 tasks of 15 queries a class."""
    options = replace(TRAINING, **{"validation_tasks": 600, **training})
    return unnamed(Embeddings(dataset=dataset, shots=shots, **data), method, options, Testing(tasks=600, queries=15))


def matching(dataset: Dataset, shots: int) -> Config:
    """Matching network on features, in the outer loop of Ravi and Larochelle: cosines after a layer of 640 units.

    A learned scale of cosines is ours: without one features learn slowly.
    """
    outer: dict[str, Any] = {"steps": 75_000, "tasks": 1, "rate": 1e-4}
    return _published(dataset, shots, Matching(network=_WIDE, scale=10.0), {}, **outer)


def relation(dataset: Dataset, shots: int) -> Config:
    """Relation network on features, in its authors' outer loop: pairs of vectors after a layer of 128 units.

    Scores of pairs are normalised by their own batch, as in their tests, which makes them transductive.
    """
    outer: dict[str, Any] = {"steps": 500_000, "tasks": 1, "decay": "halving", "halve_every": 100_000}
    queries = {"queries": 15 if shots == 1 else 10}
    method = Relation(network=Network("mlp", hidden=(128,)))
    config = _published(dataset, shots, method, queries, **outer, clip_norm=0.5, clip_scope="global")
    return replace(config, testing=Testing(tasks=600, queries=3 if shots == 1 else 5))


def tpn(dataset: Dataset, shots: int) -> Config:
    """TPN on features, in its authors' outer loop: a graph after a layer of 640 units. Transductive by design."""
    outer: dict[str, Any] = {"steps": 210_000, "tasks": 1, "decay": "halving"}
    every = 10_000 if dataset == "miniImageNet" else 25_000
    return _published(dataset, shots, Tpn(network=_SPREAD, begins=0.1), {}, **outer, halve_every=every)


def tadam(dataset: Dataset, shots: int) -> Config:
    """TADAM on features, in its authors' outer loop: a layer of 640 units that the task conditions; 5000 test tasks."""
    tasks, queries = (5, 12) if shots == 1 else (2, 32)
    outer: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.9, "rate": 0.1, "decay": "drops", "clip_norm": 1.0}
    drops = ((15_000, 0.1), (17_500, 0.01), (20_000, 0.001))
    given = {"queries": queries, "queries_of": "task"}
    config = _published(dataset, shots, Tadam(network=_WIDE), given, steps=30_000, tasks=tasks, drops=drops, **outer)
    return replace(config, testing=Testing(tasks=5000, queries=20))


def ppa(dataset: Dataset, shots: int) -> Config:
    """PPA on features of their own length, with its authors' settings: all classes at once, one row and one query each.

    Theirs are classes of validation too (``--data.train-on trainval``), and a support of a whole class's mean with
    probability 0.3.
    """
    classes = 80 if dataset == "miniImageNet" else 448
    data = {"normalise": False, "train_ways": classes, "train_shots": 1, "queries": 1}
    outer: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.9, "rate": 1e-3, "steps": 12_500, "tasks": 1}
    config = _published(dataset, shots, Ppa(l2_weight=5e-4), data, **outer)
    return replace(config, testing=Testing(tasks=1000))


def dfsl(dataset: Dataset, shots: int) -> Config:
    """DFSL's second stage on features, with its authors' settings: three queries a class, fifteen of other classes.

    Their momentum is Nesterov's, and a task's fifteen queries of new classes are drawn without regard to the class.
    """
    outer: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.9, "rate": 0.1, "decay": "drops"}
    drops = ((20_000, 0.06), (40_000, 0.012), (50_000, 0.0024))
    method = Dfsl(base_classes=64 if dataset == "miniImageNet" else 351)
    return _published(dataset, shots, method, {"queries": 3}, steps=60_000, tasks=8, drops=drops, **outer)


def gaussian_prior(dataset: Dataset, shots: int) -> Config:
    """The most probable weights by a Gaussian that base classes have; nothing is meta-learned. Settings are ours."""
    return _published(dataset, shots, GaussianPrior(rate=0.05), {}, steps=1)


# -- features of your own ----------------------------------------------------------------------------------------------


def matching_features(shots: int) -> Config:
    """Matching network on features of your own: cosines after a linear map and ReLU to 640 dimensions; untuned."""
    return on_own(shots, Matching(network=_WIDE, scale=10.0))


def relation_features(shots: int) -> Config:
    """Relation network on features of your own, as vectors: a linear map and ReLU to 128 dimensions; untuned."""
    return on_own(shots, Relation(network=Network("mlp", hidden=(128,))))


def tpn_features(shots: int) -> Config:
    """TPN on features of your own: a graph on a linear map and ReLU to 640 dimensions; transductive, untuned.

    Distances are a mean over dimensions, so that rows and widths must be of a size: with torch's usual weights rows of
    length 1 are all equally near, and nothing is learned.
    """
    return on_own(shots, Tpn(network=_SPREAD, begins=0.1))


def tadam_features(shots: int) -> Config:
    """TADAM on features of your own: a linear map and ReLU to 640 dimensions that the task conditions; untuned."""
    return on_own(shots, Tadam(network=_WIDE))


def ppa_features(shots: int) -> Config:
    """PPA on features of your own: weights predicted from class means, trained on 20-way 1-shot tasks; untuned."""
    return replace(on_own(shots, Ppa(scale=10.0)), data=Embeddings(shots=shots, train_ways=20, train_shots=1))


def dfsl_features(shots: int) -> Config:
    """DFSL on features of your own: class means, and weights of base classes that they attend to; untuned."""
    return on_own(shots, Dfsl())


def gaussian_prior_features(shots: int) -> Config:
    """The most probable weights by a Gaussian that base classes have, on features of your own; untuned.

    Nothing is meta-learned: the Gaussian is fitted when the run begins, and there is one validation.
    """
    return on_own(shots, GaussianPrior(rate=0.05))


_RATE = Range("training.rate", 1e-4, 1e-2, log=True)
_COSINE = Range("method.scale", 3.0, 100.0, log=True)
_L2 = Range("method.l2_weight", 1e-6, 1e-3, log=True)

OWN: dict[Any, tuple[Range, ...]] = {
    matching_features: (_RATE, _COSINE),
    relation_features: (_RATE, Range("method.units", 16.0, 256.0, log=True, whole=True)),
    tpn_features: (
        _RATE,
        Range("method.begins", 0.03, 0.3, log=True),
        Range("method.neighbours", 5.0, 40.0, log=True, whole=True),
    ),
    tadam_features: (_RATE, _COSINE, _L2),
    ppa_features: (_RATE, _COSINE),
    dfsl_features: (_RATE, _COSINE, Range("method.sharpness", 1.0, 100.0, log=True), _L2),
    gaussian_prior_features: (
        Range("method.penalty", 1e-6, 1e-3, log=True),  # how long known weights are, and so how wide the prior is
        Range("method.rate", 3e-3, 0.3, log=True),
    ),
}
"""Those on features of your own, and what a search draws: what their papers leave to the scale of the features."""
