"""The straightforward way, for CAVIA, T-net, MT-net, MAML++, CSN and DEML: a Python loop over tasks.

As in ``method_loops.py``: one task's graph alive at a time, no function transforms, torch's own fused normalisation,
written from the papers and their authors' programs. Networks are functions of lists of weights, as those programs have
them. Parameters are those of a fewstep ``method``, and each function returns the meta-gradient of all of them, in their
order.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.method_loops import Loss, MetaGradient, means_over_tasks
from fewstep.core import Method
from fewstep.networks import BatchNorm

EPS = 1e-3  # of the normalisation in MAML's Omniglot network


def in_groups(parameters: Sequence[Tensor], size: int) -> list[Sequence[Tensor]]:
    """So many parameters after one another: those of each layer, or of each block."""
    return [parameters[i : i + size] for i in range(0, len(parameters), size)]


def perceptron(parameters: Sequence[Tensor], x: Tensor) -> Tensor:
    """Linear layers with ReLU between."""
    *hidden, last = in_groups(parameters, 2)
    for weight, bias in hidden:
        x = F.linear(x, weight, bias).relu()
    return F.linear(x, *last)


def normalised(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Strided convolution and batch normalisation."""
    return F.batch_norm(F.conv2d(x, weight, bias, 2, 1), None, None, scale, shift, True, eps=EPS)


# -- CAVIA ------------------------------------------------------------------------------------------------------------


def cavia(method: Method, width: int, rate: float, steps: int) -> MetaGradient:
    """On a perceptron, which has the context beside its inputs."""
    trained = list(method.learner.parameters())

    def after(context: Tensor, x: Tensor) -> Tensor:
        return perceptron(trained, torch.cat([x, context.expand(len(x), -1)], 1))

    return _of_contexts(trained, width, rate, steps, lambda x: x, after, F.mse_loss)


def cavia_conv(method: Method, width: int, rate: float, steps: int) -> MetaGradient:
    """On the convolutional network, whose third block the context scales and shifts.

    What comes before does not depend on the context, and is computed once for all steps.
    """
    trained = list(method.learner.parameters())
    first, second, third = in_groups(trained[:12], 4)
    film, fourth, head = trained[12:14], trained[14:18], trained[18:]

    def before(x: Tensor) -> Tensor:
        return normalised(normalised(normalised(x, *first).relu(), *second).relu(), *third)

    def after(context: Tensor, h: Tensor) -> Tensor:
        scale, shift = F.linear(context, *film).view(2, -1, 1, 1)
        return F.linear(normalised((scale * h + shift).relu(), *fourth).relu().mean((2, 3)), *head)

    return _of_contexts(trained, width, rate, steps, before, after, F.cross_entropy)


def _of_contexts(
    trained: Sequence[Tensor],
    width: int,
    rate: float,
    steps: int,
    before: Callable[[Tensor], Tensor],
    after: Callable[[Tensor, Tensor], Tensor],
    loss: Loss,
) -> MetaGradient:
    """A context descends from zeros: ``φ ← φ − α ∇_φ L_S(φ)``."""

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        context, h = torch.zeros(width, device=x.device, requires_grad=True), before(x)
        for _ in range(steps):
            (slope,) = torch.autograd.grad(loss(after(context, h), y), context, create_graph=True)
            context = context - rate * slope
        return torch.autograd.grad(loss(after(context, before(query_x)), query_y), trained)

    return means_over_tasks(of_task, trained)


# -- T-net and MT-net -------------------------------------------------------------------------------------------------


