"""Recipes on photographs: miniImageNet at 84×84, and CIFAR-FS at 32×32.

On miniImageNet the settings are each paper's own. For CIFAR-FS no paper of these methods prints any, so the same ones
are used there, at the images' native size; nothing is tuned. Where nothing else is said, queries are normalised by
their own batch (transductive).
"""

from collections.abc import Callable
from dataclasses import replace
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
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Protonet, Reptile
from fewstep.recipes.methods.probabilistic import BayesianMaml, Llama, Platipus
from fewstep.recipes.methods.remembering import Csn, Matching, Relation, Snail, Tadam, Tpn
from fewstep.recipes.omniglot import TRAINING
from fewstep.recipes.problems.images import CifarImages, ImageNetImages

Data = Callable[..., CifarImages | ImageNetImages]


def _as_maml(data: Data, shots: int, method: Algorithm, **training: Any) -> Config:
    """The tasks, the outer loop and the test of MAML's authors: as many queries as support examples in a test."""
    options = replace(TRAINING, **{"tasks": 4 if shots == 1 else 2, "clip_value": 10.0, **training})
    return unnamed(data(shots=shots), method, options, Testing(tasks=600, queries=shots))


_MAML = Network("maml-mini")


def maml(data: Data, shots: int) -> Config:
    """MAML with its authors' settings.

    Their loss sums over the N·K support rows and divides by K, so their α = 0.01 is 0.05 for a mean. Tests have as many
    queries as support examples, training 15 a class.
    """
    return _as_maml(data, shots, Maml(network=_MAML, rate=0.05, steps=5, test_steps=10))


def fomaml(data: Data, shots: int) -> Config:
    """First-order MAML with the settings of MAML."""
    return _as_maml(data, shots, Maml(network=_MAML, rate=0.05, steps=5, test_steps=10, first_order=True))


def maml_plus_plus(data: Data, shots: int) -> Config:
    """MAML++ with its authors' settings: 48 channels, two tasks a step, entries of the meta-gradient within ±10.

    Their outer rate stays at 0.001 on these images, and they test the mean of a run's five best models.
    """
    method = MamlPlusPlus(network=Network("maml-plus-plus"))
    config = _as_maml(data, shots, method, steps=50_000, tasks=2, validate_every=500)
    return replace(config, testing=Testing(tasks=600, queries=15))


def anil(data: Data, shots: int) -> Config:
    """ANIL with the settings of MAML."""
    return _as_maml(data, shots, Anil(network=_MAML, rate=0.05, steps=5, test_steps=10))


def cavia(data: Data, shots: int) -> Config:
    """CAVIA with the settings of its authors' program: 100 numbers that scale and shift the third of four blocks.

    They let the outer rate fall by a tenth every 5000 steps, which is about as much as the half cosine here in the end,
    and report the best validation model on 1000 tasks. Tables of theirs may have other inner rates (0.1) and
    tasks a step (four, and two with five shots).
    """
    config = _as_maml(data, shots, Cavia(network=Network("cavia"), rate=1.0, steps=2), tasks=16, decay="cosine")
    return replace(config, testing=Testing(tasks=1000, queries=15))


def meta_sgd(data: Data, shots: int) -> Config:
    """Meta-SGD with one step; rates start as in its paper, all else is as with MAML.

    The paper does not print all of its settings.
    """
    return _as_maml(data, shots, MetaSgd(network=_MAML))


def deml(data: Data, shots: int) -> Config:
    """DEML with Meta-SGD: 64 rows of the training classes named in a step, and its paper's tasks a step and learner.

    The authors' concepts are a ResNet-50 that names 200 classes of ImageNet which are none of the tasks'; here it is a
    ResNet-12, and the classes are those of meta-training.
    """
    method = Deml(network=Network("resnet12"))
    return _as_maml(data, shots, method, clip_value=None, compile="off")


def meta_curvature(data: Data, shots: int) -> Config:
    """Meta-Curvature with five steps, 64 channels and 100,000 meta-steps, as its authors say; all else as with MAML.

    Their program for photographs was never released.
    """
    network = Network("maml-mini", hidden=(64, 64, 64, 64))
    return _as_maml(data, shots, MetaCurvature(network=network, rate=0.05, steps=5), steps=100_000)


