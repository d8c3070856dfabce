"""The straightforward way, for methods whose head looks at the support: a Python loop over tasks, rows at once.

As in ``method_loops.py``: one task's graph alive at a time, no function transforms, torch's own fused normalisation,
written from the papers. Parameters are the method's own, so that nothing is copied; each function returns the
meta-gradient of all of them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.method_loops import MetaGradient, means_over_tasks
from fewstep.core import Attending, Memory, Method
from fewstep.networks import BatchNorm, Conv4
from fewstep.networks.distances import Distances
from fewstep.networks.matching import Matching
from fewstep.networks.propagating import Propagating
from fewstep.networks.relating import Relating
from fewstep.networks.snail import Attention, Dense, Snail

Affine = Mapping[str, tuple[Tensor, Tensor]]
"""Scale and shift of layers, by name, that a task gives in place of their own."""


def plain(module: nn.Module, x: Tensor, own: Affine | None = None, name: str = "") -> Tensor:
    """A network's layers one after another, as torch's own functions."""
    own = own or {}
    if isinstance(module, nn.Sequential):
        for part, layer in module.named_children():
            x = plain(layer, x, own, f"{name}{part}.")
        return x
    if isinstance(module, Conv4):
        return plain(module.blocks, x, own, f"{name}blocks.").mean((2, 3))
    if isinstance(module, BatchNorm):
        scale, shift = own.get(name, (module.weight, module.bias))
        return F.batch_norm(x, None, None, scale, shift, True, eps=module.eps)
    if isinstance(module, nn.Conv1d):
        return F.linear(x, module.weight.squeeze(2), module.bias)
    if isinstance(module, nn.Conv3d):
        padding = cast("tuple[int, ...]", module.padding)
        return F.conv2d(x, module.weight.squeeze(2), module.bias, padding=padding[1:])
    if isinstance(module, nn.MaxPool3d):
        return F.max_pool2d(x, 2)
    found: Tensor = module(x)
    if name in own:
        scale, shift = own[name]
        found = scale * found + shift
    return found


def _parts(method: Method) -> tuple[nn.Module, nn.Module, list[Tensor]]:
    """The embedding, the head, and all parameters."""
    embedding, head = cast("nn.Sequential", method.learner.network)
    return embedding, head, list(method.learner.parameters())


def _members(y: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(y).T.to(like.dtype)


def _means(rows: Tensor, y: Tensor) -> Tensor:
    members = _members(y, rows)
    return members @ rows / members.sum(1, keepdim=True)


def _meta_gradient(loss: Callable[..., Tensor], parameters: list[Tensor]) -> MetaGradient:
    def of_task(*task: Tensor) -> Iterable[Tensor]:
        return torch.autograd.grad(loss(*task), parameters)

    return means_over_tasks(of_task, parameters)


def matching(method: Method) -> MetaGradient:
    """Cosines with the support, added by class."""
    embedding, head, parameters = _parts(method)
    scale = cast("Matching", head).log_scale
    assert scale is not None

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        support, query = (F.normalize(plain(embedding, rows), dim=1) for rows in (x, query_x))
        return F.cross_entropy(scale.exp() * query @ (_members(y, support) @ support).T, query_y)

    return _meta_gradient(loss, parameters)


def relation(method: Method) -> MetaGradient:
    """Scores of every pair of a class's sum and a query."""
    embedding, head, parameters = _parts(method)
    module = cast("Relating", head).module

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        support, query = plain(embedding, x), plain(embedding, query_x)
        classes = (_members(y, support) @ support.flatten(1)).unflatten(1, support.shape[1:])
        shape = (len(query), len(classes), *query.shape[1:])
        pairs = torch.cat([classes.expand(shape), query.unsqueeze(1).expand(shape)], 2)
        scores = plain(module, pairs.flatten(0, 1)).view(len(query), -1)
        return F.mse_loss(scores.sigmoid(), F.one_hot(query_y, len(classes)).to(scores.dtype))

    return _meta_gradient(loss, parameters)


