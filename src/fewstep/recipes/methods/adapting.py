"""Settings of methods that adapt a network's own weights: MAML and its kin."""

from dataclasses import dataclass
from typing import Any, Literal

from fewstep import algorithms
from fewstep.core import Loss, Method
from fewstep.core.loss import Reduction
from fewstep.networks import Ensemble, without_norms
from fewstep.networks.ensemble import squared_error_of_each, squared_error_of_the_mean
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.problems.problem import Problem


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
        return {
            "network": network,
            "adapts": adapts,
            "steps": self.steps,
            "loss": loss_of(problem, self.support_reduction),
        }

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
            **self.parts(problem),
            rate=self.rate,
            diagonal=self.diagonal,
            per_step=self.per_step,
            learned_rates=self.learned_rates,
        )


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
            **self.parts(problem),
            rate=self.rate,
            prox=self.prox,
            iterations=self.iterations,
            damping=self.damping,
            variant=self.variant,
        )

    def at_test(self) -> dict[str, Any]:
        """Steps of a test, and the authors' test without the pull."""
        return super().at_test() | ({"prox": 0.0} if self.variant == "authors" else {})
