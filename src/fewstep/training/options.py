"""What can be set about meta-training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fewstep import core
from fewstep.core.ranges import Count, CountOrZero, Positive, PositiveOrZero, Share, refuse, require_ranges

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Training:
    """The outer loop."""

    steps: Count
    """Meta-steps to take at most."""
    tasks: Count = 12
    """Tasks in a meta-batch."""
    task_reduction: Literal["mean", "sum"] = "mean"
    """How the tasks' objectives become one. Papers sum, their codes average; it matters to clipping."""
    optimiser: Literal["adam", "sgd"] = "adam"
    """Of the outer loop: Adam, or gradient descent (Reptile)."""
    rate: Positive = 1e-3
    """η, the optimiser's rate."""
    momentum: Share = 0.0
    """Of gradient descent: how much of its last step goes on in the next one (TADAM: 0.9)."""
    eps: Positive = 1e-8
    """Adam's ε (iMAML's authors: 1e-3)."""
    decay: Literal["none", "linear", "cosine", "halving", "drops"] = "none"
    """Keep the rate, let it fall along a line or half a cosine to zero at the last meta-step, halve it at times, or
    let it drop at some meta-steps."""
    halve_every: Count = 2000
    """With halving: meta-steps between halvings (ProtoNet: 2000)."""
    drops: tuple[tuple[Count, Positive], ...] = ()
    """With drops: after how many meta-steps the rate becomes how much of what it was at first: STEPS SHARE ..."""
    rate_floor: PositiveOrZero = 0.0
    """With a line or half a cosine: what the rate falls to, instead of zero."""
    clip_value: Positive | None = None
    """Clip every entry of the meta-gradient to ± this (LEO: 0.1). None: do not."""
    clip_norm: Positive | None = None
    """Then clip the norm of the meta-gradient to this (LEO: 0.1). None: do not."""
    clip_scope: Literal["tensor", "global"] = "tensor"
    """Whose norm is clipped: each tensor's own (LEO's authors' code) or that of all tensors together."""
    average: Share | None = None
    """Validate, keep and use a running mean of the meta-parameters in place of themselves: after each meta-step it
    keeps this share of itself, at first a smaller one, (1 + step)/(10 + step). None: do not."""
    nonfinite: Literal["decay", "skip", "stop"] = "skip"
    """On a loss or gradient that is not finite: step along 1e-4 times the L2-penalised weights alone (LEO's authors'
    intent), take no step, or stop with an error. Every such event is counted and reported."""
    validate_every: Count = 1000
    """Meta-steps between validations."""
    validation_tasks: Count = 600
    """Tasks in a validation, the same ones each time."""
    keep: Count = 1
    """How many of the best validations' meta-parameters are kept. Of several, a test shows the score of the mean of
    their outputs too, as MAML++ has it (5)."""
    patience: CountOrZero = 0
    """Stop after this many validations in a row without a new best. 0: never."""
    log_every: Count = 50
    """Meta-steps over which logged metrics are averaged."""
    checkpoint_every: Count = 500
    """Meta-steps between checkpoints; a killed run loses at most these."""
    executor: Literal["vmap", "loop"] = "vmap"
    """Run the tasks of a batch at once, or one after another (less memory; faster for convolutions that every task
    adapts, on a CPU)."""
    chunk: Count | None = None
    """With vmap: tasks at a time. None: all."""
    recompute: bool = False
    """Compute every inner step twice instead of keeping its graph: memory hardly grows with the number of steps."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the meta-gradient (half a minute to two, once; kept in the cache for later runs). Auto: when not
    recomputing, and from 5,000 meta-steps on. Where the compiler is missing or fails, the run goes on without. Not
    together with recompute."""

    def __post_init__(self) -> None:
        require_ranges(self, "training.")
        if self.compile == "on" and self.recompute:
            # dynamo has been seen to differentiate an autograd.Function wrongly: see benchmarks/NOTES.md.
            refuse("training.compile=on and training.recompute exclude each other: set one of them.")

    def rate_at(self, step: int) -> float:
        """The outer rate of a meta-step."""
        done = step / self.steps
        match self.decay:
            case "none":
                return self.rate
            case "linear":
                return self.rate_floor + (self.rate - self.rate_floor) * (1 - done)
            case "cosine":
                return self.rate_floor + 0.5 * (self.rate - self.rate_floor) * (1 + math.cos(math.pi * done))
            case "halving":
                return self.rate * 0.5 ** (step // self.halve_every)
            case "drops":
                return self.rate * next(
                    (share for after, share in sorted(self.drops, reverse=True) if step >= after), 1.0
                )

    def make_optimiser(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser that these options name."""
        import torch

        moved = [{"params": list(parameters)}]  # a group may be empty: not every method meta-learns
        if self.optimiser == "sgd":
            return torch.optim.SGD(moved, lr=self.rate, momentum=self.momentum, fused=True)
        return torch.optim.Adam(moved, lr=self.rate, eps=self.eps, fused=True)

    def compiles(self) -> bool:
        """Whether these options compile the meta-gradient."""
        return self.compile == "on" or (self.compile == "auto" and not self.recompute and self.steps >= 5000)

    def make_executor(self) -> core.Executor:
        """The executor that these options name."""
        return core.Loop() if self.executor == "loop" else core.Vmap(self.chunk)
