"""Settings of methods that adapt in ways of their own: Reptile and prototypes."""

from __future__ import annotations

from fewstep import core, networks
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem


class Reptile(Settings, algorithm="reptile"):
    """Reptile (Nichol et al. 2018): move the initialisation to where adaptation went."""

    network: Network = before("rate")
    """The network; its initialisation is what is meta-learned."""
    test_steps: int | None = before("rule", None)
    """Inner steps in validation and test. None: as in training."""
    test_batch: int | None = before("rule", None)
    """Rows of an inner mini-batch in validation and test. None: as in training."""

    def build(self, problem: Problem) -> core.Method:
        """Reptile on the problem's inputs."""
        return self.compose(network=self.network.build(problem), loss=loss_of(problem))


class Protonet(Settings, algorithm="protonet"):
    """Prototypical networks (Snell et al. 2017): nearest class mean in a meta-learned embedding."""

    network: Network
    """The embedding."""

    def build(self, problem: Problem) -> core.Method:
        """ProtoNet on the problem's inputs."""
        return self.compose(network=self.network.build(problem, head=False), loss=loss_of(problem))


class Protomaml(Settings, algorithm="protomaml"):
    """Proto-MAML (Triantafillou et al. 2020): MAML whose last layer begins at the class prototypes."""

    network: Network = before("rate")
    """The network but for its last layer."""
    test_steps: int | None = before("first_order", None)
    """Inner steps in validation and test. None: as in training."""
    adapt_norms: bool = before("first_order", False)
    """Let the inner loop move the normalisation's parameters too."""

    def build(self, problem: Problem) -> core.Method:
        """Proto-MAML on the problem's inputs."""
        network = self.network.build(problem, head=False)
        adapts = None if self.adapt_norms else networks.without_norms(network)
        return self.compose(network=network, adapts=adapts, loss=loss_of(problem))
