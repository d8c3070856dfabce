"""The straightforward way, for the other methods: a Python loop over tasks, ``torch.autograd.grad`` in each.

As in ``loops.py``: plain modules, no function transforms, one task's graph alive at a time, written from the papers.
Every function returns the meta-gradient of batches with a leading axis of tasks, for the network's parameters first and
the rule's after them.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

Loss = Callable[[Tensor, Tensor], Tensor]
MetaGradient = Callable[..., list[Tensor]]
Update = Callable[[Sequence[Tensor]], list[Tensor]]


def means_over_tasks(of_task: Callable[..., Sequence[Tensor]], parameters: Sequence[Tensor]) -> MetaGradient:
    """The mean over tasks of the gradients that ``of_task`` returns for one, of these parameters."""

    def gradients(*batches: Tensor) -> list[Tensor]:
        total = [torch.zeros_like(p) for p in parameters]
        for task in zip(*batches, strict=True):
            torch._foreach_add_(total, of_task(*task))
        torch._foreach_div_(total, len(batches[0]))
        return total

    return gradients


def _caller(network: nn.Module) -> tuple[list[Tensor], Callable[[Sequence[Tensor], Tensor], Tensor]]:
    """The parameters, and the network as a function of them."""
    names, parameters = zip(*network.named_parameters(), strict=True)

    def run(weights: Sequence[Tensor], x: Tensor) -> Tensor:
        prediction: Tensor = functional_call(network, dict(zip(names, weights, strict=True)), (x,))
        return prediction

    return list(parameters), run


def _descent(network: nn.Module, loss: Loss, steps: int, update: Update, learned: Sequence[Tensor]) -> MetaGradient:
    """``φ ← φ − update(∇L_S(φ))``, differentiated through, with an update that has parameters of its own."""
    parameters, run = _caller(network)
    trained = [*parameters, *learned]

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        adapted: Sequence[Tensor] = parameters
        for _ in range(steps):
            slopes = torch.autograd.grad(loss(run(adapted, x), y), adapted, create_graph=True)
            adapted = [a - u for a, u in zip(adapted, update(slopes), strict=True)]
        return torch.autograd.grad(loss(run(adapted, query_x), query_y), trained)

    return means_over_tasks(of_task, trained)


def meta_sgd(network: nn.Module, loss: Loss, rates: dict[str, Tensor], steps: int) -> MetaGradient:
    """Meta-SGD: one rate for every parameter, by its name. Their gradients are in the order of the mapping."""
    of = [rates[name] for name, _ in network.named_parameters()]
    return _descent(network, loss, steps, lambda g: [r * s for r, s in zip(of, g, strict=True)], list(rates.values()))


def meta_curvature(
    network: nn.Module, loss: Loss, factors: Sequence[Sequence[Tensor]], rate: float, steps: int
) -> MetaGradient:
    """Meta-Curvature: matrices of outputs, inputs and kernel, or one vector, for each parameter."""

    def transformed(slope: Tensor, of: Sequence[Tensor]) -> Tensor:
        if slope.dim() == 1:
            return of[0] * slope
        if slope.dim() == 2:
            return of[0] @ slope @ of[1].T
        moved = of[1] @ slope.flatten(2) @ of[2].T
        return (of[0] @ moved.flatten(1)).view_as(slope)

    def update(slopes: Sequence[Tensor]) -> list[Tensor]:
        return [rate * transformed(slope, of) for slope, of in zip(slopes, factors, strict=True)]

    return _descent(network, loss, steps, update, [factor for of in factors for factor in of])


def reptile(network: nn.Module, loss: Loss, rate: float, steps: int, size: int) -> MetaGradient:
    """Reptile's ``θ − φ_K`` after SGD on mini-batches, dealt in the order of random ``keys`` ``[passes, rows]``."""
    parameters, run = _caller(network)

    def of_task(x: Tensor, y: Tensor, keys: Tensor) -> list[Tensor]:
        adapted = [p.detach().clone().requires_grad_() for p in parameters]
        for rows in keys.argsort(1).flatten()[: steps * size].view(steps, size):
            slopes = torch.autograd.grad(loss(run(adapted, x[rows]), y[rows]), adapted)
            with torch.no_grad():
                torch._foreach_add_(adapted, slopes, alpha=-rate)
        return [(p - a).detach() for p, a in zip(parameters, adapted, strict=True)]

    return means_over_tasks(of_task, parameters)