def t_net(data: Data, shots: int) -> Config:
    """T-net with its authors' settings, which are those of MAML; they never run more than one shot, with four tasks."""
    return _as_maml(data, shots, MtNet(network=_MAML, rate=0.05, steps=5, test_steps=10, masked=False))


def mt_net(data: Data, shots: int) -> Config:
    """MT-net with its authors' settings, otherwise as T-net; in tests a mask is its mean, where they draw it too.

    Their program can do one step of 0.4, which is 2.0 here, instead of five.
    """
    return _as_maml(data, shots, MtNet(network=_MAML, rate=0.05, steps=5, test_steps=10))


def bayesian_maml(data: Data, shots: int) -> Config:
    """Bayesian MAML of five linear classifiers on learned features, otherwise as with MAML; untuned.

    Its authors never released their program for images: all settings but the five particles are ours.
    """
    return _as_maml(data, shots, BayesianMaml(network=_MAML, particles=5, rate=0.1, steps=5))


def llama(data: Data, shots: int) -> Config:
    """LLAMA with its paper's 64 channels, weight and 60,000 meta-steps; rates, steps and damping are not printed there.

    They are MAML's, and ours. The paper speaks of 64, 12 and 24 classes, where everybody else has 64, 16 and 20.
    """
    network = Network("maml-mini", hidden=(64, 64, 64, 64))
    return _as_maml(data, shots, Llama(network=network, rate=0.05, steps=5, test_steps=10))


def platipus(data: Data, shots: int) -> Config:
    """PLATIPUS, otherwise as with MAML; untuned.

    We could not read its paper: networks, rates, steps and weight of the divergence are MAML's or ours. A test takes
    the mean of the initialisations, where the authors sample some.
    """
    return _as_maml(data, shots, Platipus(network=_MAML, rate=0.05, steps=5))


def meta_lstm(data: Data, shots: int) -> Config:
    """Meta-LSTM with its authors' settings.

    The inner loop moves the normalisation's parameters too; tests normalise by the support's running statistics, so
    they are not transductive.
    """
    momentum, inner, outer = (0.9, 12, 75_000) if shots == 1 else (0.95, 8, 50_000)
    network = Network("meta-lstm", momentum=momentum)
    return unnamed(
        data(shots=shots),
        MetaLstm(network=network, steps=inner, gradient_scale=1 / (5 * shots)),
        replace(TRAINING, steps=outer, tasks=1, clip_norm=0.25, clip_scope="global", validation_tasks=100),
        Testing(tasks=600, queries=15, statistics="running"),
    )


def reptile(data: Data, shots: int) -> Config:
    """Reptile with its authors' settings: 15 training shots, 50 inner steps at test, one query a class.

    Adam's second moments live on from task to task in training. A query is normalised with the support and without the
    other queries; ``--testing.statistics query`` is their transductive result.
    """
    test = {"test_steps": 50, "test_batch": 5 if shots == 1 else 15}
    return unnamed(
        data(shots=shots, queries=1, train_shots=15),
        Reptile(network=Network("reptile-mini"), rate=1e-3, steps=8, batch=10, carried=True, **test),
        replace(TRAINING, steps=100_000, tasks=5, optimiser="sgd", rate=1.0, decay="linear"),
        Testing(tasks=10_000, queries=1, statistics="joined"),
    )


def imaml(data: Data, shots: int) -> Config:
    """iMAML by gradient descent with λ = 0.5, ten steps and five iterations of conjugate gradients.

    Its authors released no program for photographs; these settings are those of a reimplementation (hypertorch), and
    agree with what is known of the paper's.
    """
    method = Imaml(network=Network("maml-mini", scale=True), rate=0.1, steps=10, prox=0.5, iterations=5)
    return _as_maml(data, shots, method, tasks=16, clip_value=None)


