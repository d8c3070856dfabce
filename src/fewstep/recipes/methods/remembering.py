"""Settings of methods whose head looks at the support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep import core
from fewstep.recipes.methods.network import Network, loss_of
from fewstep.recipes.methods.settings import Settings, before
from fewstep.recipes.problems.problem import Problem

if TYPE_CHECKING:
    from torch import nn


def _width(network: nn.Module, problem: Problem) -> int:
    """The number of features that an embedding makes of the problem's inputs."""
    import torch

    from fewstep.core.network.shapes import output_shape

    return output_shape(network, torch.zeros(2, *problem.inputs))[0]


class Matching(Settings, algorithm="matching"):
    """Matching networks (Vinyals et al. 2016): cosines with the support, in a meta-learned embedding."""

    network: Network = before("vote")
    """The embedding."""

    def build(self, problem: Problem) -> core.Method:
        """Matching networks on the problem's inputs."""
        network = self.network.build(problem, head=False)
        return self.compose(network=network, features=_width(network, problem), loss=loss_of(problem))