def imaml(
    network: nn.Module, loss: Loss, rate: float, steps: int, prox: float, iterations: int, damping: float
) -> MetaGradient:
    """iMAML: descend ``L_S(φ) + λ/2 ‖φ − θ‖²``, then solve ``((1 + δ) I + H/λ) x = ∇L_Q`` by conjugate gradients."""
    parameters, run = _caller(network)

    def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
        return sum((s * t).sum() for s, t in zip(a, b, strict=True)).item()  # type: ignore[union-attr]

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        start = [p.detach() for p in parameters]
        adapted = [p.clone().requires_grad_() for p in start]
        for _ in range(steps):
            slopes = torch.autograd.grad(loss(run(adapted, x), y), adapted)
            with torch.no_grad():
                pulls = torch._foreach_sub(adapted, start)
                torch._foreach_add_(adapted, torch._foreach_add(slopes, pulls, alpha=prox), alpha=-rate)
        right = torch.autograd.grad(loss(run(adapted, query_x), query_y), adapted)
        slopes = torch.autograd.grad(loss(run(adapted, x), y), adapted, create_graph=True)

        def system(direction: Sequence[Tensor]) -> list[Tensor]:
            curved = torch.autograd.grad(slopes, adapted, direction, retain_graph=True)
            return [(1 + damping) * d + c / prox for d, c in zip(direction, curved, strict=True)]

        solution = [torch.zeros_like(b) for b in right]
        residual, direction = list(right), list(right)
        size = first = dot(right, right)
        for i in range(iterations):
            image = system(direction)
            curvature = dot(direction, image)
            if curvature <= 0:
                return solution if i else right
            length = size / curvature
            solution = [s + length * d for s, d in zip(solution, direction, strict=True)]
            residual = [r - length * q for r, q in zip(residual, image, strict=True)]
            before, size = size, dot(residual, residual)
            if size <= 1e-10 * first:
                break
            direction = [r + size / before * d for r, d in zip(residual, direction, strict=True)]
        return solution

    return means_over_tasks(of_task, parameters)


def meta_lstm(network: nn.Module, loss: Loss, layer: nn.Linear, gates: nn.Linear, steps: int) -> MetaGradient:
    """Meta-LSTM: an LSTM cell on preprocessed losses and gradients, and gates, shared by all coordinates.

    Rows of ``layer`` are input, forget and output gate and candidate; those of ``gates`` what is taken of a gradient
    last, what is kept of a weight first.
    """
    parameters, run = _caller(network)
    sizes = [p.numel() for p in parameters]
    trained = [*parameters, layer.weight, layer.bias, gates.weight, gates.bias]

    def tensors(flat: Tensor) -> list[Tensor]:
        return [part.view_as(p) for part, p in zip(flat.split(sizes), parameters, strict=True)]

    def flat(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.flatten() for part in parts])

    def preprocess(x: Tensor) -> Tensor:
        large = x.abs() > math.exp(-10)
        return torch.stack(
            [torch.where(large, x.abs().log() / 10, -1.0), torch.where(large, x.sign(), math.exp(10) * x)], -1
        )

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        theta = flat(parameters)
        hidden, cell = (theta.new_zeros(len(theta), layer.out_features // 4) for _ in range(2))
        before = theta.new_zeros(len(theta), 2)
        for _ in range(steps):
            weights = [w.requires_grad_() for w in tensors(theta.detach())]
            inner = loss(run(weights, x), y)
            slope = flat(torch.autograd.grad(inner, weights))
            inputs = torch.cat([preprocess(inner.detach()).expand(len(slope), 2), preprocess(slope), hidden], 1)
            take, forget, show, candidate = layer(inputs).chunk(4, 1)
            cell = forget.sigmoid() * cell + take.sigmoid() * candidate.tanh()
            hidden = show.sigmoid() * cell.tanh()
            seen = torch.cat([hidden, theta.unsqueeze(1)], 1)
            before = F.linear(seen, gates.weight[:, :-1], gates.bias) + gates.weight[:, -1] * before
            keep, step = before.sigmoid().unbind(1)
            theta = keep * theta - step * slope
        return torch.autograd.grad(loss(run(tensors(theta), query_x), query_y), trained)

    return means_over_tasks(of_task, trained)


def _prototypes(embedded: Tensor, y: Tensor, ways: int) -> Tensor:
    return torch.stack([embedded[y == way].mean(0) for way in range(ways)])


def protonet(embedding: nn.Module, ways: int) -> MetaGradient:
    """Prototypical networks: distances to the means of classes."""
    parameters = list(embedding.parameters())

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        prototypes = _prototypes(embedding(x), y, ways)
        distances = (embedding(query_x).unsqueeze(1) - prototypes).square().sum(2)
        return torch.autograd.grad(F.cross_entropy(-distances, query_y), parameters)

    return means_over_tasks(of_task, parameters)


def protomaml(embedding: nn.Module, ways: int, rate: float, steps: int) -> MetaGradient:
    """Proto-MAML: MAML whose last layer begins at the prototypes, and the meta-gradient goes through them too."""
    parameters, run = _caller(embedding)

    def logits(weights: Sequence[Tensor], x: Tensor) -> Tensor:
        *body, weight, bias = weights
        return F.linear(run(body, x), weight, bias)

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        prototypes = _prototypes(embedding(x), y, ways)
        # Copies, or the inner gradient of the body would go through the prototypes as well.
        body = [p.clone() for p in parameters]
        adapted = [*body, 2 * prototypes, -prototypes.square().sum(1)]
        for _ in range(steps):
            slopes = torch.autograd.grad(F.cross_entropy(logits(adapted, x), y), adapted, create_graph=True)
            adapted = [a - rate * g for a, g in zip(adapted, slopes, strict=True)]
        return torch.autograd.grad(F.cross_entropy(logits(adapted, query_x), query_y), parameters)

    return means_over_tasks(of_task, parameters)
