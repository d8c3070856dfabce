"""A residual network of nine layers: as much as a CPU trains on small photographs within the hour."""

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from fewstep.networks.backbone import Backbone, convolution


@final
class ResNet9(Backbone):
    """Eight 3×3 convolutions, two pairs of them with a shortcut, then a linear classifier on the spatial mean.

    With ``f = ReLU(BN(W * ·))``, widths a, b, c, d and pools of 2×2 maxima:
    ``stem = f_b(f_a(x))`` pooled · ``first = h + f(f(h))`` · ``widen = f_c`` pooled, then ``f_d`` pooled ·
    ``second = h + f(f(h))`` · ``logits = V mean(h) + e``. Images of 32×32 end at 4×4. Layers are ``stem``, ``first``,
    ``widen`` and ``second``; ``widen`` and ``second`` have as many channels, so that features of the middle and of the
    last layer are of the same length.

    The shape is that of the networks which are trained on CIFAR-10 within minutes (Page 2018, "How to train your
    ResNet"), with a wider end and without their tricks. The normalisation is torch's own, with running statistics.

    Args:
        classes: outputs of the classifier.
        inputs: channels of the images.
        widths: a, b, c, d.

    Raises:
        ValueError: unless there are four positive widths.
    """

    trunk = ("stem", "first", "widen", "second")
    middle, last = "widen", "second"
    numbered = ("stem", "stem", "first", "first", "widen", "widen", "second", "second")
    smallest = 8  # one pixel has to be left after three pools

    def __init__(self, classes: int, inputs: int = 3, widths: Sequence[int] = (64, 128, 256, 640)) -> None:
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"ResNet9: give four positive widths, got {tuple(widths)}.")
        self.inputs, (a, b, c, d) = inputs, widths
        self.stem = nn.Sequential(_convolution(inputs, a), _convolution(a, b), nn.MaxPool2d(2))
        self.first = _Residual(b)
        self.widen = nn.Sequential(_convolution(b, c), nn.MaxPool2d(2), _convolution(c, d), nn.MaxPool2d(2))
        self.second = _Residual(d)
        self.head = nn.Linear(d, classes)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x + self.branch(x)
        return h


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
