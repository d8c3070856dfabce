"""A batch in two halves, which two processes hold, is normalised as a whole."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fewstep.core.ranks import Ranks
from fewstep.networks import ResNet12
from fewstep.networks.resnet9 import ResNet9
from fewstep.training.pretraining.shared_norms import share_statistics


class Twins(Ranks):
    """Two processes that hold the same rows, so that each knows what the other would say."""

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [2 * tensor for tensor in tensors]


@pytest.mark.parametrize("build", [lambda: ResNet9(3, 1, (2, 2, 3, 3)), lambda: ResNet12(3, 1, (2, 3))])
def test_gradients_and_running_statistics_are_those_of_the_whole_batch(build) -> None:
    torch.manual_seed(0)
    whole, shared = build().double(), build().double()
    shared.load_state_dict(whole.state_dict())
    share_statistics(shared, Twins(0, 2), 10)
    half = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    whole(torch.cat([half, half])).square().sum().backward()
    (2 * shared(half).square().sum()).backward()
    gradients = [{name: p.grad for name, p in network.named_parameters()} for network in (shared, whole)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(dict(shared.state_dict()), dict(whole.state_dict()))
