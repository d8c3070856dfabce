"""Settings of methods that look for a distribution over weights."""

from __future__ import annotations

from fewstep import core, networks
from fewstep.core.ranges import Count, CountOrZero, Positive
from fewstep.recipes.methods.adapting import Adapting
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem


class BayesianMaml(Settings, algorithm="bayesian_maml"):
    """Bayesian MAML (Kim et al. 2018): particles that approach a task's posterior together."""

    network: Network = before("rate")
    """Of a particle, in regression; in classification the features that all particles, linear classifiers, share."""
    particles: Count = before("rate", 10)
    """M."""
    noise: Positive = before("rate", 0.1)
    """The deviation of targets that particles begin with, which is learned and adapted."""
    test_steps: CountOrZero | None = before("halved", None)
    """Steps in validation and test. None: as in training."""

    def build(self, problem: Problem) -> core.Method:
        """Bayesian MAML on the problem's inputs."""
        import torch
        from torch import nn

        from fewstep.core.network.shapes import output_shape
        from fewstep.networks.particles import regression_of_each

        if problem.regression:
            if self.network.deviations:
                raise ValueError("particles have noise of their own: leave method.network.deviations out.")
            make = lambda: networks.Particle(self.network.build(problem), self.noise)  # noqa: E731
            return self.compose(network=networks.Ensemble(make, self.particles), loss=regression_of_each())
        network = self.network.build(problem, head=False)
        (width,) = output_shape(network, torch.zeros(2, *problem.inputs))
        heads = networks.Ensemble(lambda: nn.Linear(width, problem.outputs), self.particles)
        return self.compose(network=nn.Sequential(network, heads))


class Llama(Adapting, algorithm="llama"):
    """LLAMA (Grant et al. 2018): MAML with an estimate of a task's marginal likelihood for its meta-objective."""


class Platipus(Settings, algorithm="platipus"):
    """PLATIPUS (Finn et al. 2018): MAML from an initialisation that is drawn about one that the task has moved."""

    network: Network = before("rate")
    """The network; means and deviations of its initialisation are what is meta-learned."""
    adapt_norms: bool = before("prior_rate", False)
    """Draw and adapt the normalisation's parameters too."""

    def build(self, problem: Problem) -> core.Method:
        """PLATIPUS on the problem's inputs."""
        network = self.network.build(problem)
        adapts = None if self.adapt_norms else networks.without_norms(network)
        return self.compose(network=network, adapts=adapts, loss=loss_of(problem, network=self.network))
