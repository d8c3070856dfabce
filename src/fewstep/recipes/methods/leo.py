"""Settings of LEO and its kin."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from fewstep import core, networks
from fewstep.core.ranges import CountOrZero, Positive, refuse
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem

AUTHORS = {"normalise": False, "latent_clip": None}
"""Recipes scale features where they read or make them, and descend as the authors' code does."""


class Leo(Settings, algorithm="leo", omit=("hidden", "half_l2", "orthogonality_reduction", "normalise", "latent_clip")):
    """Latent Embedding Optimization (Rusu et al. 2019)."""

    def build(self, problem: Problem) -> core.Method:
        """LEO on the problem's features."""
        if len(problem.inputs) != 1:
            raise ValueError(f"LEO works on feature vectors; the data gives inputs of shape {list(problem.inputs)}.")
        return self.compose(features=problem.inputs[0], **AUTHORS)


class JointLeo(Leo):
    """LEO on images (or whatever a network takes): its features are learned by the same meta-gradient."""

    network: Network
    """What makes the features, which are then scaled to length 1; it is not adapted."""
    support_statistics: bool = True
    """Batch-normalise the queries of training by the support, so that tests need not be transductive."""

    def build(self, problem: Problem) -> core.Method:
        """LEO on what the network makes of the problem's inputs."""
        import torch

        from fewstep.core.network.shapes import output_shape

        body = self.network.build(problem, head=False)
        (features,) = output_shape(body, torch.zeros(1, *problem.inputs))
        outer = core.Backprop("support" if self.support_statistics else "query")
        method = replace(self.compose(features=features, **AUTHORS), meta_gradient=outer)
        return method.on(torch.nn.Sequential(body, networks.UnitLength()))


class LeoNetwork(Settings, algorithm="leo_network"):
    """LEO for whole networks: one code generates all parameters (Rusu et al. 2019, section 2.3.5 and appendix A)."""

    network: Network = before("latents", Network("mlp", (40, 40)))
    """The network whose parameters are generated."""
    formulation: Literal["bounded", "official", "paper"] = "bounded"
    """Of deviations and penalties: deviations that cannot grow without limits; those of the authors' classifier, which
    begin near zero; or eᵘ. The authors' code takes the mean of a penalty, the others its sum."""
    samples: CountOrZero = 0
    """0: the paper's objective. M ≥ 1: the lower bound of the log predictive likelihood with M samples a task."""
    weighted: bool = False
    """In that bound, and in predictions of a method that is trained on it, samples count by their likelihood on the
    support."""
    noise: Positive = 0.3
    """Deviation of targets in that bound, where the network does not predict it."""

    def build(self, problem: Problem) -> core.Method:
        """LEO on the problem's inputs and targets."""
        noise = self.noise if problem.regression and not self.network.deviations else None
        if self.weighted and not self.samples:
            refuse("method.weighted is of the bound: set method.samples to 1 or more, or leave it out.")
        bound = core.Mixture(self.samples, noise, weighted=self.weighted) if self.samples else None
        return self.compose(
            network=self.network.build(problem),
            inputs=math.prod(problem.inputs),
            outputs=problem.outputs,
            formulation={"bounded": core.BOUNDED, "official": core.OFFICIAL, "paper": core.PAPER}[self.formulation],
            loss=loss_of(problem, network=self.network),
            meta_gradient=bound,
        )
