"""The four-block convolutional network of the few-shot literature."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.networks.heads import Generated
from fewstep.networks.norms import BatchNorm


class Conv4(nn.Module):
    """Blocks of 3×3 convolution, batch normalisation and ReLU, then a linear layer.

    The strided variant with 64 channels and a spatial mean is MAML's Omniglot network.

    Args:
        outputs: width of the last layer, the number of ways; None for a :class:`Generated` head, whose weights a start
            makes.
        inputs: channels of the images.
        channels: of each block.
        downsample: halve the resolution by a ``"stride"`` of 2 or by 2×2 ``"pool"`` (rounding up and down).
        scale: learn the normalisation's γ; MAML's authors do not.
    """

    def __init__(
        self,
        outputs: int | None,
        inputs: int = 1,
        channels: Sequence[int] = (64, 64, 64, 64),
        downsample: Literal["stride", "pool"] = "stride",
        scale: bool = False,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for a, b in zip((inputs, *channels[:-1]), channels, strict=True):
            convolution = nn.Conv2d(a, b, 3, stride=2 if downsample == "stride" else 1, padding=1)
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            blocks += [convolution, BatchNorm(b, eps=1e-3, scale=scale), nn.ReLU()]
            if downsample == "pool":
                blocks.append(nn.MaxPool2d(2))
        self.blocks = nn.Sequential(*blocks)
        self.head = Generated() if outputs is None else _linear(channels[-1], outputs)

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows outputs"]:
        """Logits from the spatial mean of the last block."""
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
