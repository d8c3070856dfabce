"""A plain convolutional network: small enough to be trained in a minute on small images."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import final

from torch import nn

from fewstep.networks.backbone import Backbone, convolution


@final
class ConvNet(Backbone):
    """Blocks of 3×3 convolution, batch normalisation and ReLU, then a linear classifier on the spatial mean.

    ``h_0 = x`` · ``h_b = pool(ReLU(BN(W_b * h_{b−1})))`` · ``logits = V mean(h_B) + c``. The first blocks pool 2×2, by
    maxima. Blocks are counted from 1 and are named ``blocks.block1``, ``blocks.block2``, ...

    The normalisation is torch's own, with running statistics. The rest of the library avoids it, because it is wrong
    at second order under ``vmap``; this network is trained by plain gradients, and is never adapted inside a task.

    Args:
        classes: outputs of the classifier.
        channels: width of each block.
        inputs: channels of the images.
        pools: how many of the first blocks halve the resolution.

    Raises:
        ValueError: for no blocks, widths that are not positive, or more pools than blocks.
    """

    def __init__(
        self, classes: int, channels: Sequence[int] = (32, 64, 128, 256), inputs: int = 1, pools: int = 3
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"ConvNet: channels must be positive numbers, one for each block; got {tuple(channels)}.")
        if not 0 <= pools <= len(channels):
            raise ValueError(f"ConvNet: pools must be from 0 to the number of blocks, {len(channels)}; got {pools}.")
        self.channels, self.inputs, self.pools = tuple(channels), inputs, pools
        self.blocks = nn.Sequential()
        for i, (a, b) in enumerate(zip((inputs, *channels[:-1]), channels, strict=True), start=1):
            layers = {"convolution": convolution(a, b), "norm": nn.BatchNorm2d(b), "relu": nn.ReLU(inplace=True)}
            if i <= pools:
                layers["pool"] = nn.MaxPool2d(2)
            self.blocks.add_module(f"block{i}", nn.Sequential(OrderedDict(layers)))
        self.head = nn.Linear(channels[-1], classes)
        self.numbered = tuple(f"blocks.block{i}" for i in range(1, len(channels) + 1))
        # A network of one block has no other layer for its middle.
        self.middle, self.last = self.numbered[max(0, len(channels) - 2)], self.numbered[-1]
        self.smallest = 2**pools  # one pixel has to be left after the pools
