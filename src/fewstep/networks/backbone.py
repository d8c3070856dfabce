"""The base class of networks that are trained to name classes, and then used for their features."""

from jaxtyping import Float
from torch import Tensor, nn


class Backbone(nn.Module):
    """A convolutional classifier whose layers can be asked for their activations by name.

    ``logits = head(mean over space of trunk(x))``

    A layer is any submodule, by its dotted name; or ``"middle"``, ``"last"``, or the number of a convolution, counted
    from 1, by which is meant the module in which that convolution's activations end (a residual block).

    Attributes:
        inputs: channels of the images.
        trunk: names of the modules that an image passes through, in their order.
        head: the classifier, on the mean over space of the last layer.
        middle: name of the layer before the last one, the regime of the LEO paper, which works on features that are not
            yet specialised to the training classes.
        last: name of the layer whose mean over space the classifier reads.
        numbered: names of the modules in which the 1st, 2nd, … convolution's activations end.
        smallest: side of the smallest image that it takes, in pixels.
    """

    inputs: int
    trunk: tuple[str, ...] = ("blocks",)
    head: nn.Module
    middle: str
    last: str
    numbered: tuple[str, ...]
    smallest: int

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows outputs"]:
        """Logits."""
        for name in self.trunk:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits

    def layer(self, wanted: str) -> str:
        """The dotted name of a layer.

        Args:
            wanted: ``"middle"``, ``"last"``, a convolution's number such as ``"21"``, or a submodule's name.

        Raises:
            ValueError: if there is no such layer; the message names some that there are.
        """
        if wanted in ("middle", "last"):
            return self.middle if wanted == "middle" else self.last
        if wanted.isdecimal():
            if not 1 <= int(wanted) <= len(self.numbered):
                raise ValueError(
                    f"{type(self).__name__} has layers 1 to {len(self.numbered)}, not {wanted}: give one of them"
                )
            return self.numbered[int(wanted) - 1]
        if not wanted or wanted not in dict(self.named_modules()):
            some = ", ".join(dict.fromkeys(self.numbered))
            raise ValueError(
                f"{type(self).__name__} has no layer {wanted!r}: give middle, last, a number from 1 to "
                f"{len(self.numbered)}, or the name of a submodule, such as {some}"
            )
        return wanted


def convolution(
    inputs: int, outputs: int, side: int = 3, stride: int = 1, *, slope: float = 0.0, fan_out: bool = False
) -> nn.Conv2d:
    """A padded convolution without biases, its weights Kaiming-normal for a leaky ReLU of this slope."""
    layer = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, slope, "fan_out" if fan_out else "fan_in", "leaky_relu")
    return layer