def mt_net(method: Method, rate: float, steps: int) -> MetaGradient:
    """On a perceptron; of tasks with a logistic number for each unit of a layer. T-net is without these.

    For ten rows it costs less to multiply each of them by T than to make the effective weights T W.
    """
    trained = list(method.learner.parameters())
    layers = in_groups(list(method.learner.network.parameters()), 3)
    start = [tensor for weight, bias, _ in layers for tensor in (weight, bias)]
    logits = trained[3 * len(layers) :]

    def predict(adapted: Sequence[Tensor], x: Tensor) -> Tensor:
        for i, ((weight, bias), (_, _, transform)) in enumerate(zip(in_groups(adapted, 2), layers, strict=True)):
            x = F.linear(F.linear(x.relu() if i else x, weight, bias), transform)
        return x

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, *logistic: Tensor) -> Sequence[Tensor]:
        masks = [_straight_through(logit + drawn) for logit, drawn in zip(logits, logistic, strict=True)]
        of_each = [tensor for mask in masks for tensor in (mask.unsqueeze(1), mask)]  # of a weight, and of a bias
        adapted: Sequence[Tensor] = start
        for _ in range(steps):
            slopes: Sequence[Tensor]
            slopes = torch.autograd.grad(F.mse_loss(predict(adapted, x), y), adapted, create_graph=True)
            slopes = [m * s for m, s in zip(of_each, slopes, strict=True)] if of_each else slopes
            adapted = [a - rate * s for a, s in zip(adapted, slopes, strict=True)]
        return torch.autograd.grad(F.mse_loss(predict(adapted, query_x), query_y), trained)

    return means_over_tasks(of_task, trained)


def _straight_through(raised: Tensor) -> Tensor:
    """1 or 0, with the derivative of a sigmoid."""
    soft = raised.sigmoid()
    return (raised > 0).to(soft.dtype) + (soft - soft.detach())


def mt_net_conv(method: Method, rate: float, steps: int) -> MetaGradient:
    """On the convolutional network, by effective kernels T W: they cost less than a product at every position.

    Of tasks with a logistic number for each unit of a layer. T-net is without these.
    """
    trained = list(method.learner.parameters())
    count = sum(1 for _ in method.learner.network.parameters())
    blocks, head, logits = in_groups(trained[: count - 3], 5), trained[count - 3 : count], trained[count:]
    start = [tensor for layer in (*blocks, head) for tensor in layer[:2]]

    def effective(weight: Tensor, bias: Tensor, transform: Tensor) -> tuple[Tensor, Tensor]:
        return (transform @ weight.flatten(1)).view_as(weight), transform @ bias

    def predict(adapted: Sequence[Tensor], x: Tensor) -> Tensor:
        *kernels, last = in_groups(adapted, 2)
        for (weight, bias), (_, _, transform, scale, shift) in zip(kernels, blocks, strict=True):
            x = normalised(x, *effective(weight, bias, transform), scale, shift).relu()
        return F.linear(x.mean((2, 3)), *effective(last[0], last[1], head[2]))

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, *logistic: Tensor) -> Sequence[Tensor]:
        masks = [_straight_through(logit + drawn) for logit, drawn in zip(logits, logistic, strict=True)]
        of_each = [mask for mask in masks for _ in range(2)]  # of a weight, and of a bias
        adapted: Sequence[Tensor] = start
        for _ in range(steps):
            slopes: Sequence[Tensor]
            slopes = torch.autograd.grad(F.cross_entropy(predict(adapted, x), y), adapted, create_graph=True)
            if of_each:
                slopes = [s * m.view(-1, *[1] * (s.ndim - 1)) for m, s in zip(of_each, slopes, strict=True)]
            adapted = [a - rate * s for a, s in zip(adapted, slopes, strict=True)]
        return torch.autograd.grad(F.cross_entropy(predict(adapted, query_x), query_y), trained)

    return means_over_tasks(of_task, trained)


# -- MAML++ -----------------------------------------------------------------------------------------------------------

Rates = Sequence[Sequence[Tensor]]
"""Of every step, one for each adapted tensor."""


def maml_plus_plus(method: Method, rates: Rates, weights: Sequence[Tensor]) -> MetaGradient:
    """On a perceptron, which has no normalisation."""
    start = list(method.learner.network.parameters())
    return _after_every_step(method, start, rates, weights, lambda adapted, x, step: perceptron(adapted, x), F.mse_loss)


