"""What the layers of a network take in, and what an error of its output is at each of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewstep.core.network.operations import call
from fewstep.core.network.row_weights import row_weights
from fewstep.core.types import Params, Point

Roots = Callable[[Float[Tensor, "rows outputs"]], Float[Tensor, "errors rows outputs"]]
"""Of a prediction, some errors of each of its rows."""


class Tap(NamedTuple):
    """A linear layer, or a convolution, which is one at every position.

    Attributes:
        inputs: with a 1 for the bias at their ends.
        errors: the same errors of the output, carried back to what the layer puts out.
    """

    inputs: Float[Tensor, "rows positions inputs"]
    errors: Float[Tensor, "errors rows positions outputs"]


class _Tapping(TorchFunctionMode):
    """Notes what is multiplied by the given weights, and shifts what comes out."""

    def __init__(
        self, weights: Params, shifts: Sequence[Tensor], asked: list[tuple[Any, ...]], outputs: list[Tensor]
    ) -> None:
        super().__init__()
        self.weights, self.shifts, self.asked, self.outputs = list(weights.values()), shifts, asked, outputs

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        if function not in (F.linear, F.conv2d) or not any(args[1] is weight for weight in self.weights):
            return found
        self.asked.append(args)
        self.outputs.append(found)
        return found + self.shifts[len(self.asked) - 1] if self.shifts else found


def taps(network: nn.Module, point: Point, x: Tensor, weight: Tensor, roots: Roots) -> list[Tap]:
    """Inputs and errors of the layers whose weights are among the values of a point, in the order of a forward.

    An error at a layer is the derivative by a shift of its output, which is zero: exact under every transform, and
    differentiable. There are two forwards, and one backward for each of the errors.
    """
    weights = {**point.context, **point.value, **row_weights(network, weight)}

    def run(shifts: Sequence[Tensor], asked: list[tuple[Any, ...]], outputs: list[Tensor]) -> Tensor:
        with _Tapping(point.value, shifts, asked, outputs):
            return call(network, weights, x, weight).output

    asked: list[tuple[Any, ...]] = []
    outputs: list[Tensor] = []
    run([], asked, outputs)
    zeros = [torch.zeros_like(output) for output in outputs]
    prediction, back = torch.func.vjp(lambda shifts: run(shifts, [], []), zeros)  # type: ignore[misc]  # of no aux
    (errors,) = torch.func.vmap(back)(roots(prediction))
    return [Tap(_inputs(*args), _by_position(error)) for args, error in zip(asked, errors, strict=True)]


def _inputs(x: Tensor, weight: Tensor, bias: Tensor | None = None, *options: Any) -> Float[Tensor, "rows positions _"]:
    if weight.dim() == 2:
        rows = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)
    else:
        stride, padding, dilation, groups = options
        if groups > 1 or isinstance(padding, str):
            raise ValueError("A convolution in groups, or padded by a name, is not among the layers that are tapped.")
        rows = F.unfold(x, weight.shape[2:], dilation, padding, stride).mT
    return rows if bias is None else torch.cat([rows, rows.new_ones(*rows.shape[:-1], 1)], -1)


def _by_position(error: Float[Tensor, "errors rows *output"]) -> Float[Tensor, "errors rows positions outputs"]:
    if error.dim() == 5:  # of images, whose channels lead
        return error.flatten(3).mT
    return error.flatten(2, -2) if error.dim() > 3 else error.unsqueeze(2)
