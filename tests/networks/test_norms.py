"""Batch normalisation: right under vmap at second order, weighted by row, and by the support's statistics.

Two facts of torch decide this library's design, and both are pinned here: ``vmap`` differentiates the fused, affine
norms wrongly at second order, and the same norms from primitive operations rightly.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import fomaml, maml
from fewstep.core import Batch, Executor, Loop, Method, Task, Vmap
from fewstep.networks import BatchNorm, Conv4

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


class SpatialMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def conv_net(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    blocks = [nn.Conv2d(1, 4, 3, 2, 1), norm(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), norm(4), nn.ReLU()]
    return jittered(nn.Sequential(*blocks, SpatialMean(), nn.Linear(4, 3)))


def flat_net(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    return jittered(nn.Sequential(nn.Flatten(), nn.Linear(64, 5), norm(5), nn.Tanh(), nn.Linear(5, 3)))


def jittered(network: nn.Sequential) -> nn.Sequential:
    torch.manual_seed(0)
    network.double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(0.4 * torch.randn_like(p) + (1 if p.dim() == 1 else 0))
    return network


def images() -> Task:
    tasks = classification_tasks(1, 8, 8, shots=2, queries=2, tasks=3)
    tasks.support.weight.fill_(1)  # torch's own norms know no row weights
    return tasks


def meta_gradient(method: Method, tasks: Task, executor: Executor) -> Tensor:
    parameters = list(method.learner.parameters())
    found = torch.autograd.grad(method.objective(tasks, None, executor).objective, parameters)
    return torch.cat([gradient.reshape(-1) for gradient in found])


def along(method: Method, tasks: Task, direction: Tensor, h: float = 1e-5) -> float:
    """The objective's slope in a direction of all meta-parameters, by central differences."""
    parameters = list(method.learner.parameters())
    start, values = nn.utils.parameters_to_vector(parameters).detach(), []
    for sign in (1, -1, 0):
        nn.utils.vector_to_parameters(start + sign * h * direction, parameters)
        values.append(method.objective(tasks, None, Loop()).objective.item())
    return (values[0] - values[1]) / (2 * h)


# -- the two facts -----------------------------------------------------------------------------------------------------


def test_own_norm_under_vmap_equals_the_loop_and_finite_differences() -> None:
    method, tasks = maml(conv_net(BatchNorm), rate=0.3, steps=2), images()
    vmapped, looped = (meta_gradient(method, tasks, executor) for executor in (Vmap(), Loop()))
    torch.testing.assert_close(vmapped, looped, **CLOSE)
    direction = vmapped / vmapped.norm()
    assert along(method, tasks, direction) == pytest.approx((vmapped @ direction).item(), rel=1e-6)


FUSED: dict[str, Callable[[], nn.Module]] = {
    "batch_norm": lambda: conv_net(lambda c: nn.BatchNorm2d(c, track_running_stats=False)),
    "layer_norm": lambda: flat_net(nn.LayerNorm),
}


@pytest.mark.parametrize("kind", FUSED)
def test_fused_affine_norms_are_wrong_under_vmap_at_second_order(kind: str) -> None:
    """Why the library has norms of its own. Skips, and says so, under a torch that has mended them."""
    network, tasks = FUSED[kind](), images()
    method = maml(network, rate=0.3, steps=2)
    vmapped, looped = (meta_gradient(method, tasks, executor) for executor in (Vmap(), Loop()))
    if (vmapped - looped).abs().max() < 1e-8 * looped.abs().max():
        pytest.skip(f"torch {torch.__version__} has mended {kind} under vmap: it no longer needs the loop executor")
    direction = (vmapped - looped) / (vmapped - looped).norm()
    measured = along(method, tasks, direction)
    assert (looped @ direction).item() == pytest.approx(measured, rel=1e-5, abs=1e-8)
    assert (vmapped @ direction).item() != pytest.approx(measured, rel=1e-3, abs=1e-5)
    # The fault is of the second order alone: first-order MAML agrees.
    method = fomaml(network, rate=0.3, steps=2)
    torch.testing.assert_close(*(meta_gradient(method, tasks, executor) for executor in (Vmap(), Loop())), **CLOSE)


# -- what the norm computes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 4, 2)], ids=["rows", "images"])
@pytest.mark.parametrize("scale", [True, False])
def test_forward_and_first_derivatives_are_those_of_torch(shape: tuple[int, ...], scale: bool) -> None:
    norm = BatchNorm(3, eps=1e-3, scale=scale).double()
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(torch.randn_like(p))
    x = (3 + 2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    ours, theirs = norm(x), F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=1e-3)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    towards, inputs = torch.randn(shape, dtype=torch.float64), [x, *norm.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, towards), torch.autograd.grad(theirs, inputs, towards), **CLOSE
    )


def test_rows_of_weight_zero_are_no_rows_and_of_weight_two_are_two() -> None:
    norm = BatchNorm(3).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    x[4] = 50.0
    norm.row_weight = torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    weighted = norm(x)
    norm.row_weight = None
    repeated = norm(x[[0, 1, 1, 2, 3, 5]])
    torch.testing.assert_close(weighted[[0, 1, 2, 3, 5]], repeated[[0, 1, 3, 4, 5]], **CLOSE)


def test_query_normalised_by_the_support_at_every_layer() -> None:
    """Two passes by hand: every layer's statistics from the real support rows, then applied to the query."""
    torch.manual_seed(1)
    method = maml(Conv4(3, channels=(4, 5, 4), scale=True), rate=0.2)
    method.learner.double()
    with torch.no_grad():
        for p in method.learner.parameters():
            p += 0.2 * torch.randn_like(p)
    task = tree_map(lambda t: t[0], classification_tasks(1, 8, 8))  # its last support row is padding
    task.support.x[-1] = 50.0
    point, _ = method.learner.adapt(task.support)
    weights = {name: tensor.detach() for name, tensor in point.value.items()}

    seen: dict[str, Tensor] = {}
    for name, layer in method.learner.network.named_modules():
        layer.register_forward_hook(lambda module, given, made, name=name: seen.update({name: made.detach()}))
    prediction = method.learner.predict(point, task.query, task.support, statistics="support")

    support, query = task.support.x[:-1], task.query.x

    def expect(name: str, x: Tensor) -> None:
        torch.testing.assert_close(seen[name][len(task.support.x) :], x, **CLOSE)

    for i in (0, 3, 6):
        convolution = weights[f"blocks.{i}.weight"], weights[f"blocks.{i}.bias"], 2, 1
        support, query = F.conv2d(support, *convolution), F.conv2d(query, *convolution)
        expect(f"blocks.{i}", query)
        statistics = support.mean((0, 2, 3)), support.var((0, 2, 3), unbiased=False)
        affine = weights[f"blocks.{i + 1}.weight"], weights[f"blocks.{i + 1}.bias"], False, 0.0, 1e-3
        support, query = F.batch_norm(support, *statistics, *affine), F.batch_norm(query, *statistics, *affine)
        expect(f"blocks.{i + 1}", query)
        support, query = F.relu(support), F.relu(query)
    by_hand = F.linear(query.mean((2, 3)), weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(prediction, by_hand, **CLOSE)

    alone = Batch(*(t[:1] for t in task.query))  # so a row's prediction depends on no other query row
    first = method.learner.predict(point, alone, task.support, statistics="support")
    torch.testing.assert_close(first, prediction[:1], **CLOSE)
    transductive = method.learner.predict(point, task.query)
    assert (transductive - prediction).abs().max() > 1e-3
