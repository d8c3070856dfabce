"""How a loss becomes its gradient: the one argument that separates MAML from first-order MAML."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import grad_and_value

from fewstep.core.types import Params

Slope: TypeAlias = Callable[[Callable[[Params], Tensor], Params], tuple[Params, Tensor]]


def exact(loss: Callable[[Params], Tensor], value: Params) -> tuple[Params, Tensor]:
    """The gradient and the loss, both differentiable: the meta-gradient sees how the step depends on its start.

    Raises:
        RuntimeError: in inference mode, where torch 2.11 silently takes every gradient for zero.

    Example:
        >>> gradient, loss = exact(lambda value: value["w"].square(), {"w": torch.tensor(3.0, requires_grad=True)})
        >>> gradient["w"].item(), gradient["w"].requires_grad  # a meta-gradient goes on through it
        (6.0, True)
    """
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise RuntimeError(
            "An inner step differentiates its loss, which torch.inference_mode does not allow; use torch.no_grad()."
        )
    differentiate = grad_and_value(loss) if transformed() else _by_tape(loss)
    return differentiate(value)


def stopped(loss: Callable[[Params], Tensor], value: Params) -> tuple[Params, Tensor]:
    """The gradient and the loss as constants: second derivatives are dropped, and never computed.

    Example:
        >>> gradient, loss = stopped(lambda value: value["w"].square(), {"w": torch.tensor(3.0, requires_grad=True)})
        >>> gradient["w"].item(), gradient["w"].requires_grad  # a meta-gradient stops here
        (6.0, False)
    """
    with torch.no_grad():
        gradient, loss_value = exact(loss, {name: tensor.detach() for name, tensor in value.items()})
    return {name: tensor.detach() for name, tensor in gradient.items()}, loss_value.detach()


def scaled(share: Tensor, loss: Callable[[Params], Tensor], value: Params) -> tuple[Params, Tensor]:
    """The exact gradient and loss, of which further derivatives are a ``share``: at 0 as ``stopped``, at 1 ``exact``.

    Second derivatives are computed at any share, which may be one that compiled code cannot know.

    Example:
        >>> share, w = torch.tensor(0.0), torch.tensor(3.0, requires_grad=True)
        >>> gradient, _ = scaled(share, lambda value: value["w"].square(), {"w": w})
        >>> torch.autograd.grad(gradient["w"], w)  # no second derivative
        (tensor(0.),)
    """
    gradient, loss_value = exact(loss, value)
    return {name: g.detach() + share * (g - g.detach()) for name, g in gradient.items()}, loss_value


def transformed() -> bool:
    """Whether the caller is inside of a function transform or of compiled code, where only transforms differentiate.

    Torch has no public name for the question; without the private one, transforms are right everywhere.
    """
    if torch.compiler.is_compiling():
        return True
    active: Callable[[], bool] | None = getattr(torch._C, "_are_functorch_transforms_active", None)
    return active is None or active()


def _by_tape(loss: Callable[[Params], Tensor]) -> Callable[[Params], tuple[Params, Tensor]]:
    """What ``grad_and_value`` does, by ``torch.autograd.grad``: fewer layers, and no graph where nobody needs it."""

    def differentiate(value: Params) -> tuple[Params, Tensor]:
        wanted = torch.is_grad_enabled()  # a transform records the gradient in any case
        with torch.enable_grad():
            # A name of its own for each tensor: one that the loss also reads elsewhere is a constant there.
            own = {
                name: tensor.view_as(tensor) if wanted and tensor.requires_grad else tensor.detach().requires_grad_()
                for name, tensor in value.items()
            }
            loss_value = loss(own)
            gradients = torch.autograd.grad(loss_value, list(own.values()), create_graph=wanted, materialize_grads=True)
        return dict(zip(own, gradients, strict=True)), loss_value if wanted else loss_value.detach()

    return differentiate
