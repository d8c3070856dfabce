"""Typed settings of the algorithms, as a command line shows them; each builds its composition."""

from dataclasses import asdict, dataclass
from typing import Literal

from torch import nn

from fewstep import algorithms
from fewstep.core import Method, classification, regression
from fewstep.core.loss import Reduction
from fewstep.networks import Conv4, mlp, without_norms
from fewstep.recipes.problems import Problem


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

    def build(self, problem: Problem) -> Method:
        """LEO on the problem's features."""
        if len(problem.inputs) != 1:
            raise ValueError(f"LEO works on feature vectors; the data gives inputs of shape {list(problem.inputs)}.")
        return algorithms.leo(problem.inputs[0], **asdict(self))


@dataclass(frozen=True)
class Network:
    """The network whose weights are adapted."""

    kind: Literal["mlp", "conv4"]
    """A multi-layer perceptron, or four convolutional blocks."""
    hidden: tuple[int, ...] = (40, 40)
    """Units of the MLP's hidden layers, or channels of the blocks."""
    std: float | None = None
    """MLP: standard deviation of the truncated normal initial weights. None: torch's default."""

    def build(self, problem: Problem) -> nn.Module:
        """The network for the problem's inputs and outputs."""
        if self.kind == "mlp":
            return mlp((problem.inputs[0], *self.hidden, problem.outputs), std=self.std)
        return Conv4(problem.outputs, inputs=problem.inputs[0], channels=self.hidden)


@dataclass(frozen=True)
class Maml:
    """Model-Agnostic Meta-Learning (Finn et al. 2017)."""

    network: Network
    """The network; its initialisation is what is meta-learned."""
    rate: float
    """α, the inner rate."""
    steps: int = 1
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps in validation and test. None: as in training."""
    first_order: bool = False
    """FOMAML: drop second derivatives."""
    adapt_norms: bool = False
    """Let the inner loop move the normalisation's parameters too."""
    support_reduction: Reduction = "mean"
    """Of the inner loss over support rows."""

    def build(self, problem: Problem) -> Method:
        """MAML on the problem's inputs."""
        network = self.network.build(problem)
        loss = regression if problem.regression else classification
        return algorithms.maml(
            network,
            rate=self.rate,
            steps=self.steps,
            loss=loss(self.support_reduction),
            adapts=None if self.adapt_norms else without_norms(network),
            first_order=self.first_order,
        )


@dataclass(frozen=True)
class MetaSgd:
    """Meta-SGD (Li et al. 2017): MAML with one meta-learned rate for every parameter."""

    network: Network
    """The network; its initialisation is what is meta-learned."""
    rate: tuple[float, float] = (0.005, 0.1)
    """Range of the uniform draw of initial rates α."""
    steps: int = 1
    """Inner steps."""

    def build(self, problem: Problem) -> Method:
        """Meta-SGD on the problem's inputs."""
        network = self.network.build(problem)
        loss = regression() if problem.regression else classification()
        return algorithms.meta_sgd(network, rate=self.rate, steps=self.steps, loss=loss, adapts=without_norms(network))
