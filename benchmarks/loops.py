"""The straightforward way: a Python loop over tasks, ``torch.autograd.grad(create_graph=True)`` in the inner loop.

What a careful researcher writes from the papers, with plain modules and no function transforms: one task after
another, each back-propagated at once, so that only one task's graph is alive. Written here from the equations, and
checked against fewstep's gradients before anything is timed; it reads fewstep's draws, so that the work is the same.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from fewstep.core import Method, Task
from fewstep.core.noise import dropout

Gradients = list[Tensor]


def maml(
    network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], rate: float, steps: int, first_order: bool = False
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Gradients]:
    """MAML's meta-gradient of batches ``[tasks, rows, ...]``: the mean over tasks of the query loss's gradient."""
    names, parameters = zip(*network.named_parameters(), strict=True)

    def gradients(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> Gradients:
        total = [torch.zeros_like(p) for p in parameters]
        for sx, sy, qx, qy in zip(support_x, support_y, query_x, query_y, strict=True):
            adapted = parameters
            for _ in range(steps):
                inner = loss(functional_call(network, dict(zip(names, adapted, strict=True)), sx), sy)
                slopes = torch.autograd.grad(inner, adapted, create_graph=not first_order)
                adapted = tuple(a - rate * g for a, g in zip(adapted, slopes, strict=True))
            outer = loss(functional_call(network, dict(zip(names, adapted, strict=True)), qx), qy)
            torch._foreach_add_(total, torch.autograd.grad(outer, parameters))
        torch._foreach_div_(total, len(support_x))
        return total

    return gradients


def leo(method: Method) -> Callable[[Task, dict[str, Tensor]], Gradients]:
    """LEO's meta-gradient as the authors' code computes it, from the parameters of a fewstep ``method``.

    Every support row owns a code; the relation network sees all (NK)² concatenated pairs. The constants are the
    official formulation's, see ``fewstep.core.start.generator``.
    """
    p = dict(method.learner.named_parameters())
    encoder, decoder = p["start.encoder.weight"], p["start.decoder.weight"]
    relation = [p[f"start.relation.layers.{i}.weight"] for i in range(3)]
    latent_rate, rate = p["stages.0.rule.rates.code"], p["stages.2.rule.rates.weight"]
    kl_weight, penalty_weight = method.learner.start.kl_weight, method.learner.start.encoder_penalty_weight
    l2, orthogonality = method.regularisers
    parameters = list(method.learner.parameters())

    def task_loss(task: Task, noise: dict) -> Tensor:
        (x, y, _), (query_x, query_y, _) = task
        labels, (rows, ways) = y.argmax(1), y.shape
        by_class = (y / y.sum(0)).T
        glorot = math.sqrt(2 / (ways + x.shape[1]))
        begin, (descent, decoding, finetuning), query = noise["begin"], noise["stages"], noise["query"]

        def logits(inputs: Tensor, weight: Tensor) -> Tensor:
            return inputs @ (by_class @ weight).T

        def decode(code: Tensor, draws: Tensor) -> Tensor:
            mean, v = (code @ decoder.T).chunk(2, dim=1)
            return mean + (v.expm1() + glorot).clamp(min=1e-10) * draws

        def dropped(inputs: Tensor, entry: dict) -> Tensor:
            return dropout(inputs, entry["dropout"]["kept"], method.learner.dropout)

        h = (dropped(x, begin)) @ encoder.T
        pairs = torch.cat([h.repeat_interleave(rows, 0), h.repeat(rows, 1)], 1)
        out = torch.relu(torch.relu(pairs @ relation[0].T) @ relation[1].T) @ relation[2].T
        mean, u = (y @ (by_class @ out.view(rows, rows, -1).mean(1))).chunk(2, dim=1)
        deviation, draws = u.expm1().clamp(min=1e-10), begin["start"]["code"]
        start = mean + deviation * draws
        kl = (-0.5 * draws**2 - deviation.log() + 0.5 * start**2).mean()

        code = start
        for step in descent:
            weight = decode(code, step["decode"]["weight"])
            inner = F.cross_entropy(logits(dropped(x, step), weight), labels, reduction="sum")
            (slope,) = torch.autograd.grad(inner, code, create_graph=True)
            code = code - latent_rate * slope
        weight = decode(code, decoding["decode"]["weight"])
        for step in finetuning:
            inner = F.cross_entropy(logits(dropped(x, step), weight), labels, reduction="sum")
            (slope,) = torch.autograd.grad(inner, weight, create_graph=True)
            weight = weight - rate * slope
        outer = F.cross_entropy(logits(dropped(query_x, query), weight), query_y.argmax(1))
        penalty = (start - code.detach()).square().mean()
        return outer + kl_weight * kl + penalty_weight * penalty

    def gradients(tasks: Task, noise: dict) -> Gradients:
        total = list(
            torch.autograd.grad(l2(method.learner) + orthogonality(method.learner), parameters, materialize_grads=True)
        )
        count = len(tasks.support.weight)
        for i in range(count):
            task, draws = torch.utils._pytree.tree_map(lambda tensor, i=i: tensor[i], (tasks, noise))
            torch._foreach_add_(total, torch.autograd.grad(task_loss(task, draws) / count, parameters))
        return total

    return gradients
