"""The wide residual network, whose intermediate features the LEO paper adapts on."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

from fewstep.networks.backbone import Backbone, convolution


@final
class WideResNet(Backbone):
    """A convolution, three groups of pre-activated residual blocks, a spatial mean, and a linear layer.

    ``h_0 = W_0 * x`` · ``a_b = ReLU(BN(h_{b−1}))`` · ``h_b = s_b + W″_b * drop(ReLU(BN(W′_b * a_b)))`` ·
    ``logits = W mean(ReLU(BN(h_B))) + c``

    with s_b = h_{b−1}, or a 1×1 convolution of a_b in a block that changes the shape. W′ and W″ are 3×3, the first of
    them strided in the first block of a group. The groups are 16k, 32k, 64k wide, for k the factor of ``width``, and
    have n = (depth − 4)/6 blocks each, so that there are 6n + 4 convolutions with the shortcuts' (for k = 1 and stride
    1 the first group needs no shortcut). WRN-28-10 is the default.

    ========================= ================= ==================================================================
    layer                     convolutions (28) activations
    ========================= ================= ==================================================================
    ``stem``                  1                 h_0, 16 wide
    ``groups.0.0`` to ``.3``  2 to 10           h_1 to h_4, 16k wide: the sums, which no ReLU has rectified
    ``groups.1.0`` to ``.3``  11 to 19          h_5 to h_8, 32k wide
    ``groups.2.0`` to ``.3``  20 to 28          h_9 to h_12, 64k wide; ``groups.2.0`` (20, 21, 22) is ``"middle"``
    ``end``                   none              ReLU(BN(h_12)), ``"last"``
    ``groups.2.1.before``     none              a_10: the normalised and rectified input of a block
    ``groups.2.1.between``    none              what its second convolution reads
    ========================= ================= ==================================================================

    Convolutions are numbered with a block's shortcut as its third. The normalisation is torch's own, with running
    statistics: this network is trained by plain gradients, and is never adapted inside a task. Convolutions have no
    biases and weights from N(0, 2/fan-out); the classifier's bias starts at zero.

    Source: Zagoruyko & Komodakis 2016, "Wide Residual Networks", the basic block with dropout, and the authors' code.
    LEO (Rusu et al. 2019, appendix B.2) has WRN-28-10 on images of 80×80 with dropout of 0.5 inside the blocks and
    exports the mean over space of "activations in layer 21". What that section says no more of, and is inferred here:

    - "3 steps of dimensionality reduction" are read as a stride of 2 in every group, ``strides=(2, 2, 2)``, by which 80
      pixels become 10; the 2016 paper, for 32×32, has two such steps, ``(1, 2, 2)``, and 8 pixels.
    - Layer 21 is a convolution, counted with the shortcuts, without which there are 25 and not 28. (Counted without, it
      ends in ``groups.2.1``; 640 numbers fit both.) That its activations are the output of its block, the sum, is a
      choice: ``groups.2.0.second`` is the convolution alone, ``groups.2.1.before`` the sum normalised and rectified.
    - Initial weights and the momentum of the normalisation are the 2016 paper's or torch's.

    Args:
        classes: outputs of the classifier.
        inputs: channels of the images.
        depth: 6n + 4 for n blocks a group.
        width: k.
        dropout: probability that a unit between a block's convolutions is zeroed in training, in [0, 1).
        strides: of the groups.

    Raises:
        ValueError: for a depth that is not 6n + 4, another number of strides than three, numbers that are not positive,
            or a dropout outside [0, 1).
    """

    trunk = ("stem", "groups", "end")
    middle, last = "groups.2.0", "end"
    smallest = 1  # the convolutions are padded, and the mean takes a map of any size

    def __init__(
        self,
        classes: int,
        inputs: int = 3,
        depth: int = 28,
        width: int = 10,
        dropout: float = 0.0,
        *,
        strides: Sequence[int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"WideResNet: depth must be 6n + 4 for n blocks a group (10, 16, 22, 28, …), got {depth}.")
        if min(classes, inputs, width) < 1:
            raise ValueError(
                f"WideResNet: classes, inputs and width must be positive; got {classes}, {inputs} and {width}."
            )
        if len(strides) != 3 or min(strides) < 1:
            raise ValueError(f"WideResNet: strides must be three positive numbers, one a group; got {tuple(strides)}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"WideResNet: dropout must be in [0, 1), the probability of zeroing; got {dropout}.")
        self.inputs, blocks, widths = inputs, (depth - 4) // 6, (16, 16 * width, 32 * width, 64 * width)
        self.stem = convolution(inputs, 16, fan_out=True)
        self.groups = nn.Sequential(
            *(
                nn.Sequential(_Block(a, b, stride, dropout), *(_Block(b, b, 1, dropout) for _ in range(1, blocks)))
                for (a, b), stride in zip(pairwise(widths), strides, strict=True)
            )
        )
        self.end = _rectified(widths[-1])
        self.head = nn.Linear(widths[-1], classes)
        nn.init.zeros_(self.head.bias)
        named = [(name, block) for name, block in self.named_modules() if isinstance(block, _Block)]
        # A block has two convolutions, and a third in its shortcut where that has one.
        self.numbered = ("stem", *(name for name, block in named for _ in range(2 + (block.shortcut is not None))))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.before = _rectified(inputs)
        self.first = convolution(inputs, outputs, 3, stride, fan_out=True)
        self.between = _rectified(outputs)
        self.between.add_module("dropout", nn.Dropout(dropout))
        self.second = convolution(outputs, outputs, fan_out=True)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else convolution(inputs, outputs, 1, stride, fan_out=True)

    def forward(self, x: Tensor) -> Tensor:
        a = self.before(x)
        branch: Tensor = self.second(self.between(self.first(a)))
        return branch + (x if self.shortcut is None else self.shortcut(a))


def _rectified(channels: int) -> nn.Sequential:
    # Not in place: whoever asks for a norm's own output by a hook gets it unrectified.
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU()))
