"""Recipes on Omniglot.

Where nothing else is said, images are 28×28, the split is Vinyals', rotated characters are classes of their own in
training and in tests, and queries are normalised by their own batch, as in MAML (transductive). MAML's authors instead
turn every class of a task at random, and cut the characters at random into 1100, 100 and 423.
"""

from dataclasses import asdict, replace
from typing import Any

from fewstep.recipes.config import Algorithm, Config, Testing, unnamed
from fewstep.recipes.methods.adapting import (
    Anil,
    Cavia,
    Deml,
    Imaml,
    Maml,
    MamlPlusPlus,
    MetaCurvature,
    MetaLstm,
    MetaSgd,
    MtNet,
)
from fewstep.recipes.methods.leo import JointLeo, Leo
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Protomaml, Protonet, Reptile
from fewstep.recipes.methods.probabilistic import BayesianMaml, Llama, Platipus
from fewstep.recipes.methods.remembering import Csn, Matching, Relation, Snail, Tadam, Tpn
from fewstep.recipes.problems.images import OmniglotImages
from fewstep.recipes.problems.omniglot_features import OmniglotFeatures
from fewstep.training import Training

_LEO = Leo(dropout=0.1, latent_rate=0.3, kl_weight=1e-2, orthogonality_weight=1.0)
_LEO_TRAINING = Training(
    steps=3000, rate=2e-3, decay="cosine", clip_value=0.1, clip_norm=0.1, nonfinite="decay", validate_every=500
)


def leo_omniglot() -> Config:
    """LEO, 20-way 1-shot, on features of a network trained on the meta-training characters.

    The paper reports no Omniglot; these settings were chosen on validation characters for a few minutes on a CPU.
    """
    return unnamed(OmniglotFeatures(ways=20), _LEO, replace(_LEO_TRAINING, validation_tasks=200))


def leo_omniglot_5way() -> Config:
    """LEO, 5-way 1-shot, otherwise as ``leo-omniglot``.

    Training tasks have 20 ways, which is harder and teaches more; LEO takes any number at test time.
    """
    return unnamed(OmniglotFeatures(ways=5, train_ways=20), _LEO, _LEO_TRAINING)


def leo_joint_omniglot() -> Config:
    """LEO, 20-way 1-shot, on raw images: its features are learned by the same meta-gradient, from nothing.

    The paper's features are fixed, and this its future work. Test tasks and LEO's settings are those of
    ``leo-omniglot``; the network is MAML's, which is not adapted here.
    """
    return _joint(ways=20, validation_tasks=200)


def leo_joint_omniglot_5way() -> Config:
    """The same, 5-way 1-shot, trained on 20-way tasks: ``leo-omniglot-5way`` on raw images."""
    return _joint(ways=5)


def _joint(ways: int, **training: Any) -> Config:
    data = OmniglotImages(ways=ways, train_ways=20, queries=5)
    method = JointLeo(**asdict(replace(_LEO, latent_rate=1.0)), network=Network("reptile"))
    return unnamed(data, method, replace(_LEO_TRAINING, tasks=4, rate=3e-3, **training))


TRAINING = Training(
    steps=60_000, executor="loop", validate_every=1000, validation_tasks=200, log_every=20, checkpoint_every=100
)
TOGETHER: dict[str, Any] = {"executor": "vmap", "chunk": 4}
"""Four tasks at a time, for convolutions that no task adapts: their rows go through them as one batch."""
_MAML = Network("maml")


def _as_maml(ways: int, shots: int, method: Algorithm, **training: Any) -> Config:
    """The tasks, the outer loop and the test of MAML's authors, with as many queries as support examples."""
    images = OmniglotImages(ways=ways, shots=shots, queries=shots, test_rotations=True)
    options = replace(TRAINING, **{"tasks": 32 if ways == 5 else 16, **training})
    return unnamed(images, method, options, Testing(tasks=600, queries=shots))


def _inner(ways: int) -> dict[str, Any]:
    """The inner loop of MAML's authors, in training and at test."""
    return {"rate": 2.0, "steps": 1 if ways == 5 else 5, "test_steps": 3 if ways == 5 else 5}


def maml(ways: int, shots: int) -> Config:
    """MAML with its authors' settings.

    Their loss sums over the N·K support rows and divides by K, so their α = 0.4 (5-way) and 0.1 (20-way) are 2.0 for a
    mean.
    """
    return _as_maml(ways, shots, Maml(network=_MAML, **_inner(ways)))


def maml_fc(ways: int, shots: int) -> Config:
    """MAML with its fully connected network, otherwise as with the convolutional one."""
    return _as_maml(ways, shots, Maml(network=Network("maml-fc"), **_inner(ways)), executor="vmap")


