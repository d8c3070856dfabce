"""Settings of methods whose head looks at the support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep import core
from fewstep.core.ranges import Count, CountOrZero, Positive
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem

if TYPE_CHECKING:
    from torch import nn


def _shape(network: nn.Module, problem: Problem) -> tuple[int, ...]:
    """The shape of what an embedding makes of one of the problem's inputs."""
    import torch

    from fewstep.core.network.shapes import output_shape

    return tuple(output_shape(network, torch.zeros(2, *problem.inputs)))


class Matching(Settings, algorithm="matching"):
    """Matching networks (Vinyals et al. 2016): cosines with the support, in a meta-learned embedding."""

    network: Network = before("vote")
    """The embedding."""

    def build(self, problem: Problem) -> core.Method:
        """Matching networks on the problem's inputs."""
        network = self.network.build(problem, head=False)
        return self.compose(network=network, features=_shape(network, problem)[0], loss=loss_of(problem))


class Relation(Settings, algorithm="relation"):
    """Relation networks (Sung et al. 2018): a learned score beside each class, in a meta-learned embedding."""

    network: Network = before("reduce")
    """The embedding."""
    units: Count = before("reduce", 64)
    """Channels or units of the network that scores pairs."""

    def build(self, problem: Problem) -> core.Method:
        """Relation networks on the problem's inputs."""
        from fewstep.networks.relating import of_maps, of_vectors

        network = self.network.build(problem, head=False)
        channels, *sides = _shape(network, problem)
        module = of_maps(channels, sides[0], self.units) if sides else of_vectors(channels, self.units)
        return self.compose(network=network, module=module)


class Tpn(Settings, algorithm="tpn"):
    """TPN (Liu et al. 2019): labels that spread over a graph of support and queries together; transductive."""

    network: Network = before("neighbours")
    """The embedding."""
    widths: bool = before("neighbours", True)
    """Learn how wide the neighbourhood of a row is; false: all are alike (label propagation)."""
    begins: Positive = before("neighbours", 0.3)
    """About what the width of vectors is at first; maps have the published network."""

    def build(self, problem: Problem) -> core.Method:
        """TPN on the problem's inputs."""
        from fewstep.networks import Conv4
        from fewstep.networks.propagating import width_of_maps, width_of_vectors

        network, width = self.network.build(problem, head=False), None
        if self.widths and isinstance(network, Conv4) and network.readout == "flatten":
            width = width_of_maps(*network.maps)
        elif self.widths:
            width = width_of_vectors(_shape(network, problem)[0], begins=self.begins)
        return self.compose(network=network, width=width, loss=loss_of(problem))


class Snail(Settings, algorithm="snail"):
    """SNAIL (Mishra et al. 2018): a network that reads the support as a sequence, and a query as its end."""

    network: Network = before("most_shots")
    """The embedding."""

    def build(self, problem: Problem) -> core.Method:
        """SNAIL on the problem's inputs."""
        network = self.network.build(problem, head=False)
        features = _shape(network, problem)[0]
        return self.compose(network=network, features=features, ways=problem.outputs, loss=loss_of(problem))


class Csn(Settings, algorithm="csn"):
    """Conditionally shifted neurons (Munkhdalai et al. 2018): units shifted by what errors on the support were."""

    network: Network = before("layers")
    """The base learner, and without its output layer the network of keys."""

    def build(self, problem: Problem) -> core.Method:
        """Conditionally shifted neurons on the problem's inputs."""
        network, key = self.network.build(problem), self.network.build(problem, head=False)
        return self.compose(network=network, key=key, ways=problem.outputs, loss=loss_of(problem))


class Tadam(Settings, algorithm="tadam"):
    """TADAM (Oreshkin et al. 2018): distances to class means, in an embedding that the task itself conditions."""

    network: Network = before("scale")
    """The embedding."""
    auxiliary_rows: CountOrZero = before("scale", 64)
    """Rows of base classes that a step of the auxiliary loss names. 0: there is no such loss."""

    def build(self, problem: Problem) -> core.Method:
        """TADAM on the problem's inputs."""
        from fewstep.data import RandomRows

        network, base = self.network.build(problem, head=False), None
        if self.auxiliary_rows and problem.examples is not None:
            base = RandomRows(problem.examples(), self.auxiliary_rows)
        return self.compose(network=network, features=_shape(network, problem)[0], base=base, loss=loss_of(problem))
