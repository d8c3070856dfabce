"""A network with the standardisation of its images: mean 0 and deviation 1 in each channel."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.data import Dataset
from fewstep.networks.backbone import Backbone


@final
class Standardised(nn.Module):
    """``backbone((x − m) / s)`` with m and s of each channel, over the images that the network was trained on.

    They are kept with the weights, so that whoever has the network can give it images from 0 to 1.

    Args:
        backbone: the network.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.zeros(backbone.inputs))
        self.register_buffer("deviation", torch.ones(backbone.inputs))

    def measure(self, dataset: Dataset) -> None:
        """Take m and s from images ``[n, channels, height, width]`` from 0 to 1."""
        total, squares, count = (torch.zeros(self.backbone.inputs, dtype=torch.float64) for _ in range(3))
        for positions in dataset.blocks():
            rows = dataset.gather(positions, dtype=torch.float64)
            total += rows.sum((0, 2, 3))
            squares += rows.square().sum((0, 2, 3))
            count += rows.numel() / rows.shape[1]
        mean = total / count
        # A channel that never changes says nothing, and must not be divided by zero.
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows classes"]:
        """Logits of images from 0 to 1."""
        logits: Tensor = self.backbone((x - self.mean[:, None, None]) / self.deviation[:, None, None])
        return logits
