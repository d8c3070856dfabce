"""Settings of methods that adapt a network's own weights: MAML and its kin."""

from __future__ import annotations

from typing import Any, Literal

from fewstep import core, networks
from fewstep.core.ranges import Count, CountOrZero, Positive
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem


class Adapting(Settings):
    """What methods that adapt a network's own weights have in common."""

    network: Network
    """The network; its initialisation is what is meta-learned."""
    steps: CountOrZero = 1
    """Inner steps in training."""
    test_steps: CountOrZero | None = None
    """Inner steps in validation and test. None: as in training."""
    adapt_norms: bool = False
    """Let the inner loop move the normalisation's parameters too."""
    support_reduction: Literal["mean", "sum"] = "mean"
    """Of the inner loss over support rows."""

    def build(self, problem: Problem) -> core.Method:
        """The method on the problem's inputs."""
        return self.compose(**self.parts(problem))

    def parts(self, problem: Problem) -> dict[str, Any]:
        """Arguments that the algorithms share and that are no settings."""
        network = self.network.build(problem)
        adapts = None if self.adapt_norms else networks.without_norms(network)
        return {"network": network, "adapts": adapts, "loss": loss_of(problem, self.support_reduction, self.network)}


class Maml(Adapting, algorithm="maml"):
    """Model-Agnostic Meta-Learning, and first-order MAML (Finn et al. 2017)."""

    members: Count | None = before("clip", None)
    """An ensemble of so many networks, each meta-trained for itself on the same tasks (regression). None: no
    ensemble."""

    def parts(self, problem: Problem) -> dict[str, Any]:
        """Arguments that the algorithms share, for one network or for an ensemble.

        Raises:
            ValueError: for an ensemble of classifiers, or of networks that predict deviations.
        """
        if self.members is None:
            return super().parts(problem)
        if not problem.regression:
            raise ValueError("an ensemble predicts regression targets; for classification leave method.members out.")
        if self.network.deviations:
            raise ValueError("an ensemble averages targets, and no deviations: leave method.network.deviations out.")
        from fewstep.networks.ensemble import squared_error_of_each, squared_error_of_the_mean

        network = networks.Ensemble(lambda: self.network.build(problem), self.members)
        loss = core.Loss(squared_error_of_each, self.support_reduction, squared_error_of_the_mean, "mse")
        return {"network": network, "loss": loss}


class Anil(Adapting, algorithm="anil", omit=("head",)):
    """ANIL (Raghu et al. 2020): MAML whose inner loop moves the last layer alone."""

    def parts(self, problem: Problem) -> dict[str, Any]:
        """Arguments that the algorithms share, without what adapts."""
        return {name: part for name, part in super().parts(problem).items() if name != "adapts"}


class Cavia(Settings, algorithm="cavia"):
    """CAVIA (Zintgraf et al. 2019): a few numbers steer the network, and they alone are adapted."""

    network: Network = before("rate")
    """The network; it is meta-learned whole, and adapts nothing but its context."""
    context: Count = before("rate", 100)
    """Numbers of the context. Vectors have them beside their entries; of images they scale and shift the third block's
    channels."""
    test_steps: CountOrZero | None = before("first_order", None)
    """Inner steps in validation and test. None: as in training."""
    support_reduction: Literal["mean", "sum"] = before("first_order", "mean")
    """Of the inner loss over support rows."""

    def build(self, problem: Problem) -> core.Method:
        """CAVIA on the problem's inputs."""
        network = self.network.build(problem, context=self.context)
        return self.compose(network=network, loss=loss_of(problem, self.support_reduction, self.network))


class MetaSgd(Adapting, algorithm="meta_sgd"):
    """Meta-SGD (Li et al. 2017): MAML with one meta-learned rate for every parameter."""

    rate: tuple[Positive, Positive] = (0.005, 0.1)
    """Range of the uniform draw of initial rates α."""


class Deml(Settings, algorithm="deml"):
    """DEML with Meta-SGD (Zhou et al. 2018): Meta-SGD on features that are learned with it and name base classes."""

    network: Network = before("rate")
    """G, the network of concepts; it is not adapted."""
    hidden: tuple[Count, ...] = before("rate", (1024, 512))
    """Units of the hidden layers of the network that is adapted."""
    auxiliary_rows: CountOrZero = before("weight", 64)
    """Rows of base classes that are to be named in a meta-step. 0: there is no such loss."""

    def build(self, problem: Problem) -> core.Method:
        """DEML on the problem's inputs."""
        import torch

        from fewstep.core.network.shapes import output_shape
        from fewstep.data import RandomRows

        concepts, base = self.network.build(problem, head=False), None
        if self.auxiliary_rows and problem.examples is not None:
            base = RandomRows(problem.examples(), self.auxiliary_rows)
        (features,) = output_shape(concepts, torch.zeros(2, *problem.inputs))
        network = networks.mlp((features, *self.hidden, problem.outputs))
        return self.compose(network=network, concepts=concepts, features=features, base=base, loss=loss_of(problem))


class MetaCurvature(Adapting, algorithm="meta_curvature"):
    """Meta-Curvature (Park and Oliva 2019): MAML with meta-learned matrices that multiply the gradient."""


class MtNet(Adapting, algorithm="mt_net"):
    """T-net and MT-net (Lee and Choi 2018): MAML with a matrix for each layer, for units that a task draws."""


class MamlPlusPlus(Adapting, algorithm="maml_plus_plus"):
    """MAML++ (Antoniou et al. 2019): learned rates and norms for each inner step, losses after every one."""

    steps: Count = 5
    """Inner steps in training."""
    stepwise_norms: bool = before("rate", True)
    """Normalise with a γ and β of its own for each inner step (four blocks)."""

    def parts(self, problem: Problem) -> dict[str, Any]:
        """Arguments that the algorithms share, for a network that knows the steps."""
        network = self.network.build(problem, norm_steps=self.steps if self.stepwise_norms else 0)
        adapts = None if self.adapt_norms else networks.without_norms(network)
        return {"network": network, "adapts": adapts, "loss": loss_of(problem, self.support_reduction, self.network)}


class MetaLstm(Adapting, algorithm="meta_lstm"):
    """Meta-LSTM (Ravi and Larochelle 2017): the rule is a recurrent network's."""

    adapt_norms: bool = True
    """Let the inner loop move the normalisation's parameters too, as the authors do."""


class Imaml(Adapting, algorithm="imaml", omit=("tolerance",)):
    """iMAML (Rajeswaran et al. 2019): the implicit gradient at the end of a regularised descent."""

    def at_test(self) -> dict[str, Any]:
        """Steps of a test, and the authors' test without the pull."""
        return super().at_test() | ({"prox": 0.0} if self.variant == "authors" else {})