def maml_plus_plus_conv(method: Method, rates: Rates, weights: Sequence[Tensor]) -> MetaGradient:
    """On the convolutional network, whose norms have a scale and a shift for every step; these are not adapted."""
    *convolutional, weight, bias = method.learner.network.parameters()
    blocks = in_groups(convolutional, 4)
    start = [*(tensor for block in blocks for tensor in block[:2]), weight, bias]

    def predict(adapted: Sequence[Tensor], x: Tensor, step: int) -> Tensor:
        *kernels, head = in_groups(adapted, 2)
        for kernel, (_, _, scale, shift) in zip(kernels, blocks, strict=True):
            x = normalised(x, *kernel, scale[step], shift[step]).relu()
        return F.linear(x.mean((2, 3)), *head)

    return _after_every_step(method, start, rates, weights, predict, F.cross_entropy)


def _after_every_step(
    method: Method,
    start: Sequence[Tensor],
    rates: Rates,
    weights: Sequence[Tensor],
    predict: Callable[[Sequence[Tensor], Tensor, int], Tensor],
    loss: Loss,
) -> MetaGradient:
    """``Σ_k v_k L_Q(φ_k)``, with rates of every layer and step."""
    trained = list(method.learner.parameters())

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        adapted, losses = start, []
        for step, (of_step, weight) in enumerate(zip(rates, weights, strict=True)):
            slopes = torch.autograd.grad(loss(predict(adapted, x, step), y), adapted, create_graph=True)
            adapted = [a - r * s for a, r, s in zip(adapted, of_step, slopes, strict=True)]
            losses.append(weight * loss(predict(adapted, query_x, step), query_y))
        return torch.autograd.grad(torch.stack(losses).sum(), trained)

    return means_over_tasks(of_task, trained)


# -- CSN --------------------------------------------------------------------------------------------------------------


def csn(method: Method, base: nn.Sequential, key: nn.Module, value: nn.Module, ways: int) -> MetaGradient:
    """Direct feedback to all ReLUs and the logits, read by the cosines of keys.

    A ReLU's slope is 1 or 0, so that the value network is asked for a row's error, and for none, and not for all units.
    """
    trained = list(method.learner.parameters())

    def run(x: Tensor, shifts: Sequence[Tensor] | None = None) -> list[Tensor]:
        """What ReLUs take in, and the logits."""
        seen: list[Tensor] = []
        for layer in base:
            if isinstance(layer, nn.ReLU):
                seen.append(x)
                x = x.relu() if shifts is None else x.relu() + shifts[len(seen) - 1].view_as(x).relu()
            else:
                x = plain(layer, x)
        return [*seen, x if shifts is None else x + shifts[-1]]

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        *hidden, logits = run(x)
        error = logits.softmax(1) - F.one_hot(y, ways)
        on, off = plain(value, error), plain(value, error.new_zeros(1, ways))
        values = [torch.where(a.flatten(1) > 0, on, off) for a in hidden]
        values.append(plain(value, error.unsqueeze(2) * error.unsqueeze(1)).squeeze(2))
        known, asked = (F.normalize(plain(key, rows)) for rows in (x, query_x))
        attention = torch.softmax(asked @ known.T, 1)
        shifted = run(query_x, [attention @ of_layer for of_layer in values])
        return torch.autograd.grad(F.cross_entropy(shifted[-1], query_y), trained)

    return means_over_tasks(of_task, trained)


def plain(module: nn.Module, x: Tensor) -> Tensor:
    """What a layer, or layers one after another, make of ``x``, with torch's own normalisation."""
    if isinstance(module, nn.Sequential):
        for layer in module:
            x = plain(layer, x)
        return x
    if isinstance(module, BatchNorm):
        return F.batch_norm(x, None, None, module.weight, module.bias, True, eps=module.eps)
    found: Tensor = module(x)
    return found


# -- DEML -------------------------------------------------------------------------------------------------------------


def deml(method: Method, concepts: nn.Module, rates: Sequence[Tensor]) -> MetaGradient:
    """Meta-SGD, one step, on what a network of concepts makes of support and query."""
    trained, start = list(method.learner.parameters()), list(method.learner.network.parameters())

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        known, asked = plain(concepts, x), plain(concepts, query_x)
        slopes = torch.autograd.grad(F.cross_entropy(perceptron(start, known), y), start, create_graph=True)
        adapted = [a - r * s for a, r, s in zip(start, rates, slopes, strict=True)]
        return torch.autograd.grad(F.cross_entropy(perceptron(adapted, asked), query_y), trained)

    return means_over_tasks(of_task, trained)