def protonet(data: Data, shots: int) -> Config:
    """Prototypical network with its authors' settings: training tasks of 30 ways for one shot, 20 for five.

    They stop by the validation loss, and normalise queries by running statistics of training.
    """
    return unnamed(
        data(shots=shots, train_ways=30 if shots == 1 else 20),
        Protonet(network=Network("protonet")),
        replace(TRAINING, steps=20_000, tasks=1, decay="halving", compile="off"),
        Testing(tasks=600, queries=15),
    )


def matching(data: Data, shots: int) -> Config:
    """Matching network as Ravi and Larochelle ran it, without full context (``--method.reads 3`` has one).

    Their program drops 0.1 of the channels after each block, which is left out, and tests by running statistics.
    """
    return unnamed(
        data(shots=shots),
        Matching(network=Network("protonet")),
        replace(TRAINING, steps=75_000, tasks=1, rate=1e-4, compile="off"),
        Testing(tasks=600, queries=15),
    )


def relation(data: Data, shots: int) -> Config:
    """Relation network with its authors' settings; queries are normalised by their own batch, as in their tests.

    They have two optimisers, whose gradients are shortened apart, and chose the five-shot network by test classes.
    """
    outer: dict[str, Any] = {"steps": 500_000, "tasks": 1, "decay": "halving", "halve_every": 100_000}
    return unnamed(
        data(shots=shots, queries=15 if shots == 1 else 10),
        Relation(network=Network("relation")),
        replace(TRAINING, **outer, clip_norm=0.5, clip_scope="global", compile="off"),
        Testing(tasks=600, queries=3 if shots == 1 else 5),
    )


def tpn(data: Data, shots: int) -> Config:
    """TPN with its authors' settings, trained with the shots of the test. Transductive by design.

    They chose the checkpoint by hand, and feed pixels from 0 to 255.
    """
    images = data(shots=shots)
    tiered = isinstance(images, ImageNetImages) and images.dataset == "tieredImageNet"
    outer: dict[str, Any] = {"steps": 210_000, "tasks": 1, "decay": "halving"}
    outer["halve_every"] = 25_000 if tiered else 10_000
    return unnamed(
        images,
        Tpn(network=Network("protonet")),
        replace(TRAINING, **outer, compile="off"),
        Testing(tasks=600, queries=15),
    )


def snail(data: Data, shots: int) -> Config:
    """SNAIL with its paper's widths on the residual blocks of its embedding, trained with one to five shots a task.

    That embedding goes on with two layers, of 2048 and 384 channels, and dropout. The outer loop is ours.
    """
    return unnamed(
        data(shots=shots, train_shots=5, fewest_shots=1),
        Snail(network=Network("resnet12", hidden=(64, 96, 128, 256)), most_shots=5),
        replace(TRAINING, tasks=4, rate=1e-4, decay="cosine", compile="off"),
        Testing(tasks=600, queries=15),
    )


def csn(data: Data, shots: int) -> Config:
    """Conditionally shifted neurons on four blocks of 64 channels, the last two shifted; the outer loop is ours.

    The paper's best network is a residual one, which is left out.
    """
    return unnamed(
        data(shots=shots),
        Csn(network=Network("protonet"), layers=2),
        replace(TRAINING, tasks=4, decay="cosine", clip_norm=10.0, clip_scope="global", compile="off"),
        Testing(tasks=600, queries=15),
    )


def tadam(data: Data, shots: int) -> Config:
    """TADAM with its authors' settings and widths; tests are of 5000 tasks, as their ten of 500.

    Their network has swish for leaky ReLU, and no pool in the last block. Tests have as
    many queries of each class, where theirs are drawn as in training.
    """
    tasks, queries = (5, 12) if shots == 1 else (2, 32)
    outer: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.9, "rate": 0.1, "decay": "drops", "clip_norm": 1.0}
    drops = ((15_000, 0.1), (17_500, 0.01), (20_000, 0.001))
    return unnamed(
        data(shots=shots, queries=queries, queries_of="task"),
        Tadam(network=Network("resnet12", hidden=(64, 128, 256, 512))),
        replace(TRAINING, steps=30_000, tasks=tasks, drops=drops, compile="off", **outer),
        Testing(tasks=5000, queries=20),
    )