def fomaml(ways: int, shots: int) -> Config:
    """First-order MAML with the settings of MAML."""
    return _as_maml(ways, shots, Maml(network=_MAML, first_order=True, **_inner(ways)))


def maml_plus_plus(ways: int, shots: int) -> Config:
    """MAML++ with its authors' settings: 64 channels, one query a class, eight tasks a step.

    Their outer rate falls at every hundredth of training, and they test the mean of a run's five best models.
    """
    method = MamlPlusPlus(network=Network("maml-plus-plus", hidden=(64,) * 4), fades=10)
    return unnamed(
        OmniglotImages(ways=ways, shots=shots, queries=1, test_rotations=True),
        method,
        replace(TRAINING, steps=50_000, tasks=8, decay="cosine", rate_floor=1e-5, validate_every=500),
        Testing(tasks=600, queries=1),
    )


def anil(ways: int, shots: int) -> Config:
    """ANIL with the settings of MAML (nothing tuned, nothing published on this split)."""
    return _as_maml(ways, shots, Anil(network=_MAML, **_inner(ways)))


def cavia(ways: int, shots: int) -> Config:
    """CAVIA with its authors' settings for miniImageNet, on the tasks of MAML (they report no Omniglot)."""
    method = Cavia(network=Network("cavia"), rate=1.0, steps=2)
    return _as_maml(ways, shots, method, tasks=16, clip_value=10.0, **TOGETHER)


def meta_sgd(ways: int, shots: int) -> Config:
    """Meta-SGD with one step; rates start as in its paper, tasks and outer loop are those of MAML.

    The paper does not print all of its settings.
    """
    return _as_maml(ways, shots, MetaSgd(network=_MAML))


def deml(ways: int, shots: int) -> Config:
    """DEML with Meta-SGD on four blocks that name the training characters too; untuned, nothing is published."""
    return _brief(ways, shots, Deml(network=Network("protonet"), hidden=()))


def meta_curvature(ways: int, shots: int) -> Config:
    """Meta-Curvature with its authors' settings: one step and 32 tasks for every setting.

    Their program is MAML's, so their α = 0.4 is 0.4·N for a mean over the support.
    """
    return _as_maml(ways, shots, MetaCurvature(network=_MAML, rate=0.4 * ways), tasks=32)


def t_net(ways: int, shots: int) -> Config:
    """T-net with its authors' settings: those of MAML, but one step in twenty ways too, and 40,000 meta-steps."""
    return _as_mt_net(ways, shots, masked=False)


def mt_net(ways: int, shots: int) -> Config:
    """MT-net with its authors' settings, otherwise as T-net; in tests a mask is its mean, where they draw it too."""
    return _as_mt_net(ways, shots, masked=True)


def _as_mt_net(ways: int, shots: int, masked: bool) -> Config:
    return _as_maml(ways, shots, MtNet(network=_MAML, rate=2.0, masked=masked), steps=40_000)


def bayesian_maml(ways: int, shots: int) -> Config:
    """Bayesian MAML of five linear classifiers on learned features, on the tasks of MAML; untuned.

    Its authors report no Omniglot, and released no program for images: all settings but the five particles are ours.
    """
    return _as_maml(ways, shots, BayesianMaml(network=_MAML, particles=5, rate=0.1, steps=5))


def llama(ways: int, shots: int) -> Config:
    """LLAMA with the settings of MAML and its paper's weight for miniImageNet (its authors report no Omniglot)."""
    return _as_maml(ways, shots, Llama(network=_MAML, **_inner(ways)))


def platipus(ways: int, shots: int) -> Config:
    """PLATIPUS with the inner rate and the tasks of MAML; untuned (its authors report no Omniglot)."""
    return _as_maml(ways, shots, Platipus(network=_MAML, rate=2.0, steps=1 if ways == 5 else 5))


