"""Typed settings of the algorithms, as a command line shows them; each builds its composition."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from fewstep import algorithms
from fewstep.core import BOUNDED, OFFICIAL, PAPER, Backprop, Loss, Method, Mixture, classification, regression
from fewstep.core.loss import Reduction
from fewstep.core.shapes import output_shape
from fewstep.networks import Ensemble, Forecaster, ResNet12, UnitLength, conv4, mlp, without_norms
from fewstep.networks.ensemble import squared_error_of_each, squared_error_of_the_mean
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


@dataclass(frozen=True)
class Network:
    """A network that meta-learning trains; most methods adapt its weights to a task."""

    kind: Literal[
        "mlp", "maml-fc", "maml", "maml-mini", "reptile", "reptile-mini", "imaml", "protonet", "meta-lstm", "resnet12",
        "forecaster",
    ]  # fmt: skip
    """A multi-layer perceptron; MAML's fully connected one for images (784-256-128-64-64); a paper's four convolutional
    blocks (fewstep.networks.conv4 has the table); twelve layers with residuals; or a recurrent network that forecasts
    a series."""
    hidden: tuple[int, ...] | None = None
    """Units of the hidden layers, or channels of the blocks; with none, mlp is a linear classifier. None: the paper's
    (mlp: 40, 40; forecaster: 20)."""
    std: float | None = None
    """mlp: standard deviation of the truncated normal initial weights. None: torch's default."""
    scale: bool | None = None
    """conv4: learn the normalisation's γ beside its β. None: as in the paper."""
    momentum: float | None = None
    """conv4: weight of the newest statistics in running ones. None: 0.9."""

    def build(self, problem: Problem, *, head: bool = True) -> nn.Module:
        """The network for the problem's inputs and outputs; without a ``head``, one that a start generates."""
        outputs, shape = problem.outputs if head else None, problem.inputs
        if self.kind == "mlp":
            if len(shape) != 1:
                raise ValueError(f"mlp is a network for vectors; the data gives inputs of shape {list(shape)}.")
            return mlp((*shape, *((40, 40) if self.hidden is None else self.hidden), outputs), std=self.std)
        if self.kind == "forecaster":
            if len(shape) != 1 or not problem.regression or outputs is None:
                raise ValueError(
                    "forecaster is a whole network for regression of the next values of a series, such as "
                    f"OscillationTasks; the data gives {'targets' if problem.regression else 'classes'} for inputs of "
                    f"shape {list(shape)}, and the method {'no head' if outputs is None else 'a head'}."
                )
            if self.hidden is not None and len(self.hidden) != 1:
                raise ValueError(f"forecaster has one hidden layer: give the number of its units, not {self.hidden}.")
            return Forecaster(outputs, *(self.hidden or ()))
        if self.kind == "maml-fc":
            widths = (math.prod(shape), *(self.hidden or (256, 128, 64, 64)), outputs)
            return nn.Sequential(nn.Flatten(), *mlp(widths, norm=True, scale=bool(self.scale), eps=1e-3, std=0.01))
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(
                f"{self.kind} is a network for square images; the data gives inputs of shape {list(shape)}."
            )
        if self.kind == "resnet12":
            own: dict[str, Any] = {} if self.hidden is None else {"widths": self.hidden}
            return ResNet12(outputs, shape[0], **own)
        given = {"channels": self.hidden, "scale": self.scale, "momentum": self.momentum}
        changes = {name: value for name, value in given.items() if value is not None}
        return conv4(self.kind, outputs, inputs=shape[0], size=shape[1], **changes)


def _loss(problem: Problem, reduction: Reduction = "mean") -> Loss:
    return (regression if problem.regression else classification)(reduction)


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


@dataclass(frozen=True)
class LeoNetwork:
    """LEO for whole networks: one code generates all parameters (Rusu et al. 2019, section 2.3.5 and appendix A)."""

    network: Network = Network("mlp", (40, 40))
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
            self.network.build(problem), math.prod(problem.inputs), problem.outputs, loss=_loss(problem),
            meta_gradient=bound, formulation=_FORMULATIONS[self.formulation], **passed,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Adapting:
    """What methods that adapt a network's own weights have in common."""

    network: Network
    """The network; its initialisation is what is meta-learned."""
    steps: int = 1
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps in validation and test. None: as in training."""
    adapt_norms: bool = False
    """Let the inner loop move the normalisation's parameters too."""
    support_reduction: Reduction = "mean"
    """Of the inner loss over support rows."""

    def parts(self, problem: Problem) -> dict[str, Any]:
        """Arguments that the algorithms share."""
        network = self.network.build(problem)
        adapts = None if self.adapt_norms else without_norms(network)
        return {"network": network, "adapts": adapts, "steps": self.steps,
                "loss": _loss(problem, self.support_reduction)}  # fmt: skip

    def at_test(self) -> dict[str, Any]:
        """Settings of the descents in validation and test, where they differ from training."""
        return {} if self.test_steps is None else {"steps": self.test_steps}


