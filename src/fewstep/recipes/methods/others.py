"""Settings of methods that adapt in ways of their own: Reptile and prototypes."""

from dataclasses import dataclass
from typing import Any, Literal

from fewstep import algorithms
from fewstep.core import Method
from fewstep.networks import without_norms
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.problems.problem import Problem


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
            self.network.build(problem),
            rate=self.rate,
            steps=self.steps,
            batch=self.batch,
            rule=self.rule,
            carried=self.carried,
            loss=loss_of(problem),
        )

    def at_test(self) -> dict[str, Any]:
        """Steps and mini-batches of a test."""
        settings = {"steps": self.test_steps, "batch": self.test_batch}
        return {name: value for name, value in settings.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Protonet:
    """Prototypical networks (Snell et al. 2017): nearest class mean in a meta-learned embedding."""

    network: Network
    """The embedding."""

    def build(self, problem: Problem) -> Method:
        """ProtoNet on the problem's inputs."""
        return algorithms.protonet(self.network.build(problem, head=False), loss=loss_of(problem))


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
            network,
            rate=self.rate,
            steps=self.steps,
            adapts=adapts,
            first_order=self.first_order,
            loss=loss_of(problem),
        )

    def at_test(self) -> dict[str, Any]:
        """Settings of the descents in validation and test, where they differ from training."""
        return {} if self.test_steps is None else {"steps": self.test_steps}
