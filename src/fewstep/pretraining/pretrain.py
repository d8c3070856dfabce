"""Stage 1: a convolutional network learns to name the meta-training classes."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewstep.core import generator
from fewstep.data import Dataset
from fewstep.networks.backbone import Backbone


@dataclass(frozen=True)
class Pretraining:
    """Supervised training of a backbone: AdamW under a one-cycle learning rate."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Width of each convolutional block."""
    pools: int = 3
    """How many of the first blocks halve the resolution."""
    block: int = 3
    """The block whose output, averaged over space, is the feature vector. Before the last one: on the last block's
    features the training classes are already told apart, so nothing would be left to meta-learn."""
    epochs: int = 2
    """Passes over the data."""
    batch: int = 128
    """Images in a batch."""
    rate: float = 5e-3
    """Peak of the one-cycle learning rate."""
    warmup: float = 0.2
    """Fraction of the steps in which the rate rises to its peak; afterwards it falls to almost zero."""
    weight_decay: float = 0.02
    """Decoupled from the gradient, times the learning rate."""
    label_smoothing: float = 0.1
    """Probability mass moved from the true class to all classes alike."""
    shift: int = 2
    """Each training image is moved by up to so many pixels, in both directions; what leaves is lost, 0 comes in."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of convolutions in training; features are always computed in float32. "auto": bfloat16 where the machine has
    instructions for it (then nearly twice as fast), else float32."""

    def __post_init__(self) -> None:
        for name in ("block", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"pretraining: {name} must be at least 1, got {getattr(self, name)}.")
        if self.block > len(self.channels):
            raise ValueError(
                f"pretraining: there are {len(self.channels)} blocks, but features of block {self.block} are wanted."
            )
        if not self.channels or min(self.channels) < 1 or not 0 <= self.pools <= len(self.channels):
            raise ValueError(
                "pretraining: channels must be positive, and pools from 0 to their number; "
                f"got channels {self.channels} and pools {self.pools}."
            )
        if self.shift < 0:
            raise ValueError(f"pretraining: shift must be zero or more pixels, got {self.shift}.")
        for name in ("warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"pretraining: {name} must be in [0, 1), got {getattr(self, name)}.")

    def resolved(self, device: torch.device | str = "cpu") -> "Pretraining":
        """The same with ``precision`` decided for a device of this machine."""
        if self.precision != "auto":
            return self
        return dataclasses.replace(self, precision="bfloat16" if _has_bfloat16(torch.device(device)) else "float32")


def pretrain(
    dataset: Dataset,
    config: Pretraining,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> Backbone:
    """Train a backbone to classify the images of a dataset.

    Minimises the softmax cross-entropy over all classes. The result is a function of data, settings, seed, device and
    number of threads: the same bits every time.

    Args:
        dataset: images ``[n, channels, height, width]``; every class is an output of the network.
        config: settings.
        seed: of the initial weights, the order of images and their shifts.
        device: where to compute.
        progress: called after every step with the steps done, the number of steps, and the batch's ``loss`` and
            ``accuracy``.

    Returns:
        The network, in evaluation mode.

    Raises:
        ValueError: for fewer than two classes, rows that are not images or are too small for the blocks, or a loss that
            is no longer finite.
    """
    _check(dataset, config)
    device, config = torch.device(device), config.resolved(device)
    images = _Images(dataset, device, config.shift)
    network = _initial(dataset, config, seed).to(device)
    batches = max(1, len(dataset) // config.batch)
    total = config.epochs * batches
    # AdamW, not SGD: with thousands of classes and a few hundred steps, SGD with momentum hardly begins to learn.
    optimiser = torch.optim.AdamW(network.parameters(), config.rate, weight_decay=config.weight_decay)
    # torch divides by the length of the rise less one step, so a rise may not be exactly one step long.
    rise = config.warmup if round(config.warmup * total) != 1 else 0.0
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.rate, total_steps=total + 1, pct_start=rise, cycle_momentum=False
    )
    network.train()
    for step in range(total):
        epoch, place = divmod(step, batches)
        if place == 0:
            order = torch.randperm(len(dataset), generator=generator(seed, epoch, "pretraining order")).to(device)
        chosen = order[place * config.batch : (place + 1) * config.batch]
        x, y = images.batch(chosen, generator(seed, step, "pretraining shifts"))
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits = network(x)
        logits = logits.float()
        loss = functional.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        value = loss.item()
        if not np.isfinite(value):
            raise ValueError(
                f"pretraining: the loss became {value} at step {step + 1} of {total}; lower rate (now {config.rate})."
            )
        if progress is not None:
            accuracy = (logits.argmax(1) == y).float().mean().item()
            progress(step + 1, total, {"loss": value, "accuracy": accuracy})
    return network.eval()


class _Images:
    """All images of a dataset on a device, in a form from which shifted batches are cheap."""

    def __init__(self, dataset: Dataset, device: torch.device, shift: int) -> None:
        images = dataset.gather(np.arange(len(dataset)), dtype=torch.float32)
        # A border of zeros, so that a shift is a window into the padded image.
        self.padded = functional.pad(images, (shift,) * 4).to(device)
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self.shift, (self.height, self.width) = shift, images.shape[2:]

    def batch(
        self, chosen: Int[Tensor, " rows"], source: torch.Generator
    ) -> tuple[Float[Tensor, "rows channels height width"], Int[Tensor, " rows"]]:
        corner = torch.randint(2 * self.shift + 1, (2, len(chosen), 1), generator=source).to(chosen.device)
        rows = (corner[0] + torch.arange(self.height, device=chosen.device))[:, :, None]
        columns = (corner[1] + torch.arange(self.width, device=chosen.device))[:, None, :]
        # Indexing around the channel axis puts it last: the memory format in which the convolutions are fastest.
        x = self.padded[chosen[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
        return x, self.labels[chosen]


def _initial(dataset: Dataset, config: Pretraining, seed: int) -> Backbone:
    # On the CPU whatever the device, without touching the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, 0, "pretraining weights").initial_seed())
        network = Backbone(dataset.classes, config.channels, dataset.feature_shape[0], config.pools)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _check(dataset: Dataset, config: Pretraining) -> None:
    if dataset.classes < 2:
        raise ValueError(f"pretraining: {dataset} has {dataset.classes} class; at least 2 are needed to learn from.")
    if len(dataset.feature_shape) != 3:
        raise ValueError(
            f"pretraining: {dataset} has rows of shape {list(dataset.feature_shape)}; "
            "images [channels, height, width] are needed."
        )
    smallest = 2**config.pools
    if min(dataset.feature_shape[1:]) < smallest:
        raise ValueError(
            f"pretraining: {dataset} has images of {list(dataset.feature_shape[1:])} pixels; "
            f"{config.pools} pools need {smallest} or more."
        )


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not sys.platform.startswith("linux"):
        return False
    # Older releases of torch have no public question for this: there it is float32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
