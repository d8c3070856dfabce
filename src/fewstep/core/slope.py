"""How a loss becomes its gradient: the one argument that separates MAML from first-order MAML."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import grad_and_value

from fewstep.core.types import Params

Slope: TypeAlias = Callable[[Callable[[Params], Tensor], Params], tuple[Params, Tensor]]


def exact(loss: Callable[[Params], Tensor], value: Params) -> tuple[Params, Tensor]:
    """The gradient and the loss, both differentiable: the meta-gradient sees how the step depends on its start."""
    gradient, at = grad_and_value(loss)(value)
    return gradient, at


def stopped(loss: Callable[[Params], Tensor], value: Params) -> tuple[Params, Tensor]:
    """The gradient and the loss as constants: second derivatives are dropped, and never computed."""
    with torch.no_grad():
        gradient, at = grad_and_value(loss)({name: tensor.detach() for name, tensor in value.items()})
    return {name: tensor.detach() for name, tensor in gradient.items()}, at.detach()