@dataclass(frozen=True, kw_only=True)
class Maml(_Adapting):
    """Model-Agnostic Meta-Learning, and first-order MAML (Finn et al. 2017)."""

    rate: float
    """α, the inner rate."""
    first_order: bool = False
    """FOMAML: drop second derivatives."""
    members: int | None = None
    """An ensemble of so many networks, each meta-trained for itself on the same tasks (regression). None: no
    ensemble."""
    clip: float | None = None
    """Norm to which inner gradients are shortened. None: they are not."""

    def parts(self, problem: Problem) -> dict[str, Any]:
        """Arguments that the algorithms share, for one network or for an ensemble.

        Raises:
            ValueError: for an ensemble of classifiers.
        """
        if self.members is None:
            return super().parts(problem)
        if not problem.regression:
            raise ValueError("an ensemble predicts regression targets; for classification leave method.members out.")
        network = Ensemble(lambda: self.network.build(problem), self.members)
        loss = Loss(squared_error_of_each, self.support_reduction, squared_error_of_the_mean, "mse")
        return {"network": network, "adapts": None, "steps": self.steps, "loss": loss}

    def build(self, problem: Problem) -> Method:
        """MAML on the problem's inputs."""
        return algorithms.maml(**self.parts(problem), rate=self.rate, first_order=self.first_order, clip=self.clip)


@dataclass(frozen=True, kw_only=True)
class Anil(_Adapting):
    """ANIL (Raghu et al. 2020): MAML whose inner loop moves the last layer alone."""

    rate: float
    """α, the inner rate."""
    first_order: bool = False
    """Drop second derivatives."""

    def build(self, problem: Problem) -> Method:
        """ANIL on the problem's inputs."""
        parts = self.parts(problem)
        del parts["adapts"]
        return algorithms.anil(**parts, rate=self.rate, first_order=self.first_order)


@dataclass(frozen=True, kw_only=True)
class MetaSgd(_Adapting):
    """Meta-SGD (Li et al. 2017): MAML with one meta-learned rate for every parameter."""

    rate: tuple[float, float] = (0.005, 0.1)
    """Range of the uniform draw of initial rates α."""
    rates: Literal["parameter", "layer"] = "parameter"
    """One rate for every parameter, or for every tensor of them."""
    per_step: bool = False
    """Rates of its own for every inner step."""
    dropout: float = 0.0
    """Dropout on the inputs with a fresh mask in every pass, for features."""

    def build(self, problem: Problem) -> Method:
        """Meta-SGD on the problem's inputs."""
        return algorithms.meta_sgd(
            **self.parts(problem), rate=self.rate, rates=self.rates, per_step=self.per_step, dropout=self.dropout
        )


