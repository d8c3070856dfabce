"""The four-block convolutional network of the few-shot literature, as each paper builds it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.networks.contextual import FeatureWise
from fewstep.networks.heads import Generated
from fewstep.networks.norms import BatchNorm, StepwiseBatchNorm

Order = Literal["stride", "pool", "pool first"]
Init = Literal["torch", "glorot", "glorot normal", "imaml", "kaiming"]


@final
class Conv4(nn.Module):
    """Blocks of 3×3 convolution, batch normalisation and ReLU that halve the resolution, then a linear layer.

    ``h_0 = x`` · ``h_b = pool(ReLU(BN(W_b * h_{b−1} + b_b)))`` · ``logits = W·readout(h_4) + b``

    Args:
        outputs: width of the last layer, the number of ways; None for a :class:`Generated` head, whose weights a start
            makes.
        inputs: channels of the images.
        channels: of each block.
        downsample: by a ``"stride"`` of 2 and no pooling; by a 2×2 ``"pool"`` after the ReLU, which drops an odd row
            and column; or ``"pool first"``, before the ReLU, which keeps them.
        readout: features are the ``"mean"`` of the last block over space, all of it (``"flatten"``), or its ``"maps"``,
            for a head that looks at them: then ``outputs`` are None.
        size: side of the images; read for ``"flatten"`` only.
        scale: learn the normalisation's γ; MAML's authors do not.
        eps: of the normalisation.
        momentum: of the normalisation's running statistics, see :class:`BatchNorm`.
        init: ``"torch"``: its default, U(±1/√fan-in), biases too. The others have zero biases and Glorot-uniform
            weights; ``"glorot normal"`` but for a last layer from N(0, 1) (MAML on Omniglot); ``"imaml"`` with the
            gain 1.73 and biases from U(0, 0.05). ``"kaiming"`` has zero biases and weights from U(±√(6/fan-in)),
            U(±√(3/fan-in)) in the last layer.
        context: numbers of a context that scales and shifts the channels of a block before its ReLU, and after any
            pool, see :class:`FeatureWise` (CAVIA).
        context_block: which one, counted from 1.
        slope: of the ReLU where its input is negative.
        norm_steps: inner steps for each of which the normalisation has a γ and β of its own, see
            :class:`StepwiseBatchNorm`; 0: the same for all.

    Raises:
        ValueError: for images too small for so many blocks, outputs of maps, or a context of no block.
    """

    def __init__(
        self,
        outputs: int | None,
        inputs: int = 1,
        channels: Sequence[int] = (64, 64, 64, 64),
        downsample: Order = "stride",
        scale: bool = False,
        *,
        readout: Literal["mean", "flatten", "maps"] = "mean",
        size: int = 28,
        eps: float = 1e-3,
        momentum: float = 0.9,
        init: Init = "glorot normal",
        context: int = 0,
        context_block: int = 3,
        slope: float = 0.0,
        norm_steps: int = 0,
    ) -> None:
        super().__init__()
        if context and not 1 <= context_block <= len(channels):
            raise ValueError(f"Conv4: context_block is one of the blocks 1 to {len(channels)}, got {context_block}.")
        blocks: list[nn.Module] = []
        for i, (a, b) in enumerate(zip((inputs, *channels[:-1]), channels, strict=True), start=1):
            steered: list[nn.Module] = [FeatureWise(context, b)] if context and i == context_block else []
            norm = BatchNorm(b, eps=eps, scale=scale, momentum=momentum)
            if norm_steps:
                norm = StepwiseBatchNorm(b, norm_steps, eps=eps, momentum=momentum)
            relu = nn.LeakyReLU(slope) if slope else nn.ReLU()
            blocks.append(nn.Conv2d(a, b, 3, stride=2 if downsample == "stride" else 1, padding=1))
            match downsample:
                case "stride":
                    blocks += [norm, *steered, relu]
                case "pool":  # which changes places with the ReLU at no difference
                    blocks += [norm, nn.MaxPool2d(2), *steered, relu] if steered else [norm, relu, nn.MaxPool2d(2)]
                case "pool first":
                    blocks += [norm, nn.MaxPool2d(2, ceil_mode=True), *steered, relu]
        self.blocks = nn.Sequential(*blocks)
        self.readout = readout
        if readout == "maps" and outputs is not None:
            raise ValueError("Conv4: maps are for a head that looks at them; give None for outputs.")
        side = size
        for _ in channels:
            side = side // 2 if downsample == "pool" else (side + 1) // 2
        if readout == "flatten" and side < 1:
            raise ValueError(f"Conv4: images of side {size} are too small for {len(channels)} blocks that halve them.")
        self.maps = channels[-1], side
        features = channels[-1] * (side**2 if readout == "flatten" else 1)
        self.head = Generated() if outputs is None else nn.Linear(features, outputs)
        for layer in (*self.blocks, self.head):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                _initialise(layer, init)

    def forward(self, x: Float[Tensor, "rows inputs height width"]) -> Float[Tensor, "rows outputs *space"]:
        """Logits, or maps."""
        h: Tensor = self.blocks(x)
        if self.readout == "maps":
            return h
        logits: Tensor = self.head(h.mean((2, 3)) if self.readout == "mean" else h.flatten(1))
        return logits


def _initialise(layer: nn.Conv2d | nn.Linear, init: Init) -> None:
    if init == "torch":
        return
    if init == "glorot normal" and isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight)
    elif init == "kaiming":
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu" if isinstance(layer, nn.Conv2d) else "linear")
    else:
        nn.init.xavier_uniform_(layer.weight, gain=1.73 if init == "imaml" else 1.0)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, 0.0, 0.05 if init == "imaml" else 0.0)


_MINI: Mapping[str, Any] = {"channels": (32, 32, 32, 32), "readout": "flatten"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "maml": {},
    "maml-mini": {**_MINI, "downsample": "pool", "init": "glorot"},
    "reptile": {"scale": True, "readout": "flatten", "init": "glorot"},
    "reptile-mini": {**_MINI, "downsample": "pool first", "scale": True, "init": "glorot"},
    "imaml": {"scale": True, "readout": "flatten", "init": "imaml", "eps": 1e-5},
    "protonet": {"downsample": "pool", "scale": True, "readout": "flatten", "init": "torch", "eps": 1e-5},
    "meta-lstm": {**_MINI, "downsample": "pool", "scale": True, "init": "torch"},
    "cavia": {**_MINI, "downsample": "pool", "scale": True, "init": "kaiming", "eps": 1e-5},
    "maml-plus-plus": {
        **_MINI,
        "channels": (48, 48, 48, 48),
        "downsample": "pool",
        "scale": True,
        "init": "glorot",
        "eps": 1e-5,
        "slope": 0.01,
    },
}
"""Arguments of :class:`Conv4` by the paper whose network they make, see :func:`conv4`."""


def conv4(preset: str, outputs: int | None, *, inputs: int = 1, size: int = 28, **changes: Any) -> Conv4:
    """The network of a paper.

    ========================= ======== ========== ============================ ========== ===== ==========
    preset                    channels halves by  order                        readout    γ     weights
    ========================= ======== ========== ============================ ========== ===== ==========
    ``"maml"`` (Omniglot)     64       stride     conv, norm, ReLU             mean       no    Glorot, N(0, 1) last
    ``"maml-mini"``           32       pool       conv, norm, ReLU, pool       all        no    Glorot
    ``"reptile"`` (Omniglot)  64       stride     conv, norm, ReLU             all        yes   Glorot
    ``"reptile-mini"``        32       pool       conv, norm, pool, ReLU       all        yes   Glorot
    ``"imaml"`` (Omniglot)    64       stride     conv, norm, ReLU             all        yes   Glorot × 1.73
    ``"protonet"``            64       pool       conv, norm, ReLU, pool       all        yes   torch's
    ``"meta-lstm"``           32       pool       conv, norm, ReLU, pool       all        yes   torch's
    ``"cavia"``               32       pool       conv, norm, pool, ReLU       all        yes   He's
    ``"maml-plus-plus"``      48       pool       conv, norm, leaky ReLU, pool all        yes   Glorot
    ========================= ======== ========== ============================ ========== ===== ==========

    ANIL, Meta-SGD and Meta-Curvature take MAML's. What differs from the papers' programs: strides and padding are
    torch's, where TensorFlow's "same" pads even sides at the right and bottom only; iMAML's network is not padded after
    its second block (its readout is 256 numbers with or without); initial weights are uniform where TensorFlow 1 drew
    some of them from a truncated normal.

    Args:
        preset: a row of the table.
        outputs: as in :class:`Conv4`.
        inputs: channels of the images.
        size: side of the images.
        changes: other arguments of :class:`Conv4`, instead of the preset's.

    Raises:
        ValueError: for an unknown preset, and as :class:`Conv4` says.
    """
    if preset not in PRESETS:
        raise ValueError(f"conv4: there is no preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    return Conv4(outputs, inputs, size=size, **{**PRESETS[preset], **changes})
