"""Bayesian MAML, LLAMA, PLATIPUS and neural processes: the meta-gradient of each beside a hand-written loop over tasks.

On sinusoids, with networks of 40 + 40 units, neural processes also with their authors' 128 units; Bayesian MAML,
LLAMA and PLATIPUS on MAML's Omniglot network too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import fewstep
from benchmarks import probabilistic_loops as loops
from benchmarks.fast_weights import CHANNELS, RATE, on_images, on_sinusoids, sinusoid_network
from benchmarks.measure import Case
from benchmarks.method_loops import MetaGradient
from benchmarks.workloads import DEVICE, SOME, sinusoids
from fewstep.core import Method, Task, generator, regression
from fewstep.networks import Conv4, mlp
from fewstep.networks.ensemble import Ensemble
from fewstep.networks.norms import without_norms
from fewstep.networks.particles import Particle, regression_of_each


def bayesian_maml(tasks: int = 25, particles: int = 10, rounds: int = 25) -> Case:
    """By the chaser loss."""
    torch.manual_seed(0)
    network = Ensemble(lambda: Particle(mlp((1, 40, 40, 1)), noise=1.0), particles)
    method, rate = fewstep.bayesian_maml(network, rate=1e-3, loss=regression_of_each()), 1e-3

    def loop(method: Method) -> MetaGradient:
        return loops.bayesian_maml(method, rate)

    what = f"Bayesian MAML, {particles} particles, 1 step and 1 of the leaders"
    return on_sinusoids("bayesian-maml", what, method, sinusoids(tasks), loop, rounds)


def bayesian_maml_omniglot(
    tasks: int = 8, particles: int = 5, rounds: int = 15, channels: Sequence[int] = CHANNELS
) -> Case:
    """Of linear classifiers on learned features, as the recipes on images."""
    torch.manual_seed(0)
    heads = Ensemble(lambda: nn.Linear(channels[-1], 5), particles)
    method = fewstep.bayesian_maml(nn.Sequential(Conv4(None, channels=channels, scale=True), heads), rate=RATE)

    def loop(method: Method) -> MetaGradient:
        return loops.bayesian_maml_conv(method, RATE, particles)

    return on_images("bayesian-maml", f"Bayesian MAML, {particles} heads, 1 step", method, tasks, loop, rounds, SOME)


def llama(tasks: int = 25, width: int = 40, rounds: int = 25) -> Case:
    """With a weight by which the determinant is seen in the gradient, and a damping that float32 can invert."""
    weight, damping = 0.1, 1.0
    method = fewstep.llama(sinusoid_network(width), rate=RATE, weight=weight, damping=damping, loss=regression())

    def loop(method: Method) -> MetaGradient:
        return loops.llama(method, RATE, 1, weight, damping)

    return on_sinusoids("llama", "LLAMA, 1 step", method, sinusoids(tasks), loop, rounds)


def llama_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS) -> Case:
    torch.manual_seed(0)
    weight, damping, network = 1e-4, 1.0, Conv4(5, channels=channels, scale=True)
    method = fewstep.llama(network, rate=RATE, weight=weight, damping=damping, adapts=without_norms(network))

    def loop(method: Method) -> MetaGradient:
        return loops.llama_conv(method, RATE, 1, weight, damping)

    return on_images("llama", "LLAMA, 1 step", method, tasks, loop, rounds)


def platipus(tasks: int = 25, rounds: int = 25) -> Case:
    kl_weight, batch = 1e-4, sinusoids(tasks)
    method = fewstep.platipus(sinusoid_network(), rate=RATE, kl_weight=kl_weight, loss=regression())

    def loop(method: Method) -> MetaGradient:
        return loops.platipus(method, RATE, 1, kl_weight)

    return on_sinusoids("platipus", "PLATIPUS, 1 step", method, batch, loop, rounds, _drawn(method, batch))


def platipus_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS) -> Case:
    torch.manual_seed(0)
    kl_weight, network = 1e-4, Conv4(5, channels=channels, scale=True)
    method = fewstep.platipus(network, rate=RATE, kl_weight=kl_weight, adapts=without_norms(network))

    def loop(method: Method) -> MetaGradient:
        return loops.platipus_conv(method, RATE, 1, kl_weight)

    return on_images("platipus", "PLATIPUS, 1 step", method, tasks, loop, rounds, drawn=_drawn)


def _drawn(method: Method, batch: Task) -> list[Tensor]:
    """The standard-normal numbers of all weights, as one vector a task."""
    method.learner.to(DEVICE)
    drawn = method.learner.noise(batch, generator(0, 0, "noise", DEVICE))["stages"][1]["decode"]
    names = [name for name, _ in method.learner.network.named_parameters() if name in drawn]
    return [torch.cat([drawn[name].flatten(1) for name in names], 1)]


def neural_process(tasks: int = 25, latents: int = 40, width: int = 40, rounds: int = 25) -> Case:
    """CNP without latents."""
    torch.manual_seed(0)
    method = fewstep.neural_process(1, 1, latents=latents, width=width, hidden=width)
    batch, name = sinusoids(tasks), "np" if latents else "cnp"
    begin = method.learner.noise(batch, generator(0, 0, "noise", DEVICE))["begin"]["start"]
    what = f"{name.upper()}, {width} units"
    return on_sinusoids(name, what, method, batch, loops.neural_process, rounds, list(begin.values()))
