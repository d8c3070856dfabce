"""Recipes on sinusoids."""

from fewstep.recipes.config import Config, Testing
from fewstep.recipes.methods import Maml, MetaSgd, Network
from fewstep.recipes.problems import SinusoidTasks
from fewstep.training import Training

_TRAINING = Training(steps=70_000, tasks=25, rate=1e-3, validate_every=5000, validation_tasks=600, log_every=100,
                     checkpoint_every=2500)  # fmt: skip
_TESTING = Testing(tasks=600, shots=(5, 10), steps=(1, 5, 10))


def maml_sinusoid() -> Config:
    """MAML on sine curves, meta-trained with K = 10 and one step (published, 1 step: 0.69 5-shot, 0.44 10-shot).

    The inner rate is that of the authors' documented command, 0.001, which reproduces the published errors after 1, 5
    and 10 steps; the 0.01 that the paper prints gives lower ones after one step (docs/results.md).
    """
    return Config(
        recipe="maml-sinusoid",
        data=SinusoidTasks(),
        method=Maml(network=Network("mlp", (40, 40), std=0.01), rate=0.001),
        training=_TRAINING,
        testing=_TESTING,
    )


def meta_sgd_sinusoid() -> Config:
    """Meta-SGD on the same curves (published by Meta-Curvature's authors: 0.48 5-shot, 0.26 10-shot)."""
    return Config(
        recipe="meta-sgd-sinusoid",
        data=SinusoidTasks(),
        method=MetaSgd(network=Network("mlp", (40, 40), std=0.01)),
        training=_TRAINING,
        testing=_TESTING,
    )