def reptile(ways: int, shots: int) -> Config:
    """Reptile with its authors' settings: ten training shots, 50 inner steps at test, one query a class.

    Adam's second moments live on from task to task in training. Test characters are not turned. A query is normalised
    with the support and without the other queries; ``--testing.statistics query`` is their transductive result.
    """
    rate, steps, batch = (1e-3, 5, 10) if ways == 5 else (5e-4, 10, 20)
    inner = {"rate": rate, "steps": steps, "batch": batch, "test_steps": 50, "test_batch": batch // 2}
    return unnamed(
        OmniglotImages(ways=ways, shots=shots, queries=1, train_shots=10),
        Reptile(network=Network("reptile"), carried=True, **inner),
        replace(TRAINING, tasks=5, optimiser="sgd", rate=1.0, decay="linear", steps=100_000 if ways == 5 else 200_000),
        Testing(tasks=10_000, queries=1, statistics="joined"),
    )


def imaml(ways: int, shots: int) -> Config:
    """iMAML by gradient descent, with its authors' settings and as their program does it.

    That is: a plain descent, one step along the pull at its end, and a damped system with λ + 10 (see
    :func:`fewstep.imaml`); ``--method.variant paper`` is the algorithm of the paper. Images are not inverted there.
    """
    steps = 16 if ways == 5 else 25
    method = Imaml(network=Network("imaml"), rate=0.1, steps=steps, prox=2.0, variant="authors")
    return _as_maml(ways, shots, method, steps=20_000, tasks=32, eps=1e-3)


def protonet(ways: int, shots: int) -> Config:
    """Prototypical network, trained on 60-way tasks with its authors' settings.

    They stop by the validation loss, and normalise queries by running statistics of training.
    """
    return unnamed(
        OmniglotImages(ways=ways, shots=shots, queries=5, train_ways=60, test_rotations=True),
        Protonet(network=Network("protonet")),
        replace(TRAINING, steps=20_000, tasks=1, decay="halving", compile="off"),
        Testing(tasks=1000, queries=5),
    )


def _brief(ways: int, shots: int, method: Algorithm) -> Config:
    """Tasks like those of the test, four a step; an outer loop of ours."""
    return unnamed(
        OmniglotImages(ways=ways, shots=shots, queries=5, test_rotations=True),
        method,
        replace(TRAINING, **TOGETHER, steps=20_000, tasks=4, decay="cosine", compile="off"),
        Testing(tasks=1000, queries=5),
    )


def matching(ways: int, shots: int) -> Config:
    """Matching network with its paper's attention, without full context; trained with the ways and shots of the test.

    The paper prints no outer loop; that and the learned scale are ours.
    """
    return _brief(ways, shots, Matching(network=Network("protonet"), vote="attention", scale=10.0))


def relation(ways: int, shots: int) -> Config:
    """Relation network with its authors' settings, one task a step; they turn all characters of a task by one angle.

    They test with as many queries as support examples, normalised by their own batch.
    """
    queries = {(5, 1): 19, (5, 5): 15, (20, 1): 10, (20, 5): 5}[ways, shots]
    outer: dict[str, Any] = {"steps": 1_000_000, "tasks": 1, "decay": "halving", "halve_every": 100_000}
    return unnamed(
        OmniglotImages(ways=ways, shots=shots, queries=queries, test_rotations=True),
        Relation(network=Network("relation")),
        replace(TRAINING, **outer, clip_norm=0.5, clip_scope="global", compile="off"),
        Testing(tasks=1000, queries=shots),
    )


def tpn(ways: int, shots: int) -> Config:
    """TPN with its authors' graph (they report no Omniglot); the outer loop is ours. Transductive by design."""
    return _brief(ways, shots, Tpn(network=Network("protonet")))


def snail(ways: int, shots: int) -> Config:
    """SNAIL with its paper's widths, trained with one to five shots a task as there; the outer loop is ours."""
    config = _brief(ways, shots, Snail(network=Network("protonet"), most_shots=5))
    assert isinstance(config.data, OmniglotImages)
    return replace(config, data=replace(config.data, train_shots=5, fewest_shots=1))


def csn(ways: int, shots: int) -> Config:
    """Conditionally shifted neurons on four blocks of 64 channels, the last two shifted; the outer loop is ours.

    The paper has five blocks of 64 or, by another of its tables, 32 channels, and drops units.
    """
    return _brief(ways, shots, Csn(network=Network("protonet"), layers=2))


def tadam(ways: int, shots: int) -> Config:
    """TADAM on four blocks of convolutions (nothing tuned, nothing published on Omniglot); the outer loop is ours."""
    return _brief(ways, shots, Tadam(network=Network("protonet")))


def protomaml(ways: int, shots: int) -> Config:
    """Proto-MAML, trained on 20-way tasks (nothing tuned, nothing published on Omniglot alone)."""
    return unnamed(
        OmniglotImages(ways=ways, shots=shots, queries=5, train_ways=20, test_rotations=True),
        Protomaml(network=Network("maml", scale=True), rate=0.1, steps=1, test_steps=3),
        replace(TRAINING, steps=10_000, tasks=4, decay="cosine", compile="off"),
        Testing(tasks=1000, queries=5),
    )


def meta_lstm(ways: int, shots: int) -> Config:
    """Meta-LSTM with its authors' settings for miniImageNet (they report no Omniglot).

    The inner loop moves the normalisation's parameters too, and tests normalise by the support's running statistics.
    """
    method = MetaLstm(network=Network("meta-lstm"), steps=12, gradient_scale=1 / (ways * shots))
    config = _as_maml(ways, shots, method, tasks=1, clip_norm=0.25, clip_scope="global")
    return replace(config, testing=replace(config.testing, statistics="running"))
