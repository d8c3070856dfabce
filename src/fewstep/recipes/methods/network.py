"""Settings of the network that meta-learning trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fewstep import core, networks
from fewstep.core.ranges import Count, Portion, Positive, require_ranges
from fewstep.recipes.problems.problem import Problem

if TYPE_CHECKING:
    from torch import nn


Blocks = Literal[
    "maml", "maml-mini", "reptile", "reptile-mini", "imaml", "protonet", "meta-lstm", "cavia", "maml-plus-plus"
]
"""Presets of four convolutional blocks."""


@dataclass(frozen=True)
class Network:
    """A network that meta-learning trains; most methods adapt its weights to a task."""

    kind: Literal["mlp", "maml-fc", Blocks, "relation", "resnet12", "forecaster"]
    """A multi-layer perceptron; MAML's fully connected one for images (784-256-128-64-64); a paper's four convolutional
    blocks (fewstep.networks.conv4 has the table); those of relation networks, which make feature maps; twelve layers
    with residuals; or a recurrent network that forecasts a series."""
    hidden: tuple[Count, ...] | None = None
    """Units of the hidden layers, or channels of the blocks; with none, mlp is a linear classifier. None: the paper's
    (mlp: 40, 40; forecaster: 20)."""
    std: Positive | None = None
    """mlp: standard deviation of the truncated normal initial weights. None: torch's default."""
    scale: bool | None = None
    """conv4: learn the normalisation's γ beside its β. None: as in the paper."""
    momentum: Portion | None = None
    """conv4: weight of the newest statistics in running ones. None: 0.9."""
    deviations: bool = False
    """mlp, of a regression: predict a deviation of each target beside its mean. The loss, of inner loop and query, is
    the negative log-likelihood then."""

    def __post_init__(self) -> None:
        require_ranges(self, "method.network.")

    def build(self, problem: Problem, *, head: bool = True, context: int = 0, norm_steps: int = 0) -> nn.Module:
        """The network for the problem's inputs and outputs; without a ``head``, one that a start generates.

        With a ``context``, one that so many numbers steer: vectors have them beside their entries, images as scales and
        shifts of the third block's channels. With ``norm_steps``, four blocks normalise anew for each of so many steps.
        """
        outputs, shape = problem.outputs if head else None, problem.inputs
        if self.deviations and (self.kind != "mlp" or outputs is None or not problem.regression):
            of, whole = "targets" if problem.regression else "classes", "with" if head else "without"
            raise ValueError(
                "method.network.deviations are predicted by an mlp that is a whole network of a regression; this is "
                f"{self.kind} {whole} a head, for {of}."
            )
        if context and self.kind in ("relation", "resnet12", "forecaster"):
            raise ValueError(f"{self.kind} takes no context; choose mlp, maml-fc or a paper's four blocks.")
        if self.kind == "mlp":
            if len(shape) != 1:
                raise ValueError(f"mlp is a network for vectors; the data gives inputs of shape {list(shape)}.")
            numbers = outputs if outputs is None else outputs * (1 + self.deviations)
            widths = (*shape, *((40, 40) if self.hidden is None else self.hidden), numbers)
            return networks.mlp(widths, std=self.std, context=context)
        if self.kind == "forecaster":
            if len(shape) != 1 or not problem.regression or outputs is None:
                raise ValueError(
                    "forecaster is a whole network for regression of the next values of a series, such as "
                    f"OscillationTasks; the data gives {'targets' if problem.regression else 'classes'} for inputs of "
                    f"shape {list(shape)}, and the method {'no head' if outputs is None else 'a head'}."
                )
            if self.hidden is not None and len(self.hidden) != 1:
                raise ValueError(f"forecaster has one hidden layer: give the number of its units, not {self.hidden}.")
            return networks.Forecaster(outputs, *(() if self.hidden is None else self.hidden))
        if self.kind == "maml-fc":
            from torch import nn

            widths = (math.prod(shape), *((256, 128, 64, 64) if self.hidden is None else self.hidden), outputs)
            return nn.Sequential(
                nn.Flatten(),
                *networks.mlp(widths, norm=True, scale=bool(self.scale), eps=1e-3, std=0.01, context=context),
            )
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(
                f"{self.kind} is a network for square images; the data gives inputs of shape {list(shape)}."
            )
        if self.kind == "relation":
            from fewstep.networks.relating import encoder

            if head or len(set(self.hidden or (64,))) > 1:
                raise ValueError("relation is a network that makes maps for a head, of one width in all its blocks.")
            return encoder(shape[0], *(self.hidden or ())[:1])
        if self.kind == "resnet12":
            own: dict[str, Any] = {} if self.hidden is None else {"widths": self.hidden}
            return networks.ResNet12(outputs, shape[0], **own)
        given = {
            "context": context or None,
            "norm_steps": norm_steps or None,
            "channels": self.hidden,
            "scale": self.scale,
            "momentum": self.momentum,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return networks.conv4(self.kind, outputs, inputs=shape[0], size=shape[1], **changes)


def loss_of(problem: Problem, reduction: core.Reduction = "mean", network: Network | None = None) -> core.Loss:
    """Cross-entropy, or the squared error of a regression; their likelihood where the network predicts deviations."""
    if network is not None and network.deviations:
        return core.normal_regression(reduction)
    return (core.regression if problem.regression else core.classification)(reduction)
