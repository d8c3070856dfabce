"""Settings of stage 1: a network, and how it learns to name the base classes."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import cattrs

from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, Share, refuse, require_ranges
from fewstep.data.images.augmentation import Augmentation
from fewstep.data.storage.settings import converter, mistakes

if TYPE_CHECKING:
    import torch

    from fewstep.networks.backbone import Backbone

_T = TypeVar("_T")


@dataclass(frozen=True)
class Architecture:
    """A network to pre-train."""

    kind: Literal["convnet", "resnet9", "resnet12", "wrn"] = "convnet"
    """Plain convolutional blocks; residual networks of nine and twelve layers; a wide residual network."""
    widths: tuple[Count, ...] = ()
    """Channels of each block (convnet, resnet9, resnet12). Empty: the network's own."""
    pools: CountOrZero = 3
    """How many of the first blocks halve the resolution (convnet)."""
    depth: Count = 28
    """Layers of a wide residual network, 6n + 4."""
    factor: Count = 10
    """How many times wider than a residual network it is."""
    dropout: Share = 0.0
    """Probability with which an activation inside a residual block is dropped in training (wrn)."""
    strides: tuple[Count, Count, Count] = (1, 2, 2)
    """By how much each group of blocks reduces the resolution (wrn)."""
    classifier: Literal["linear", "cosine"] = "linear"
    """What names the base classes by the last layer's features: a linear layer; or cosines times a learned scale, the
    first stage of DFSL."""

    def __post_init__(self) -> None:
        require_ranges(self, "architecture: ")

    def build(self, classes: int, inputs: int) -> Backbone:
        """The network, with first weights from torch's global generator.

        Raises:
            ValueError: for settings that make no network.
        """
        network = self._linear(classes, inputs)
        if self.classifier == "cosine":
            from fewstep.networks import Cosine

            network.head = Cosine(cast("torch.nn.Linear", network.head).in_features, classes)
        return network

    def _linear(self, classes: int, inputs: int) -> Backbone:
        import torch

        from fewstep.networks import ConvNet, ResNet9, ResNet12, WideResNet

        if self.kind == "convnet":
            return ConvNet(classes, self.widths or (32, 64, 128, 256), inputs, self.pools)
        if self.kind == "resnet9":
            return ResNet9(classes, inputs, self.widths or (64, 128, 256, 640))
        if self.kind == "resnet12":
            return ResNet12(classes, inputs, self.widths or (64, 160, 320, 640), norm=torch.nn.BatchNorm2d)
        return WideResNet(classes, inputs, self.depth, self.factor, self.dropout, strides=self.strides)


@dataclass(frozen=True)
class Pretraining:
    """Supervised training of a network on the base classes."""

    network: Architecture = field(default_factory=Architecture)
    """What is trained."""
    epochs: Count = 2
    """Passes over the data."""
    batch: Count = 128
    """Images in a batch."""
    optimiser: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum 0.9. With thousands of classes and a few hundred steps, SGD hardly begins to
    learn."""
    rate: Positive = 5e-3
    """Highest learning rate."""
    schedule: Literal["one-cycle", "steps"] = "one-cycle"
    """The rate rises and falls along half cosines; or falls by ``decay`` at each of ``milestones``."""
    warmup: Share = 0.2
    """One cycle: share of the steps in which the rate rises, from a 25th of the highest."""
    milestones: tuple[Share, ...] = (0.3, 0.5, 0.7, 0.8, 0.9)
    """Steps: where the rate falls, as shares of all steps. Table 4 of the LEO paper, for miniImageNet."""
    decay: Positive = 0.2
    """Steps: what the rate is multiplied by."""
    weight_decay: PositiveOrZero = 0.02
    """AdamW: decoupled from the gradient, times the learning rate. SGD: an L2 penalty, added to the gradient."""
    label_smoothing: Share = 0.1
    """Probability mass moved from the true class to all classes alike."""
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(2, padding="zeros"))
    """What is done to each training image."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of convolutions in training; features are always computed in float32. "auto": bfloat16 where the machine has
    instructions for it (then about twice as fast), else float32."""

    def __post_init__(self) -> None:
        require_ranges(self, "pretraining: ")
        if not all(0 < place < 1 for place in self.milestones) or list(self.milestones) != sorted(self.milestones):
            refuse(f"pretraining: milestones must rise between 0 and 1, got {self.milestones}.")

    def resolved(self, device: torch.device | str = "cpu") -> Pretraining:
        """The same with ``precision`` decided for a device of this machine."""
        import torch

        if self.precision != "auto":
            return self
        return replace(self, precision="bfloat16" if _has_bfloat16(torch.device(device)) else "float32")

    def rate_at(self, step: int, total: int) -> float:
        """The learning rate of a step.

        With r the highest rate and w the length of the rise, one cycle goes from r/25 to r along a half cosine in the
        first w steps, and from there to zero, which the step after the last would have. (Smith and Topin 2019 rise and
        fall in straight lines.)

        Args:
            step: from 0.
            total: number of steps.
        """
        if self.schedule == "steps":
            return self.rate * self.decay ** sum(step >= place * total for place in self.milestones)
        rise = self.warmup * total
        if step < rise:
            return self.rate * (1 / 25 + (1 - 1 / 25) * _half_cosine(step / rise))
        return self.rate * (1 - _half_cosine((step - rise) / (total - rise)))

    def make_optimiser(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser whose rate is set before every step."""
        import torch

        if self.optimiser == "adamw":
            return torch.optim.AdamW(parameters, self.rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(parameters, self.rate, momentum=0.9, nesterov=True, weight_decay=self.weight_decay)


_CONVERTER = converter()


def unstructure(settings: Any) -> Any:
    """Settings as JSON has them."""
    return _CONVERTER.unstructure(settings)


def structure(values: Any, kind: type[_T]) -> _T:
    """What :func:`unstructure` made, as settings again.

    Raises:
        ValueError: if these are not such settings; the message lists what is wrong.
    """
    try:
        return _CONVERTER.structure(values, kind)
    except (cattrs.BaseValidationError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no settings of {kind.__name__}: {mistakes(error)}") from error


def _half_cosine(share: float) -> float:
    """From 0 to 1 as the share does."""
    return (1 - math.cos(math.pi * share)) / 2


def _has_bfloat16(device: torch.device) -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    # Older releases of torch have no public question for this: there it is float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
