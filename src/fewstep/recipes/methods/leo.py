"""Settings of LEO and its kin."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

import torch
from torch import nn

from fewstep import algorithms
from fewstep.core import BOUNDED, OFFICIAL, PAPER, Backprop, Method, Mixture
from fewstep.core.loss import Reduction
from fewstep.core.network.shapes import output_shape
from fewstep.networks import UnitLength
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.problems.problem import Problem


@dataclass(frozen=True)
class Leo:
    """Latent Embedding Optimization (Rusu et al. 2019)."""

    latents: int = 64
    """n_z, dimensions of a latent code."""
    latent_steps: int = 5
    """Adaptation steps in latent space."""
    finetuning_steps: int = 5
    """Adaptation steps in parameter space."""
    latent_rate: float = 1.0
    """Initial α, one meta-learned rate per latent dimension."""
    finetuning_rate: float = 0.001
    """Initial fine-tuning rate, one meta-learned per feature."""
    dropout: float = 0.3
    """1 − p_keep, dropout on the features with a fresh mask in every pass."""
    kl_weight: float = 1e-3
    """β of Eq. 6."""
    encoder_penalty_weight: float = 1e-9
    """γ of Eq. 6."""
    l2_weight: float = 1e-8
    """λ₁ of Eq. 7."""
    orthogonality_weight: float = 1e-3
    """λ₂ of Eq. 7."""
    formulation: Literal["official", "paper"] = "official"
    """The authors' code, which made the published numbers, or the paper's text."""
    support_reduction: Reduction = "sum"
    """Of the inner loss over support rows (Eq. 5 sums)."""
    curvature: bool = False
    """No paper's: meta-learned curvature in latent space, before the latent rates."""
    stochastic: bool = True
    """Sample codes and weights in meta-training; without, the paper's "deterministic" ablation, which has no KL."""
    encoded: bool = True
    """Encode the support into codes; without, the paper's "random prior" draws them from N(0, I)."""

    def build(self, problem: Problem) -> Method:
        """LEO on the problem's features."""
        if len(problem.inputs) != 1:
            raise ValueError(f"LEO works on feature vectors; the data gives inputs of shape {list(problem.inputs)}.")
        return algorithms.leo(problem.inputs[0], **asdict(self))


@dataclass(frozen=True, kw_only=True)
class JointLeo(Leo):
    """LEO on images (or whatever a network takes): its features are learned by the same meta-gradient."""

    network: Network
    """What makes the features, which are then scaled to length 1; it is not adapted."""
    support_statistics: bool = True
    """Batch-normalise the queries of training by the support, so that tests need not be transductive."""

    def build(self, problem: Problem) -> Method:
        """LEO on what the network makes of the problem's inputs."""
        body = self.network.build(problem, head=False)
        (features,) = output_shape(body, torch.zeros(1, *problem.inputs))
        own = {f.name: getattr(self, f.name) for f in fields(Leo)}
        method = replace(algorithms.leo(features, **own), meta_gradient=Backprop(self.support_statistics))
        return method.on(nn.Sequential(body, UnitLength()))


_FORMULATIONS = {"bounded": BOUNDED, "official": OFFICIAL, "paper": PAPER}


_SMALL = Network("mlp", (40, 40))


@dataclass(frozen=True)
class LeoNetwork:
    """LEO for whole networks: one code generates all parameters (Rusu et al. 2019, section 2.3.5 and appendix A)."""

    network: Network = _SMALL
    """The network whose parameters are generated."""
    latents: int = 16
    """n_z, dimensions of the latent code."""
    hidden: int = 32
    """Units of the hidden layers of encoder, relation network and decoder."""
    decoder_depth: int = 3
    """Layers of the decoder."""
    latent_steps: int = 5
    """Adaptation steps in latent space."""
    finetuning_steps: int = 0
    """Adaptation steps in parameter space."""
    latent_rate: float = 0.01
    """Initial α, one meta-learned rate per latent dimension."""
    finetuning_rate: float = 0.001
    """Initial fine-tuning rate, one meta-learned per parameter."""
    clip: float | None = None
    """Norm to which inner gradients are shortened. None: they are not."""
    spread: float = 1.0
    """Deviation of sampled parameters for a raw scale of zero, in units of Glorot's; 0: no sampling of parameters."""
    average: bool = False
    """Meta-learn an average network, to which what is generated is added. The paper has none: no decoder biases."""
    kl_weight: float = 1e-3
    """β of Eq. 6."""
    encoder_penalty_weight: float = 1e-9
    """γ of Eq. 6."""
    l2_weight: float = 1e-8
    """λ₁ of Eq. 7."""
    orthogonality_weight: float = 1e-3
    """λ₂ of Eq. 7, of each layer of the decoder."""
    formulation: Literal["bounded", "official", "paper"] = "bounded"
    """Of deviations and penalties: deviations that cannot grow without limits; those of the authors' classifier, which
    begin near zero; or eᵘ. The authors' code takes the mean of a penalty, the others its sum."""
    samples: int = 0
    """0: the paper's objective. M ≥ 1: the lower bound of the log predictive likelihood with M samples a task."""
    noise: float = 0.3
    """Deviation of targets in that bound."""

    def build(self, problem: Problem) -> Method:
        """LEO on the problem's inputs and targets."""
        bound = Mixture(self.samples, self.noise if problem.regression else None) if self.samples else None
        named = ("network", "samples", "noise", "formulation")
        passed = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in named}
        return algorithms.leo_network(
            self.network.build(problem),
            math.prod(problem.inputs),
            problem.outputs,
            loss=loss_of(problem),
            meta_gradient=bound,
            formulation=_FORMULATIONS[self.formulation],
            **passed,
        )
