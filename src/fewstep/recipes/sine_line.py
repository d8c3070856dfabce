"""Recipes on noisy sine curves and lines: LEO for whole networks, and what its uncertainty is compared with."""

from dataclasses import replace
from typing import Any

from fewstep.recipes.config import Config, Testing, unnamed
from fewstep.recipes.methods.adapting import Maml
from fewstep.recipes.methods.leo import LeoNetwork
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import NeuralProcess
from fewstep.recipes.methods.probabilistic import BayesianMaml, Llama, Platipus
from fewstep.recipes.problems.functions import SineOrLineTasks
from fewstep.training import Training

_NETWORK = Network("mlp", (40, 40))
TRAINING = Training(
    steps=10_000,
    rate=2e-3,
    decay="cosine",
    clip_norm=10.0,
    clip_scope="global",
    validation_tasks=300,
    log_every=100,
    checkpoint_every=1000,
)
_TESTING = Testing(tasks=1000)
_PROCESS: dict[str, Any] = {"steps": 40_000, "rate": 1e-3}
_LEO = LeoNetwork(latent_rate=1e-3, spread=0.1, average=True)
"""Rates and spread are the largest of a few that were tried (1e-4 to 1e-2; 0.1 and 1) with which inner loops do not
diverge."""
_DEVIATIONS = replace(_LEO, network=replace(_LEO.network, deviations=True), clip=10.0)
"""Without shortening, a likelihood's gradients threw some codes where no network makes sense."""


def leo_sine_line() -> Config:
    """LEO generates a 1-40-40-1 network from one code, with the objective of its paper (section 4.1, appendix A).

    Of its settings the paper gives the architecture and 12 tasks a step. The others are ours, and so is the average
    network that what is generated is added to: docs/results.md has what it is worth.
    """
    return unnamed(SineOrLineTasks(), _LEO, TRAINING, _TESTING)


def leo_deviations_sine_line() -> Config:
    """The paper's objective with the likelihood for its loss: each network predicts deviations too, a variant of ours.

    The inner loop descends that likelihood, whose gradients are shortened where they explode; no noise is fitted.
    """
    return unnamed(SineOrLineTasks(), _DEVIATIONS, TRAINING, _TESTING)


def leo_bound_sine_line() -> Config:
    """``leo-sine-line`` trained on a lower bound of the log predictive likelihood: a variant of ours.

    Eight codes a task are adapted, and the query is scored by the mixture of their likelihoods, so that samples may
    share the possible functions between them.
    """
    method = replace(_LEO, samples=8, latent_rate=2e-4)
    return unnamed(SineOrLineTasks(), method, replace(TRAINING, rate=1e-3), _TESTING)


def leo_weighted_sine_line() -> Config:
    """The bound of four codes a task, which count by their likelihood on the support; networks predict deviations.

    A variant of ours (docs/results.md).
    """
    return unnamed(SineOrLineTasks(), replace(_DEVIATIONS, samples=4, weighted=True), TRAINING, _TESTING)


def maml_sine_line() -> Config:
    """MAML on the same network: one function a task."""
    return unnamed(SineOrLineTasks(), Maml(network=_NETWORK, rate=0.01, steps=5), TRAINING, _TESTING)


def maml_ensemble_sine_line() -> Config:
    """Five networks, each meta-trained by MAML from weights of its own on the same tasks: five functions a task."""
    return unnamed(SineOrLineTasks(), Maml(network=_NETWORK, rate=0.01, steps=5, members=5), TRAINING, _TESTING)


def bayesian_maml_sine_line() -> Config:
    """Bayesian MAML of ten such networks: ten functions a task, which repel each other; its settings here are ours."""
    method = BayesianMaml(network=_NETWORK, noise=0.3, rate=0.001, steps=5)
    return unnamed(SineOrLineTasks(), method, TRAINING, _TESTING)


def cnp_sine_line() -> Config:
    """CNP predicts a normal distribution of each target; widths and tasks a step of its authors' program.

    The outer loop is ours: theirs takes 200,000 steps with a rate of 1e-4. Its deviations are its own, and no noise is
    fitted to it.
    """
    return unnamed(SineOrLineTasks(), NeuralProcess(latents=0), replace(TRAINING, tasks=64, **_PROCESS), _TESTING)


def cnp_smooth_sine_line() -> Config:
    """CNP with GELU in place of ReLU and 16 tasks a step: a variant of ours, near the exact posterior sooner."""
    training = replace(TRAINING, tasks=16, **_PROCESS | {"rate": 4e-3})
    return unnamed(SineOrLineTasks(), NeuralProcess(latents=0, smooth=True), training, _TESTING)


def neural_process_sine_line() -> Config:
    """NP, whose samples of one latent code are functions, each with deviations of its own; otherwise as CNP.

    Tasks a step are those of its authors' later notebook.
    """
    return unnamed(SineOrLineTasks(), NeuralProcess(), replace(TRAINING, tasks=16, **_PROCESS), _TESTING)


def neural_process_weighted_sine_line() -> Config:
    """NP of four codes a task, which count by their likelihood on the support; GELU, and no mean beside the code.

    A variant of ours, nearest to the exact posterior of those that were measured (docs/results.md). It is trained on
    2 to 5 points, for of few points it is more often open what they are of.
    """
    method = NeuralProcess(width=0, smooth=True, samples=4, weighted=True)
    training = replace(TRAINING, tasks=16, **_PROCESS | {"rate": 2e-3})
    return unnamed(SineOrLineTasks(fewest_shots=2), method, training, _TESTING)


def llama_sine_line() -> Config:
    """LLAMA on the same network, otherwise as ``maml-sine-line``: one function a task; untuned."""
    return unnamed(SineOrLineTasks(), Llama(network=_NETWORK, rate=0.01, steps=5), TRAINING, _TESTING)


def platipus_sine_line() -> Config:
    """PLATIPUS on the same network, whose task this is: as many functions as are sampled; its settings are ours.

    We could not read its paper. Targets are taken for normal about a function by the mean squared error.
    """
    method = Platipus(network=_NETWORK, rate=0.01, steps=5, deviation=0.1, posterior_deviation=0.1)
    return unnamed(SineOrLineTasks(), method, TRAINING, _TESTING)
