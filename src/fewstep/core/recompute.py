"""Gradient checkpointing for inner steps: compute a step again when it is differentiated, and keep nothing of it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fewstep.core.executors import Executor, Function, of_tensors


def recomputed(map_tasks: Executor, parameters: Sequence[nn.Parameter], function: Function) -> Function:
    """Map ``function`` by ``map_tasks``, keeping its arguments instead of its graph.

    ``torch.utils.checkpoint`` works neither around nor inside function transforms. Here the transforms are inside the
    function that is run twice, and autograd sees one operation. So this wraps a mapped step, and cannot itself be
    transformed: ``vmap`` has to map tasks step by step. A loop over whole tasks is no transform.

    Args:
        map_tasks: the executor.
        parameters: the meta-parameters that ``function`` reads beside its arguments.
        function: of one task; its arguments and results are pytrees of tensors.
    """

    def run(*trees: Any) -> Any:
        call, tensors = of_tensors(function, trees)
        mapped, forms = map_tasks(call), list[TreeSpec]()

        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            results, form = tree_flatten(mapped(*tensors))
            forms.append(form)
            return tuple(results)

        results = _Twice.apply(flat, len(tensors), *tensors, *parameters)
        return tree_unflatten(results, forms[0])

    return run


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, flat: Callable[..., tuple[Tensor, ...]], arguments: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.flat, ctx.arguments = flat, arguments
        ctx.save_for_backward(*tensors)
        return flat(*tensors[:arguments])

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        tensors = [
            tensor.detach().requires_grad_(need) if i < ctx.arguments else tensor
            for i, (tensor, need) in enumerate(zip(ctx.saved_tensors, needed, strict=True))
        ]
        with torch.enable_grad():
            results = ctx.flat(*tensors[: ctx.arguments])
        pairs = [(r, s) for r, s in zip(results, slopes, strict=True) if r.requires_grad and s is not None]
        sources = [tensor for tensor, need in zip(tensors, needed, strict=True) if need]
        found = iter(torch.autograd.grad([r for r, _ in pairs], sources, [s for _, s in pairs], allow_unused=True))
        return (None, None, *(next(found) if need else None for need in needed))
