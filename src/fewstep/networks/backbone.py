"""The convolutional network of stage 1, whose intermediate features the second stage adapts on."""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class Backbone(nn.Module):
    """Blocks of 3×3 convolution, batch normalisation and ReLU, then a linear classifier on the spatial mean.

    ``h_0 = x`` · ``h_b = pool(ReLU(BN(W_b * h_{b−1})))`` · ``features(x, b) = mean over space of h_b``. The first
    blocks pool 2×2, by maxima. Blocks are counted from 1 and are named ``blocks.block1``, ``blocks.block2``, ...

    The normalisation is torch's own, with running statistics. The rest of the library avoids it, because it is wrong
    at second order under ``vmap``; this network is trained by plain gradients, and is never adapted inside a task.

    Args:
        classes: outputs of the classifier; None for a network that has features only.
        channels: width of each block.
        inputs: channels of the images.
        pools: how many of the first blocks halve the resolution.

    Raises:
        ValueError: for no blocks, widths that are not positive, or more pools than blocks.
    """

    def __init__(
        self, classes: int | None, channels: Sequence[int] = (32, 64, 128, 256), inputs: int = 1, pools: int = 3
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise ValueError(f"Backbone: channels must be positive numbers, one for each block; got {tuple(channels)}.")
        if not 0 <= pools <= len(channels):
            raise ValueError(f"Backbone: pools must be from 0 to the number of blocks, {len(channels)}; got {pools}.")
        self.channels, self.inputs, self.pools = tuple(channels), inputs, pools
        self.blocks = nn.Sequential()
        for i, (a, b) in enumerate(zip((inputs, *channels[:-1]), channels, strict=True), start=1):
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            layers["convolution"] = nn.Conv2d(a, b, 3, padding=1, bias=False)
            layers["norm"] = nn.BatchNorm2d(b)
            layers["relu"] = nn.ReLU(inplace=True)
            if i <= pools:
                layers["pool"] = nn.MaxPool2d(2)
            self.blocks.add_module(f"block{i}", nn.Sequential(layers))
        self.head = None if classes is None else nn.Linear(channels[-1], classes)

    def features(self, x: Float[Tensor, "rows inputs height width"], block: int) -> Float[Tensor, "rows channels"]:
        """The output of a block, averaged over space.

        Args:
            x: images.
            block: which block, from 1.

        Raises:
            ValueError: if there is no such block.
        """
        self.check(block)
        for layer in self._first(block):
            x = layer(x)
        return x.mean((2, 3))

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows classes"]:
        """Logits.

        Raises:
            ValueError: if the network was made without a classifier.
        """
        if self.head is None:
            raise ValueError("Backbone: this network has no classifier; make it with a number of classes.")
        logits: Tensor = self.head(self.features(x, len(self.blocks)))
        return logits

    def up_to(self, block: int) -> "Backbone":
        """A copy that ends with a block and has no classifier: what computes that block's features, and no more."""
        self.check(block)
        part = Backbone(None, self.channels[:block], self.inputs, min(self.pools, block))
        part.blocks = nn.Sequential(
            OrderedDict((f"block{i}", copy.deepcopy(layer)) for i, layer in enumerate(self._first(block), 1))
        )
        return part.train(self.training)

    def _first(self, blocks: int) -> list[nn.Module]:
        return list(self.blocks)[:blocks]

    def check(self, block: int) -> None:
        """Whether there is such a block.

        Raises:
            ValueError: if not.
        """
        if not 1 <= block <= len(self.blocks):
            raise ValueError(f"Backbone: block must be from 1 to {len(self.blocks)}, got {block}.")
