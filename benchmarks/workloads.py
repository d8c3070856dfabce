"""Tasks and networks of the benchmarks, and one meta-step as every contender takes it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import Contender, Work
from fewstep.core import Batch, Differentiate, Executor, Loop, Method, Task, Vmap, generator
from fewstep.core.types import AnyTask
from fewstep.networks import Conv4
from fewstep.training.compiling import compiled
from fewstep.training.gradients import all_finite, clip

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Ways: TypeAlias = Mapping[str, tuple[Executor, bool]]
"""How fewstep does a case's work: the executor, and whether it is compiled."""

AT_ONCE: Ways = {"compiled": (Vmap(), True), "eager": (Vmap(), False)}
ONE_BY_ONE: Ways = {"loop": (Loop(), False), "loop, compiled": (Loop(), True)}
SOME: Ways = ONE_BY_ONE | {"4 at a time": (Vmap(4), False), "2 at a time, compiled": (Vmap(2), True)}
"""For convolutions that tasks share: rows of several tasks go through them as one batch."""


def clusters(tasks: int, ways: int, shots: int, queries: int, *shape: int) -> Task:
    """Tasks of Gaussian classes, each row of unit length where rows are vectors."""
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(tasks, ways, 1, *shape, generator=source)

    def batch(rows: int) -> Batch:
        x = (centres + torch.randn(tasks, ways, rows, *shape, generator=source)).flatten(1, 2)
        x = F.normalize(x, dim=-1) if len(shape) == 1 else x
        y = torch.eye(ways).repeat_interleave(rows, 0).expand(tasks, -1, -1)
        return Batch(x.to(DEVICE), y.contiguous().to(DEVICE), torch.ones(tasks, ways * rows, device=DEVICE))

    return Task(batch(shots), batch(queries))


def sinusoids(tasks: int, shots: int = 10, queries: int = 10) -> Task:
    """Regression tasks as in MAML."""
    source = torch.Generator().manual_seed(0)
    phase, height = (torch.rand(tasks, 1, 1, generator=source) for _ in range(2))

    def batch(rows: int) -> Batch:
        x = 10 * torch.rand(tasks, rows, 1, generator=source) - 5
        y = (0.1 + 4.9 * height) * torch.sin(x + 3.14 * phase)
        return Batch(x.to(DEVICE), y.to(DEVICE), torch.ones(tasks, rows, device=DEVICE))

    return Task(batch(shots), batch(queries))


def plain_conv4(like: Conv4, pool: bool) -> nn.Module:
    """The same network from torch's own modules, with the same parameters: what users of other libraries have."""
    blocks: list[nn.Module] = []
    for convolution in (module for module in like.blocks if isinstance(module, nn.Conv2d)):
        blocks.append(nn.Conv2d(convolution.in_channels, convolution.out_channels, 3, convolution.stride, 1))
        blocks += [nn.BatchNorm2d(convolution.out_channels, eps=1e-3, track_running_stats=False), nn.ReLU()]
        blocks += [nn.MaxPool2d(2)] if pool else []
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(*like.head.weight.shape[::-1]))
    with torch.no_grad():
        for ours, theirs in zip(network.parameters(), like.parameters(), strict=True):
            ours.copy_(theirs)
    return network.to(DEVICE)


def gradients(
    method: Method, tasks: AnyTask, executor: Executor, compile: bool = False
) -> Callable[[], Sequence[Tensor]]:
    """The meta-gradient alone, of a method without randomness."""
    differentiate = Differentiate(method, executor, compiled if compile else None)
    draws = method.learner.draws(tasks, generator(0, 0, "noise", DEVICE))
    return lambda: differentiate(tasks, draws).gradients


def beside(
    rivals: Mapping[str, Callable[[], Callable[..., Sequence[Tensor]]]],
    method: Method,
    tasks: AnyTask,
    batches: Sequence[Tensor],
    ours: Ways,
) -> list[Contender]:
    """The meta-gradient as rivals take it, called with ``batches``, and as we do, by executor and compiled or not."""

    def of_rival(build: Callable[[], Callable[..., Sequence[Tensor]]]) -> Work:
        meta_gradient = build()
        return lambda: meta_gradient(*batches)

    theirs = [Contender(kind, partial(of_rival, build)) for kind, build in rivals.items()]
    return theirs + [
        Contender(f"fewstep, {kind}", partial(gradients, method, tasks, *how)) for kind, how in ours.items()
    ]


class Outer:
    """What follows a meta-gradient, the same for every contender: the check, clipping by value and by norm, Adam."""

    def __init__(self, method: Method) -> None:
        self.parameters = list(method.learner.parameters())
        # A rate of nothing: the parameters, and so the work and its results, are the same in every round.
        self.adam = torch.optim.Adam(self.parameters, lr=0.0, fused=True)

    def __call__(self, objective: Tensor, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
        """Take the step, and return the gradients as they were."""
        kept = [gradient.clone() for gradient in gradients]
        if all_finite(objective, gradients):
            clip(gradients, 0.1, 0.1, "tensor")
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.adam.step()
        return kept
