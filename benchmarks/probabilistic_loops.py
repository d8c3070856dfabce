"""The straightforward way, for Bayesian MAML, LLAMA, PLATIPUS and neural processes: a Python loop over tasks.

As in ``fast_weight_loops.py``. Where a method works on all weights at once (distances of particles, divergences), they
are one vector, of which the layers' weights are pieces; its gradient is taken apart once, after all tasks.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.fast_weight_loops import EPS, in_groups, normalised, perceptron
from benchmarks.method_loops import Loss, MetaGradient, means_over_tasks
from fewstep.core import Method

Network = Callable[[Sequence[Tensor], Tensor], Tensor]

# -- Bayesian MAML ----------------------------------------------------------------------------------------------------


def bayesian_maml(method: Method, rate: float) -> MetaGradient:
    """Followers take a step of SVGD on the support, leaders one more on support and query: the chaser loss.

    All particles are run at once, by batched products; their distances come from a single product.
    """
    parameters = list(method.learner.parameters())  # log λ, log γ, and weights [particles, outputs, inputs]
    count = len(parameters[0])
    sizes = [parameter.numel() // count for parameter in parameters]

    def energy(particles: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """``−log p(θ, D)`` of all particles, up to a constant."""
        log_precision, log_noise = particles[:, 0], particles[:, 1]
        h = x.expand(count, -1, -1)
        pieces = particles.split(sizes, 1)[2:]
        for i, (weight, bias) in enumerate(in_groups(pieces, 2)):
            weight = weight.view(count, bias.shape[1], -1)
            h = torch.baddbmm(bias.unsqueeze(1), h.relu() if i else h, weight.mT)
        errors = (h - y).square().sum((1, 2))
        surprise = 0.5 * (log_noise.exp() * errors - y.numel() * log_noise)
        weights = particles[:, 2:]
        normal = 0.5 * (weights.shape[1] * log_precision - log_precision.exp() * weights.square().sum(1))
        gammas = 2 * log_precision - 2 * log_precision.exp() + 2 * log_noise - 0.2 * log_noise.exp()
        return (surprise - normal - gammas).sum()

    def of_task(start: Tensor, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        (slopes,) = torch.autograd.grad(energy(start, x, y), start, create_graph=True)
        follower = start + svgd(start, slopes, rate)
        leader = follower.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(energy(leader, torch.cat([x, query_x]), torch.cat([y, query_y])), leader)
        with torch.no_grad():
            leader = leader + svgd(leader, slopes, rate)
        return torch.autograd.grad((follower - leader)[:, 2:].square().sum(), start)

    def meta_gradient(*batches: Tensor) -> list[Tensor]:
        start = torch.cat([p.detach().view(count, -1) for p in parameters], 1).requires_grad_()
        (mean,) = means_over_tasks(lambda *task: of_task(start, *task), [start])(*batches)
        return [piece.view_as(p) for piece, p in zip(mean.split(sizes, 1), parameters, strict=True)]

    return meta_gradient


def bayesian_maml_conv(method: Method, rate: float, particles: int) -> MetaGradient:
    """Particles are linear classifiers, of features that a convolutional network makes of all rows at hand at once."""
    *convolutional, weights, biases = method.learner.network.parameters()
    blocks, sizes = in_groups(convolutional, 4), [weights[0].numel(), biases[0].numel()]

    def features(x: Tensor) -> Tensor:
        for block in blocks:
            x = normalised(x, *block).relu()
        return x.mean((2, 3))

    def energy(start: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """``−log p(θ, D)`` of all particles, up to a constant."""
        weight, bias = start.split(sizes, 1)
        logits = torch.baddbmm(bias.unsqueeze(1), z.expand(particles, -1, -1), weight.view(weights.shape).mT)
        return F.cross_entropy(logits.flatten(0, 1), y.repeat(particles), reduction="sum") + 0.5 * start.square().sum()

    def of_task(start: Tensor, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        (slopes,) = torch.autograd.grad(energy(start, features(x), y), start, create_graph=True)
        follower = start + svgd(start, slopes, rate)
        leader = follower.detach().requires_grad_()
        with torch.no_grad():
            z = features(torch.cat([x, query_x]))
        (slopes,) = torch.autograd.grad(energy(leader, z, torch.cat([y, query_y])), leader)
        with torch.no_grad():
            leader = leader + svgd(leader, slopes, rate)
        return torch.autograd.grad((follower - leader).square().sum(), [start, *convolutional])

    def meta_gradient(*batches: Tensor) -> list[Tensor]:
        start = torch.cat([p.detach().flatten(1) for p in (weights, biases)], 1).requires_grad_()
        leaves = [start, *convolutional]
        mean, *others = means_over_tasks(lambda *task: of_task(start, *task), leaves)(*batches)
        return [*others, *(piece.view_as(p) for piece, p in zip(mean.split(sizes, 1), (weights, biases), strict=True))]

    return meta_gradient


def svgd(particles: Tensor, slopes: Tensor, rate: float) -> Tensor:
    """The step, with half of the repulsion as in the authors' program."""
    count = len(particles)
    lengths, products = particles.square().sum(1), particles @ particles.T
    squares = (lengths.unsqueeze(0) + lengths.unsqueeze(1) - 2 * products).fill_diagonal_(0.0)
    ordered, middle = squares.detach().flatten().sort().values, count * count // 2
    width = (ordered[(count * count - 1) // 2] + ordered[middle]) / 2 / math.log(count)
    kernel = (-squares / width).exp()
    apart = (kernel.sum(1, keepdim=True) * particles - kernel @ particles) / width
    return rate / count * (apart - kernel @ slopes)


# -- LLAMA ------------------------------------------------------------------------------------------------------------


def llama(method: Method, rate: float, steps: int, weight: float, damping: float) -> MetaGradient:
    """MAML, and ``η/2 log det`` of K-FAC's Fisher information of normal targets on the query."""
    trained = list(method.learner.parameters())

    # Of a layer's inputs with a 1 for the bias, and of its errors.
    sizes = {size for weight, _ in in_groups(trained, 2) for size in (len(weight), weight.shape[1] + 1)}
    damped = {size: damping * torch.eye(size, device=trained[0].device) for size in sizes}

    def log_det(factor: Tensor) -> Tensor:
        """``log det(factorᵀ factor / rows + δ I)``."""
        return torch.logdet(torch.addmm(damped[factor.shape[1]], factor.T, factor, alpha=1 / len(factor)))

    def outer(adapted: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        layers = in_groups(adapted, 2)
        inputs, h = [], x
        for i, layer in enumerate(layers):
            inputs.append(h.relu() if i else h)
            h = F.linear(inputs[-1], *layer)
        errors = [torch.ones_like(h)]  # of a single output
        for (matrix, _), given in zip(reversed(layers[1:]), reversed(inputs[1:]), strict=True):
            errors.append(errors[-1] @ matrix * (given > 0))
        ones, dets = h.new_ones(len(x), 1), []
        for given, error in zip(inputs, reversed(errors), strict=True):
            with_bias = torch.cat([given, ones], 1)
            dets.append(error.shape[1] * log_det(with_bias) + with_bias.shape[1] * log_det(error))
        return F.mse_loss(h, y) + 0.5 * weight * torch.stack(dets).sum()

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        adapted: Sequence[Tensor] = trained
        for _ in range(steps):
            slopes = torch.autograd.grad(F.mse_loss(perceptron(adapted, x), y), adapted, create_graph=True)
            adapted = [a - rate * s for a, s in zip(adapted, slopes, strict=True)]
        return torch.autograd.grad(outer(adapted, query_x, query_y), trained)

    return means_over_tasks(of_task, trained)


def llama_conv(method: Method, rate: float, steps: int, weight: float, damping: float) -> MetaGradient:
    """On the convolutional network, of classes: patches for inputs, and the errors of every label that is expected."""
    trained = list(method.learner.parameters())
    *convolutional, head_weight, head_bias = trained
    blocks = in_groups(convolutional, 4)
    start = [*(tensor for block in blocks for tensor in block[:2]), head_weight, head_bias]
    sizes = {size for matrix in start[::2] for size in (len(matrix), matrix[0].numel() + 1, len(head_bias))}
    damped = {size: damping * torch.eye(size, device=head_bias.device) for size in sizes}
    classes = torch.eye(len(head_bias), device=head_bias.device).unsqueeze(1)

    def log_det(factor: Tensor, count: int) -> Tensor:
        """``log det(factorᵀ factor / count + δ I)``."""
        return torch.logdet(torch.addmm(damped[factor.shape[1]], factor.T, factor, alpha=1 / count))

    def run(adapted: Sequence[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and outputs of every layer."""
        *kernels, head = in_groups(adapted, 2)
        inputs, outputs = [x], []
        for kernel, (_, _, scale, shift) in zip(kernels, blocks, strict=True):
            outputs.append(F.conv2d(inputs[-1], *kernel, 2, 1))
            inputs.append(F.batch_norm(outputs[-1], None, None, scale, shift, True, eps=EPS).relu())
        inputs[-1] = inputs[-1].mean((2, 3))
        return inputs, [*outputs, F.linear(inputs[-1], *head)]

    def outer(adapted: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        inputs, (*hidden, logits) = run(adapted, x)
        p = logits.softmax(1)
        roots = p.T.sqrt().unsqueeze(2) * (p - classes)
        each = [torch.autograd.grad(logits, hidden, root, create_graph=True) for root in roots]
        errors = [torch.stack(of_label).movedim(2, -1).flatten(0, -2) for of_label in zip(*each, strict=True)]
        patches = [F.unfold(maps, 3, padding=1, stride=2).mT.flatten(0, 1) for maps in inputs[:-1]]
        dets = []
        for given, error in zip((*patches, inputs[-1]), (*errors, roots.flatten(0, 1)), strict=True):
            with_bias = torch.cat([given, given.new_ones(len(given), 1)], 1)
            dets.append(error.shape[1] * log_det(with_bias, len(x)) + with_bias.shape[1] * log_det(error, len(given)))
        return F.cross_entropy(logits, y) + 0.5 * weight * torch.stack(dets).sum()

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Sequence[Tensor]:
        adapted: Sequence[Tensor] = start
        for _ in range(steps):
            slopes = torch.autograd.grad(F.cross_entropy(run(adapted, x)[1][-1], y), adapted, create_graph=True)
            adapted = [a - rate * s for a, s in zip(adapted, slopes, strict=True)]
        return torch.autograd.grad(outer(adapted, query_x, query_y), trained)

    return means_over_tasks(of_task, trained)


# -- PLATIPUS ---------------------------------------------------------------------------------------------------------


def platipus(
    method: Method, rate: float, steps: int, kl_weight: float, network: Network = perceptron, loss: Loss = F.mse_loss
) -> MetaGradient:
    """Weights are drawn about a step on the query and adapted to the support; all of them are one vector.

    Called with the standard-normal numbers of a draw behind the rows of tasks.
    """
    named = dict(method.learner.named_parameters())
    names = [name for name, _ in method.learner.network.named_parameters() if f"start.log_deviation.{name}" in named]
    shapes = [named[f"network.{name}"].shape for name in names]
    sizes = [shape.numel() for shape in shapes]
    vectors = ("network", "start.log_deviation", "start.posterior_log_deviation")
    rates = ("start.posterior.rule.rates", "stages.0.rule.rates")
    others = named.keys() - {f"{where}.{name}" for where in (*vectors, *rates) for name in names}

    def slope(vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(loss(predict(vector, x), y), vector, create_graph=True)
        return found

    def predict(vector: Tensor, x: Tensor) -> Tensor:
        pieces = zip(vector.split(sizes), shapes, strict=True)
        return network([piece.view(shape) for piece, shape in pieces], x)

    def of_task(
        leaves: Sequence[Tensor], x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, drawn: Tensor
    ) -> Sequence[Tensor]:
        start, log_deviation, posterior_log_deviation, posterior_rate, prior_rate, *_ = leaves
        prior = start - prior_rate * slope(start, x, y)
        posterior = start - posterior_rate * slope(start, query_x, query_y)
        deviation = posterior_log_deviation.exp()
        adapted = posterior + deviation * drawn
        for _ in range(steps):
            adapted = adapted - rate * slope(adapted, x, y)
        squares = (deviation.square() + (posterior - prior).square()) * (-2 * log_deviation).exp()
        kl = (log_deviation - posterior_log_deviation + 0.5 * squares - 0.5).sum()
        return torch.autograd.grad(loss(predict(adapted, query_x), query_y) + kl_weight * kl, leaves)

    def meta_gradient(*batches: Tensor) -> list[Tensor]:
        of_weights = [torch.cat([named[f"{where}.{name}"].detach().flatten() for name in names]) for where in vectors]
        of_layers = [torch.stack([named[f"{where}.{name}"].detach() for name in names]) for where in rates]
        lengths = torch.tensor(sizes, device=of_layers[0].device)
        leaves = [*of_weights, *(layers.repeat_interleave(lengths) for layers in of_layers)]
        leaves = [*(leaf.requires_grad_() for leaf in leaves), *(named[name] for name in others)]
        means = means_over_tasks(lambda *task: of_task(leaves, *task), leaves)(*batches)
        found = dict(zip(others, means[len(vectors) + len(rates) :], strict=True))
        for where, mean in zip((*vectors, *rates), means, strict=False):
            for name, piece in zip(names, mean.split(sizes), strict=True):
                whole = f"{where}.{name}"
                found[whole] = piece.view_as(named[whole]) if where in vectors else piece.sum()
        return [found[name] for name in named]

    return meta_gradient


def platipus_conv(method: Method, rate: float, steps: int, kl_weight: float) -> MetaGradient:
    """On the convolutional network, whose norms are not drawn."""
    *convolutional, _, _ = method.learner.network.parameters()
    norms = [block[2:] for block in in_groups(convolutional, 4)]

    def network(adapted: Sequence[Tensor], x: Tensor) -> Tensor:
        *kernels, head = in_groups(adapted, 2)
        for kernel, norm in zip(kernels, norms, strict=True):
            x = normalised(x, *kernel, *norm).relu()
        return F.linear(x.mean((2, 3)), *head)

    return platipus(method, rate, steps, kl_weight, network, F.cross_entropy)


# -- neural processes -------------------------------------------------------------------------------------------------


def neural_process(method: Method, floor: float = 0.1) -> MetaGradient:
    """CNP, and with the numbers of a latent code's draw behind the rows of tasks NP.

    All rows pass the latent encoder once, for the code of the support and that of all of them.
    """
    trained, start = list(method.learner.parameters()), method.learner.start
    decoder, encoder, latent, moments = (
        [] if module is None else list(module.parameters())
        for module in (method.learner.network, start.encoder, start.latent, start.moments)
    )

    def of_task(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, *drawn: Tensor) -> Sequence[Tensor]:
        rows, targets = torch.cat([x, query_x]), torch.cat([y, query_y])
        read = [perceptron(encoder, torch.cat([x, y], 1)).mean(0)]
        kl = x.new_zeros(())
        if drawn:
            encoded = perceptron(latent, torch.cat([rows, targets], 1))
            both = perceptron(moments, torch.stack([encoded[: len(x)].mean(0), encoded.mean(0)]))
            means, raw = both.chunk(2, 1)
            (from_mean, mean), (from_deviation, deviation) = means, 0.1 + 0.9 * raw.sigmoid()
            squares = (deviation.square() + (mean - from_mean).square()) / (2 * from_deviation.square())
            kl = ((from_deviation / deviation).log() + squares - 0.5).sum()
            read.append(mean + deviation * drawn[0])
        context = torch.cat(read)
        output = perceptron(decoder, torch.cat([rows, context.expand(len(rows), -1)], 1))
        mean, raw = output.chunk(2, 1)
        deviation = floor + (1 - floor) * F.softplus(raw)
        surprise = 0.5 * ((targets - mean) / deviation).square() + deviation.log()
        return torch.autograd.grad(surprise.mean() + kl / len(rows), trained)

    return means_over_tasks(of_task, trained)