def tpn(method: Method) -> MetaGradient:
    """Labels spread over the graph of nearest neighbours, by one solve."""
    embedding, head, parameters = _parts(method)
    head = cast("Propagating", head)
    width = head.width
    assert width is not None

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        support, query = plain(embedding, x), plain(embedding, query_x)
        rows = torch.cat([support / plain(width, support), query / plain(width, query)])
        squares = rows.square().mean(1)
        distances = squares + squares.unsqueeze(1) - 2 / rows.shape[1] * rows @ rows.T
        edges = (-0.5 * distances).exp()
        near = edges >= edges.topk(min(head.neighbours, len(rows))).values[:, -1:]
        edges = edges * (near | near.T)
        gains = edges.sum(0).rsqrt()
        system = torch.eye(len(rows), dtype=rows.dtype) - head.alpha * gains * edges * gains.unsqueeze(1)
        labels = torch.cat([_members(y, rows).T, rows.new_zeros(len(query), int(y.max()) + 1)])
        return F.cross_entropy(torch.linalg.solve(system, labels), torch.cat([y, query_y]))

    return _meta_gradient(loss, parameters)


def tadam(method: Method) -> MetaGradient:
    """Distances to class means, in layers that the support's first pass scales and shifts."""
    embedding, head, parameters = _parts(method)
    alpha, conditioning = cast("Distances", head).scale, cast("Memory", method.learner.start).conditioning
    assert conditioning is not None

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        task, own = _means(plain(embedding, x), y).mean(0), {}
        for name, made in zip(conditioning.names, conditioning.layers, strict=True):
            (gain, shift), layer = made(task), method.learner.network.get_submodule(name)
            if isinstance(layer, BatchNorm):
                assert layer.weight is not None
                gain, shift = gain * layer.weight, gain * layer.bias + shift
            own[f"{name.removeprefix('0.')}."] = gain, shift
        means, query = _means(plain(embedding, x, own), y), plain(embedding, query_x, own)
        squares = (query.unsqueeze(1) - means).square().sum(2)
        return F.cross_entropy(-alpha * (squares + 1e-12).sqrt(), query_y)

    return _meta_gradient(loss, parameters)


def ppa(method: Method) -> MetaGradient:
    """Weights predicted from class means."""
    start, parameters = method.learner.start, list(method.learner.parameters())

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        weights = start.predictor(_means(x, y))
        return F.cross_entropy(start.log_scale.exp() * query_x @ weights.T, query_y)

    return _meta_gradient(loss, parameters)


def dfsl(method: Method) -> MetaGradient:
    """A cosine classifier of new classes, beside that of known ones, of which a task's own are left out."""
    start, parameters = cast("Attending", method.learner.start), list(method.learner.parameters())

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, classes: Tensor) -> Tensor:
        rows, query, known = F.normalize(x, dim=1), F.normalize(query_x, dim=1), F.normalize(start.weights, dim=1)
        near = start.log_sharpness.exp() * F.normalize(start.asking(rows), dim=1) @ F.normalize(start.keys, dim=1).T
        read = near.index_fill(1, classes, -torch.inf).softmax(1) @ known
        made = start.mean_gain * _means(rows, y) + start.attended_gain * _means(read, y)
        scores = start.log_scale.exp() * query @ torch.cat([F.normalize(made, dim=1), known]).T
        return F.cross_entropy(scores.index_fill(1, classes + len(made), -torch.inf), query_y)

    return _meta_gradient(loss, parameters)


def snail(method: Method) -> MetaGradient:
    """Every query with the whole support before it, a sequence of its own."""
    embedding, head, parameters = _parts(method)
    head = cast("Snail", head)

    def loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor, order: Tensor) -> Tensor:
        support, query = plain(embedding, x)[order], plain(embedding, query_x)
        support = torch.cat([support, _members(y, support).T[order]], 1)
        query = torch.cat([query, query.new_zeros(len(query), head.ways)], 1)
        columns = torch.cat([support.expand(len(query), -1, -1), query.unsqueeze(1)], 1)
        causal = torch.ones(columns.shape[1], columns.shape[1], dtype=torch.bool).tril()
        for layer in head.layers:
            if isinstance(layer, Dense):
                z = layer.now(columns)
                if layer.past is not None and layer.lag < columns.shape[1]:
                    z = z + F.pad(layer.past(columns[:, : -layer.lag]), (0, 0, layer.lag, 0))
                f, g = z.chunk(2, 2)
                made = f.tanh() * g.sigmoid()
            else:
                layer = cast("Attention", layer)
                q, k, v = layer.query(columns), layer.key(columns), layer.value(columns)
                made = F.scaled_dot_product_attention(q, k, v, attn_mask=causal)
            columns = torch.cat([columns, made], 2)
        return F.cross_entropy(head.last(columns[:, -1]), query_y)

    return _meta_gradient(loss, parameters)
