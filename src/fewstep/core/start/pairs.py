"""The part of a relation network that is about pairs of examples, in blocks that fit into a processor's cache."""

import torch
from torch import Tensor

WHOLE = 2**20
"""Numbers of all pairs of a task up to which they are kept as a whole: 25 rows in 128 units are 80,000."""

BLOCK = 2**18
"""Numbers of a block of pairs."""


# An operation of its own: what is kept of it for the backward pass are its arguments, under vmap too.
@torch.library.custom_op("fewstep::mean_over_pairs", mutates_args=())
def mean_over_pairs(left: Tensor, right: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """``Σ_j share_j ReLU(second ReLU(left_i + right_j))`` of every row i of every task.

    The pairs are made a block of rows at a time, and once more for the derivatives, of which there are first ones.

    Args:
        left: ``[tasks, rows, hidden]``.
        right: ``[tasks, rows, hidden]``.
        second: ``[outputs, hidden]``.
        share: ``[tasks, rows]``, which is no variable.

    Returns:
        ``[tasks, rows, outputs]``.
    """
    means = left.new_empty(*left.shape[:2], len(second))
    for task in range(len(left)):
        for i in _blocks(left):
            units = _pairs(left[task, i], right[task]) @ second.T
            means[task, i] = share[task] @ units.relu_()
    return means


@torch.library.custom_op("fewstep::mean_over_pairs_backward", mutates_args=())
def _backward(
    slope: Tensor, left: Tensor, right: Tensor, second: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_left, of_right, of_second = torch.empty_like(left), torch.zeros_like(right), torch.zeros_like(second)
    for task in range(len(left)):
        for i in _blocks(left):
            pairs = _pairs(left[task, i], right[task])
            units = (pairs @ second.T).gt_(0).mul_(share[task, :, None]).mul_(slope[task, i, None])
            of_second.addmm_(units.flatten(0, 1).T, pairs.flatten(0, 1))
            of_pairs = pairs.gt_(0).mul_(units @ second)
            of_left[task, i] = of_pairs.sum(1)
            of_right[task] += of_pairs.sum(0)
    return of_left, of_right, of_second


def _blocks(left: Tensor) -> list[slice]:
    """Rows whose pairs are a block."""
    rows, hidden = left.shape[1:]
    some = max(1, BLOCK // (rows * hidden))
    return [slice(first, first + some) for first in range(0, rows, some)]


def _pairs(left: Tensor, right: Tensor) -> Tensor:
    """``ReLU(left_i + right_j)``."""
    return (left.unsqueeze(1) + right).relu_()


@mean_over_pairs.register_fake
def _(left: Tensor, right: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return left.new_empty(*left.shape[:2], len(second))


@_backward.register_fake
def _(slope: Tensor, left: Tensor, right: Tensor, second: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(left), torch.empty_like(right), torch.empty_like(second)


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(*inputs)


def _differentiated(ctx, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
    return *_backward(slope.contiguous(), *ctx.saved_tensors), None


mean_over_pairs.register_autograd(_differentiated, setup_context=_keep)


@mean_over_pairs.register_vmap
def _(info, in_dims, left: Tensor, right: Tensor, second: Tensor, share: Tensor) -> tuple[Tensor, int]:  # type: ignore[no-untyped-def]
    """Tasks are tasks; of several second layers each is an operation."""
    of = (left, right, second, share)
    of_each = [
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(of, in_dims, strict=True)
    ]
    if in_dims[2] is not None:
        return torch.stack([mean_over_pairs(*each) for each in zip(*of_each, strict=True)]), 0
    lefts, rights, _, shares = (tensor.flatten(0, 1) for tensor in of_each)
    return mean_over_pairs(lefts, rights, second, shares).unflatten(0, (info.batch_size, -1)), 0
