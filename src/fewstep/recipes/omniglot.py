"""Recipes on Omniglot."""

from dataclasses import replace

from fewstep.recipes.config import Config, Testing
from fewstep.recipes.methods import Anil, Leo, Maml, Network, Protomaml, Protonet
from fewstep.recipes.problems import OmniglotFeatures, OmniglotImages
from fewstep.training import Training

_LEO = Leo(dropout=0.1, latent_rate=0.3, kl_weight=1e-2, orthogonality_weight=1.0)


def _training(validation_tasks: int) -> Training:
    return Training(
        steps=3000, rate=2e-3, decay="cosine", clip_value=0.1, clip_norm=0.1, nonfinite="decay",
        validate_every=500, validation_tasks=validation_tasks,
    )  # fmt: skip


def leo_omniglot() -> Config:
    """LEO, 20-way 1-shot, on features of a network trained on the meta-training characters.

    The paper reports no Omniglot; these settings were chosen on validation characters for a few minutes on a CPU.
    """
    return Config(recipe="leo-omniglot", data=OmniglotFeatures(ways=20), method=_LEO, training=_training(200))


def leo_omniglot_5way() -> Config:
    """LEO, 5-way 1-shot, otherwise as ``leo-omniglot``.

    Training tasks have 20 ways, which is harder and teaches more; LEO takes any number at test time.
    """
    data = OmniglotFeatures(ways=5, train_ways=20)
    return Config(recipe="leo-omniglot-5way", data=data, method=_LEO, training=_training(600))


def maml_omniglot() -> Config:
    """MAML, 5-way 1-shot, with its authors' settings (published: 98.7 ± 0.4 % on another split, transductive).

    Their loss sums over the N·K support rows and divides by K, so their α = 0.4 is 2.0 for a mean. They rotate each
    class at random in each task; here the rotations are classes, and the split is Vinyals' unless overridden.
    """
    return Config(
        recipe="maml-omniglot",
        data=OmniglotImages(ways=5, queries=1, test_rotations=True),
        method=Maml(network=Network("conv4", (64, 64, 64, 64)), rate=2.0, steps=1, test_steps=3),
        training=Training(
            steps=60_000, tasks=32, rate=1e-3, executor="loop", validate_every=1000, validation_tasks=200,
            log_every=20, checkpoint_every=100,
        ),
        testing=Testing(tasks=600, queries=1),
    )  # fmt: skip


_CONV = Network("conv4", (64, 64, 64, 64))


def anil_omniglot() -> Config:
    """ANIL, 5-way 1-shot, with the settings of ``maml-omniglot`` (nothing tuned, nothing published on this split)."""
    config = maml_omniglot()
    return replace(config, recipe="anil-omniglot", method=Anil(network=_CONV, rate=2.0, steps=1, test_steps=3))


def protonet_omniglot() -> Config:
    """Prototypical network, 5-way 1-shot, trained on 60-way tasks (published: 98.8 % with max-pooled blocks).

    As in the paper: Vinyals' split, rotations as classes, five queries, Adam at 0.001; here the rate falls along half a
    cosine instead of halving, and queries are normalised by their own batch.
    """
    return Config(
        recipe="protonet-omniglot",
        data=OmniglotImages(ways=5, queries=5, train_ways=60, test_rotations=True),
        method=Protonet(network=replace(_CONV, scale=True)),
        training=Training(steps=10_000, tasks=1, rate=1e-3, decay="cosine", executor="loop", validation_tasks=200,
                          compile="off"),
        testing=Testing(tasks=1000, queries=5),
    )  # fmt: skip


def protomaml_omniglot() -> Config:
    """Proto-MAML, 5-way 1-shot (nothing tuned, nothing published on Omniglot alone)."""
    return Config(
        recipe="protomaml-omniglot",
        data=OmniglotImages(ways=5, queries=5, train_ways=20, test_rotations=True),
        method=Protomaml(network=replace(_CONV, scale=True), rate=0.1, steps=1, test_steps=3),
        training=Training(steps=10_000, tasks=4, rate=1e-3, decay="cosine", executor="loop", validation_tasks=200,
                          compile="off"),
        testing=Testing(tasks=1000, queries=5),
    )  # fmt: skip
