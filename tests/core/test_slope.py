"""The gradient of an inner loss by the tape is that of the transform, to every order, and costs no graph unasked."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad_and_value

from fewstep import maml
from fewstep.core import Executor, Loop, Vmap, exact, stopped
from fewstep.core.types import Batch, Params

SOURCE = torch.Generator().manual_seed(0)
WEIGHT, BIAS, CONTEXT = (torch.randn(shape, dtype=torch.float64, generator=SOURCE) for shape in ((3, 2), (2,), (4, 3)))


def losses(theta: Params, context: Tensor) -> dict[str, Callable[[Params], Tensor]]:
    return {
        "plain": lambda v: (context @ v["weight"] + v["bias"]).tanh().square().sum(),
        # Where adaptation begins, the value and what it is pulled to are one and the same tensor.
        "anchored": lambda v: sum(((v[name] - theta[name] + 1) ** 3).sum() for name in v),  # type: ignore[misc]
        "bias unused": lambda v: (context @ v["weight"]).sin().sum(),
    }


@pytest.mark.parametrize("kind", ["plain", "anchored", "bias unused"])
def test_the_tape_and_the_transform_agree_to_second_order(kind: str) -> None:
    def after_a_step(slope: Callable[..., tuple[Params, Tensor]]) -> list[Tensor]:
        theta = {"weight": WEIGHT.clone().requires_grad_(), "bias": BIAS.clone().requires_grad_()}
        context = CONTEXT.clone().requires_grad_()
        gradient, at = slope(losses(theta, context)[kind], theta)
        end = at + sum((theta[name] - 0.3 * step).exp().sum() for name, step in gradient.items())
        sources = [*theta.values(), context]
        found = torch.autograd.grad(end, sources, materialize_grads=True)
        return [at.detach(), *(step.detach() for step in gradient.values()), *found]

    transform = after_a_step(lambda loss, value: grad_and_value(loss)(value))
    torch.testing.assert_close(after_a_step(exact), transform, rtol=1e-12, atol=1e-12)


def test_inside_of_a_transform_the_slope_is_that_of_the_transform() -> None:
    values = {"weight": WEIGHT.expand(5, 3, 2) * torch.arange(5.0)[:, None, None], "bias": BIAS.expand(5, 2)}
    loss = losses({}, CONTEXT)["plain"]
    one_by_one = [exact(loss, {name: tensor[i] for name, tensor in values.items()})[0] for i in range(5)]
    expected = {name: torch.stack([one[name] for one in one_by_one]).detach() for name in values}
    mapped = torch.vmap(lambda value: exact(loss, value)[0])(values)
    torch.testing.assert_close(mapped, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("executor", [Loop(), Vmap()])
def test_inference_mode_adapts_too_and_never_to_gradients_of_zero(executor: Executor) -> None:
    """Where torch 2.11 says nothing and gives zeros."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 5, 3), torch.nn.functional.one_hot(torch.arange(10) % 2).float().view(2, 5, 2)
    method = maml(torch.nn.Linear(3, 2), rate=0.5, steps=2)
    expected = method.adapt(Batch(x, y, torch.ones(2, 5)), executor)
    with torch.inference_mode():
        found = method.adapt(Batch(x.clone(), y.clone(), torch.ones(2, 5)), executor)
        torch.testing.assert_close(found, expected)
        with pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
            method.learner.adapt(Batch(x[0], y[0], torch.ones(5)))


@pytest.mark.parametrize("slope", [exact, stopped])
def test_a_slope_that_nobody_differentiates_has_no_graph(slope: Callable[..., tuple[Params, Tensor]]) -> None:
    theta = {"weight": WEIGHT.clone().requires_grad_(), "bias": BIAS.clone().requires_grad_()}
    with torch.set_grad_enabled(slope is stopped):
        gradient, at = slope(losses({}, CONTEXT)["plain"], theta)
    assert not any(tensor.requires_grad for tensor in (at, *gradient.values()))