@dataclass(frozen=True, kw_only=True)
class MetaCurvature(_Adapting):
    """Meta-Curvature (Park and Oliva 2019): MAML with meta-learned matrices that multiply the gradient."""

    rate: float
    """α, the inner rate."""
    diagonal: bool = False
    """Vectors in place of matrices."""
    per_step: bool = False
    """Matrices of its own for every inner step."""
    learned_rates: bool = False
    """No paper's: Meta-SGD's rates, all α at first, after the curvature."""

    def build(self, problem: Problem) -> Method:
        """Meta-Curvature on the problem's inputs."""
        return algorithms.meta_curvature(
            **self.parts(problem), rate=self.rate, diagonal=self.diagonal, per_step=self.per_step,
            learned_rates=self.learned_rates,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MetaLstm(_Adapting):
    """Meta-LSTM (Ravi and Larochelle 2017): the rule is a recurrent network's."""

    hidden: int = 20
    """Units of the first layer."""
    feedback: Literal["before", "after"] = "before"
    """Gates are fed back before their sigmoid (authors' code) or after it."""
    gradient_scale: float = 1.0
    """Multiplies gradients (authors' code: one over the number of support rows)."""
    adapt_norms: bool = True
    """Let the inner loop move the normalisation's parameters too, as the authors do."""

    def build(self, problem: Problem) -> Method:
        """Meta-LSTM on the problem's inputs."""
        return algorithms.meta_lstm(
            **self.parts(problem), hidden=self.hidden, feedback=self.feedback, gradient_scale=self.gradient_scale
        )


@dataclass(frozen=True, kw_only=True)
class Reptile:
    """Reptile (Nichol et al. 2018): move the initialisation to where adaptation went."""

    network: Network
    """The network; its initialisation is what is meta-learned."""
    rate: float
    """Inner rate."""
    steps: int
    """Inner steps in training."""
    batch: int | None = None
    """Rows of an inner mini-batch in training. None: all."""
    test_steps: int | None = None
    """Inner steps in validation and test. None: as in training."""
    test_batch: int | None = None
    """Rows of an inner mini-batch in validation and test. None: as in training."""
    rule: Literal["sgd", "adam"] = "adam"
    """Inner SGD, or Adam with β₁ = 0."""
    carried: bool = False
    """Adam's second moments live on from task to task, as in the authors' code (training.executor=loop)."""

    def build(self, problem: Problem) -> Method:
        """Reptile on the problem's inputs."""
        return algorithms.reptile(
            self.network.build(problem), rate=self.rate, steps=self.steps, batch=self.batch, rule=self.rule,
            carried=self.carried, loss=_loss(problem),
        )  # fmt: skip

    def at_test(self) -> dict[str, Any]:
        """Steps and mini-batches of a test."""
        settings = {"steps": self.test_steps, "batch": self.test_batch}
        return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Imaml(_Adapting):
    """iMAML (Rajeswaran et al. 2019): the implicit gradient at the end of a regularised descent."""

    rate: float
    """Inner rate."""
    prox: float
    """λ, the pull towards the initialisation."""
    iterations: int = 5
    """Of conjugate gradients, at most."""
    damping: float | None = None
    """δ, added to the system's diagonal. None: 0 for the paper, 1 for the authors' code."""
    variant: Literal["paper", "authors"] = "paper"
    """The paper's algorithm, or what the authors' code does; the latter tests without the pull."""

    def build(self, problem: Problem) -> Method:
        """iMAML on the problem's inputs."""
        return algorithms.imaml(
            **self.parts(problem), rate=self.rate, prox=self.prox, iterations=self.iterations, damping=self.damping,
            variant=self.variant,
        )  # fmt: skip

    def at_test(self) -> dict[str, Any]:
        """Steps of a test, and the authors' test without the pull."""
        return super().at_test() | ({"prox": 0.0} if self.variant == "authors" else {})


@dataclass(frozen=True, kw_only=True)
class Protonet:
    """Prototypical networks (Snell et al. 2017): nearest class mean in a meta-learned embedding."""

    network: Network
    """The embedding."""

    def build(self, problem: Problem) -> Method:
        """ProtoNet on the problem's inputs."""
        return algorithms.protonet(self.network.build(problem, head=False), loss=_loss(problem))


@dataclass(frozen=True, kw_only=True)
class Protomaml:
    """Proto-MAML (Triantafillou et al. 2020): MAML whose last layer begins at the class prototypes."""

    network: Network
    """The network but for its last layer."""
    rate: float
    """α, the inner rate."""
    steps: int = 1
    """Inner steps in training."""
    test_steps: int | None = None
    """Inner steps in validation and test. None: as in training."""
    adapt_norms: bool = False
    """Let the inner loop move the normalisation's parameters too."""
    first_order: bool = False
    """Drop second derivatives."""

    def build(self, problem: Problem) -> Method:
        """Proto-MAML on the problem's inputs."""
        network = self.network.build(problem, head=False)
        adapts = None if self.adapt_norms else without_norms(network)
        return algorithms.protomaml(
            network, rate=self.rate, steps=self.steps, adapts=adapts, first_order=self.first_order, loss=_loss(problem)
        )

    def at_test(self) -> dict[str, Any]:
        """Settings of the descents in validation and test, where they differ from training."""
        return {} if self.test_steps is None else {"steps": self.test_steps}
