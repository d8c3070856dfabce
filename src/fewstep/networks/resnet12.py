"""The twelve-layer residual network of the few-shot literature."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.networks.heads import Generated
from fewstep.networks.norms import BatchNorm


@final
class ResNet12(nn.Module):
    """Four residual blocks of three 3×3 convolutions, a spatial mean, and a linear layer.

    ``h_0 = x`` · ``h_b = pool(σ(f_b(h_{b−1}) + BN(P_b * h_{b−1})))`` with ``f_b`` three convolutions, a normalisation
    after each, σ after the first two; P_b a 1×1 convolution, σ the leaky ReLU of slope 0.1, and a 2×2 maximum that
    drops an odd row and column. Convolutions have no biases, and Kaiming-normal weights.

    Widths of 64, 160, 320, 640 are those of MetaOptNet (Lee et al. 2019) and of most work since; TADAM (Oreshkin et al.
    2018), who introduced the network, has 64, 128, 256, 512. Both also drop units or blocks of them in training; this
    network has no randomness of its own. The normalisation is by the rows at hand, with gradients that are right at
    second order under ``vmap``.

    Args:
        outputs: width of the last layer, the number of ways; None for a :class:`Generated` head.
        inputs: channels of the images.
        widths: channels of each block.

    Raises:
        ValueError: for no blocks.
    """

    def __init__(self, outputs: int | None, inputs: int = 3, widths: Sequence[int] = (64, 160, 320, 640)) -> None:
        super().__init__()
        if not widths:
            raise ValueError("ResNet12: give the width of at least one block, got none.")
        self.blocks = nn.Sequential(*(_Residual(a, b) for a, b in pairwise((inputs, *widths))))
        self.head = Generated() if outputs is None else nn.Linear(widths[-1], outputs)

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows outputs"]:
        """Logits."""
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(inputs, outputs, 3), nn.LeakyReLU(0.1),
            *_convolution(outputs, outputs, 3), nn.LeakyReLU(0.1),
            *_convolution(outputs, outputs, 3),
        )  # fmt: skip
        self.shortcut = nn.Sequential(*_convolution(inputs, outputs, 1))
        self.ends = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.ends(self.branch(x) + self.shortcut(x))
        return h


def _convolution(inputs: int, outputs: int, side: int) -> tuple[nn.Module, nn.Module]:
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, a=0.1, nonlinearity="leaky_relu")
    return layer, BatchNorm(outputs)
