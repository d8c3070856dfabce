"""The twelve-layer residual network of the few-shot literature."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from fewstep.networks.backbone import Backbone, convolution
from fewstep.networks.heads import Generated
from fewstep.networks.norms import BatchNorm


@final
class ResNet12(Backbone):
    """Four residual blocks of three 3×3 convolutions, a spatial mean, and a linear layer.

    ``h_0 = x`` · ``h_b = pool(σ(f_b(h_{b−1}) + BN(P_b * h_{b−1})))`` with ``f_b`` three convolutions, a normalisation
    after each, σ after the first two; P_b a 1×1 convolution, σ the leaky ReLU of slope 0.1, and a 2×2 maximum that
    drops an odd row and column. Convolutions have no biases, and Kaiming-normal weights.

    Widths of 64, 160, 320, 640 are those of MetaOptNet (Lee et al. 2019) and of most work since; TADAM (Oreshkin et al.
    2018), who introduced the network, has 64, 128, 256, 512. Both also drop units or blocks of them in training; this
    network has no randomness of its own. The normalisation is by the rows at hand, with gradients that are right at
    second order under ``vmap``; a network that is trained by plain gradients, for its features, wants torch's, with
    running statistics: ``norm=nn.BatchNorm2d``.

    Layers are ``blocks.0`` to ``blocks.3``: the last is 640 wide, and the middle one, before it, 320. Convolutions are
    numbered 1 to 16, with a block's shortcut as its fourth.

    Args:
        outputs: width of the last layer, the number of ways; None for a :class:`Generated` head.
        inputs: channels of the images.
        widths: channels of each block.
        norm: makes the normalisation of so many channels.

    Raises:
        ValueError: for no blocks.
    """

    def __init__(
        self,
        outputs: int | None,
        inputs: int = 3,
        widths: Sequence[int] = (64, 160, 320, 640),
        *,
        norm: Callable[[int], nn.Module] = BatchNorm,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("ResNet12: give the width of at least one block, got none.")
        self.inputs, n = inputs, len(widths)
        self.blocks = nn.Sequential(*(_Residual(a, b, norm) for a, b in pairwise((inputs, *widths))))
        self.head = Generated() if outputs is None else nn.Linear(widths[-1], outputs)
        # A network of one block has no other layer for its middle.
        self.middle, self.last = f"blocks.{max(0, n - 2)}", f"blocks.{n - 1}"
        self.numbered = tuple(f"blocks.{i // 4}" for i in range(4 * n))
        self.smallest = 2**n  # one pixel has to be left after every block's pool


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (inputs, outputs, outputs):
            layers += [convolution(width, outputs, slope=0.1), norm(outputs), nn.LeakyReLU(0.1)]
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, slope=0.1), norm(outputs))
        self.ends = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.ends(self.branch(x) + self.shortcut(x))
        return h
