"""Contexts, and CAVIA: what a task moves steers the network, which itself stays."""

from collections.abc import Sequence

import pytest
import torch
from cases import images, regression_tasks
from torch import Tensor, nn

from fewstep.algorithms import cavia
from fewstep.core import (
    SGD,
    Backprop,
    Batch,
    Descend,
    Difference,
    Learner,
    Method,
    Params,
    Rule,
    Shared,
    Task,
    Zeros,
    regression,
)
from fewstep.networks import Concatenated, Conv4, FeatureWise, conv4, mlp


class Preconditioned(Rule):
    """``b ← b − α W_c W_cᵀ ∇L(b)``."""

    def __init__(self, rate: float, columns: nn.Parameter) -> None:
        super().__init__()
        self.rate, self.columns = rate, columns

    def update(self, gradient: Params, state: tuple[()], value: Params, loss: Tensor) -> tuple[Params, tuple[()]]:
        return {name: -self.rate * self.columns @ (self.columns.T @ g) for name, g in gradient.items()}, state


def objective(method: Method, tasks: Task, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The objective and its gradients."""
    found = method.objective(tasks, None).objective
    return [found.detach(), *torch.autograd.grad(found, parameters)]


def test_a_context_beside_the_inputs_is_the_first_bias_with_another_metric() -> None:
    """For every parameter that both have, W_c among them, and after several steps."""
    torch.manual_seed(0)
    tasks, width = regression_tasks(), 3
    steered = mlp((1, 7, 5, 1), context=width).double()
    method = cavia(steered, rate=0.7, steps=3, loss=regression())
    found = objective(method, tasks, list(steered.parameters()))

    plain = mlp((1, 7, 5, 1)).double()
    columns = nn.Parameter(steered[1].weight[:, 1:].detach().clone())
    with torch.no_grad():
        for ours, theirs in zip(plain.parameters(), steered.parameters(), strict=True):
            ours.copy_(theirs[:, :1] if theirs is steered[1].weight else theirs)
    rule = Preconditioned(0.7, columns)
    learner = Learner(plain, Shared(["0.bias"]), [Descend(rule, 3)], loss=regression())
    expected = objective(Method(learner, Backprop()), tasks, [*plain.parameters(), columns])
    expected[1] = torch.cat([expected[1], expected.pop()], 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_step_by_numbers() -> None:
    """A network of two ReLU units, worked out by hand."""
    x, y = torch.tensor([[0.5], [-1.0], [2.0]]).double(), torch.tensor([[1.0], [0.0], [-1.0]]).double()
    rows = Batch(x[None], y[None], torch.ones(1, 3).double())
    for columns, moved, after in (
        ([[1.0, 0.0], [0.0, 1.0]], [-0.232167, -0.130000], 1.149248),
        ([[0.6], [-0.8]], [-0.035300], None),
    ):
        width, last = len(columns[0]), nn.Linear(2, 1, bias=False)
        network = nn.Sequential(Concatenated(width), nn.Linear(1 + width, 2), nn.ReLU(), last).double()
        weight = torch.cat([torch.tensor([[0.5], [-0.3]]), torch.tensor(columns)], 1)
        weights = {"1.weight": weight, "1.bias": torch.tensor([0.1, 0.2]), "3.weight": torch.tensor([[0.7, -0.4]])}
        network.load_state_dict({name: tensor.double() for name, tensor in weights.items()})
        method = cavia(network, rate=0.5, loss=regression())
        context = method.adapt(rows).value["0.context"][0]
        torch.testing.assert_close(context, torch.tensor(moved).double(), rtol=0, atol=5.01e-7)
        if after is not None:
            loss = method.objective(Task(rows, rows), None).objective
            torch.testing.assert_close(loss, torch.tensor(after).double(), rtol=0, atol=5.01e-7)


def test_channels_are_scaled_and_shifted_by_hand() -> None:
    """Forward of four blocks as the authors' program has it: convolution, norm, pool, context, ReLU."""
    torch.manual_seed(0)
    network = conv4("cavia", 3, inputs=1, size=16, channels=(4, 4, 4, 4), context=5).double()
    context, x = torch.randn(5).double(), torch.randn(6, 1, 16, 16).double()
    h, p = x, dict(network.named_parameters())
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    norms = [name for name, module in network.named_modules() if type(module).__name__ == "BatchNorm"]
    for block, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True), 1):
        h = nn.functional.conv2d(h, p[f"{convolution}.weight"], p[f"{convolution}.bias"], padding=1)
        h = nn.functional.batch_norm(h, None, None, p[f"{norm}.weight"], p[f"{norm}.bias"], training=True)
        h = nn.functional.max_pool2d(h, 2)
        if block == 3:
            (layer,) = [module.layer for module in network.modules() if isinstance(module, FeatureWise)]
            film = layer.weight @ context + layer.bias
            h = film[:4].view(1, 4, 1, 1) * h + film[4:].view(1, 4, 1, 1)
        h = h.relu()
    (slot,) = Zeros().shared(network)
    torch.testing.assert_close(
        torch.func.functional_call(network, {slot: context}, (x,)), network.head(h.flatten(1)), rtol=1e-10, atol=1e-12
    )


def test_nothing_but_the_context_is_adapted_and_every_task_begins_at_zero() -> None:
    torch.manual_seed(0)
    network = Conv4(3, channels=(4, 4), scale=True, context=2, context_block=1).double()
    method = cavia(network, rate=5.0, steps=2)
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    points = method.adapt(images().support)
    assert list(points.value) == ["blocks.2.context"]
    assert points.context == {}
    assert bool((points.value["blocks.2.context"] != 0).all())
    assert not network.get_buffer("blocks.2.context").any()
    assert not [name for name in method.learner.state_dict() if "context" in name]
    torch.testing.assert_close(dict(network.named_parameters()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cavia(mlp((6, 5, 3))), "Contextual layer, but found none"),
        (lambda: Concatenated(0), "one number or more, got 0"),
        (lambda: Conv4(3, channels=(4, 4), context=2), "context_block is one of the blocks 1 to 2, got 3"),
        (
            lambda: Method(Learner(mlp((6, 5, 3), context=2), Zeros(), [Descend(SGD(0.1), 1)]), Difference()),
            "leaves .* untrained",
        ),
    ],
)
def test_what_is_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
