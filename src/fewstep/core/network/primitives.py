"""Torch's fused operations from primitive ones, with torch's own signatures.

``torch.func.vmap`` differentiates fused norms wrongly at second order, without a word; ``weight_norm`` is wrong in a
plain loop too; attention's kernels and recurrent layers have no second derivative or no rule for ``vmap``. What is here
has all of them, under every executor (see ``operations``, which puts it in place of torch's).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

# -- norms ------------------------------------------------------------------------------------------------------------


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """``y = γ (x − m)/√(v + ε) + β`` over the last axes."""
    normal = _standardised(input, tuple(range(-len(normalized_shape), 0)), eps)
    return _affine(normal, weight, bias)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """``y = γ x/√(mean x² + ε)`` over the last axes; ε is the type's resolution when omitted."""
    square = input.square().mean(tuple(range(-len(normalized_shape), 0)), keepdim=True)
    return _affine(input * (square + (torch.finfo(input.dtype).eps if eps is None else eps)).rsqrt(), weight, None)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Each row normalised by groups of its channels."""
    normal = _standardised(input.reshape(len(input), num_groups, -1), (-1,), eps).view_as(input)
    return _affine(normal, weight, bias, by_channel=True)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Each row normalised by its own channels, or by running statistics where the layer is in evaluation mode."""
    if use_input_stats or running_mean is None or running_var is None:
        normal = _standardised(input, tuple(range(2, input.dim())), eps)
        return _affine(normal, weight, bias, by_channel=True)
    return batch_norm(input, running_mean, running_var, weight, bias, eps)


def batch_norm(
    input: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Normalised by statistics ``[channels]`` that are given, see :func:`batch_moments`."""
    gain = (variance + eps).rsqrt()
    normal = (input - _over_positions(mean, input)) * _over_positions(gain if weight is None else gain * weight, input)
    return _affine(normal, None, bias, by_channel=True)


def batch_moments(input: Tensor, row_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of the channels over rows, in proportion to their weights, and over positions."""
    share = None if row_weight is None else row_weight / row_weight.sum()

    def average(x: Tensor) -> Tensor:
        rows = x.flatten(2).mean(2) if x.dim() > 2 else x
        return rows.mean(0) if share is None else share @ rows

    mean = average(input)
    return mean, average((input - _over_positions(mean, input)).square())


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``g v/‖v‖``, the norm over all axes but ``dim``; over all of them for −1."""
    axes = [axis for axis in range(v.dim()) if dim == -1 or axis != dim % v.dim()]
    return v * (g / v.square().sum(axes, keepdim=True).sqrt().view_as(g))


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, by_channel: bool = False) -> Tensor:
    """``γ x + β``, either left out where it is None; of the last axes, or of the channels."""
    if weight is not None:
        x = x * (_over_positions(weight, x) if by_channel else weight)
    return x if bias is None else x + (_over_positions(bias, x) if by_channel else bias)


def _over_positions(channels: Tensor, x: Tensor) -> Tensor:
    """One number a channel, beside the positions of ``x``."""
    return channels.view(-1, *(1,) * (x.dim() - 2))


# -- distances and bags -----------------------------------------------------------------------------------------------


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """``‖x_i − y_j‖_p`` of all pairs of rows."""
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """``‖x_i − x_j‖_p`` for i < j."""
    i, j = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return _norm(input[i] - input[j], p)


def _norm(x: Tensor, p: float) -> Tensor:
    """Over the last axis. Its derivatives at zero are zero, as torch's first one is."""
    if p == 0:
        return (x != 0).sum(-1).to(x.dtype)
    if p == 1:
        return x.abs().sum(-1)
    if p == math.inf:
        return x.abs().max(-1).values
    total = (x.square() if p == 2 else torch.where(x == 0, 0, torch.where(x == 0, 1, x).abs().pow(p))).sum(-1)
    zero = total == 0
    return torch.where(zero, total, torch.where(zero, 1, total).pow(1 / p))


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The mean, sum or maximum of some rows of a table; of the padding none, and of no rows zero."""
    if max_norm is not None:
        raise ValueError("The network's embedding renews its table in place (max_norm): leave max_norm out.")
    rows = F.embedding(input, weight)  # [bags, rows, features], or those of all bags in one [all rows, features]
    counted = torch.ones_like(input, dtype=torch.bool) if padding_idx is None else input != padding_idx % len(weight)
    if offsets is not None:
        place = torch.arange(len(input), device=input.device)
        ends = torch.cat([offsets[1:], offsets.new_full((1,), len(input))])
        begins, ends = (offsets[:-1], offsets[1:]) if include_last_offset else (offsets, ends)
        counted = (begins.unsqueeze(1) <= place) & (place < ends.unsqueeze(1)) & counted
    if mode == "max":
        highest = rows.masked_fill(~counted.unsqueeze(-1), -math.inf).max(-2).values
        return torch.where(counted.any(-1, keepdim=True), highest, 0)
    share = counted.to(weight.dtype)
    total = ((share if per_sample_weights is None else share * per_sample_weights).unsqueeze(-1) * rows).sum(-2)
    return total / share.sum(-1, keepdim=True).clamp(min=1) if mode == "mean" else total


# -- attention --------------------------------------------------------------------------------------------------------

Dropout: TypeAlias = Callable[[Tensor, float], Tensor]


def attention(
    dropout: Dropout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``softmax(Q Kᵀ/√d + mask) V``: ``scaled_dot_product_attention``, without a kernel of its own."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    return dropout(_attention_weights(query, key, attn_mask, is_causal, scale), dropout_p) @ value


def _attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool = False, scale: float | None = None
) -> Tensor:
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def multi_head_attention(
    dropout: Dropout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """``multi_head_attention_forward``: inputs ``[positions, rows, features]``, or without an axis of rows."""
    single = query.dim() == 2
    if single:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
    matrices: Sequence[Any] = (q_proj_weight, k_proj_weight, v_proj_weight)
    if in_proj_weight is not None and not use_separate_proj_weight:
        matrices = in_proj_weight.chunk(3)
    biases: Sequence[Any] = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, m, b) for x, m, b in zip((query, key, value), matrices, biases, strict=True))
    rows = q.shape[1]
    if bias_k is not None and bias_v is not None:
        k, v = (torch.cat([x, bias.expand(1, rows, -1)]) for x, bias in ((k, bias_k), (v, bias_v)))

    def by_head(x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(2, (num_heads, -1))
        return heads.permute(1, 2, 0, 3)  # [rows, heads, positions, features]

    q, k, v = by_head(q), by_head(k), by_head(v)
    k = k if static_k is None else static_k.unflatten(0, (rows, num_heads))
    v = v if static_v is None else static_v.unflatten(0, (rows, num_heads))
    if add_zero_attn:
        k, v = (torch.cat([x, x.new_zeros(*x.shape[:2], 1, x.shape[3])], 2) for x in (k, v))
    mask = _added(attn_mask, q)
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (rows, num_heads))
    hidden = _added(key_padding_mask, q)
    if hidden is not None:
        hidden = hidden.view(rows, 1, 1, -1)
    masks = [F.pad(m, (0, k.shape[2] - m.shape[-1])) for m in (mask, hidden) if m is not None]
    weights = _attention_weights(q, k, sum(masks[1:], masks[0]) if masks else None)
    weights = dropout(weights, dropout_p) if training else weights
    out = F.linear((weights @ v).permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    weights = weights.mean(1) if average_attn_weights else weights
    if single:
        out, weights = out.squeeze(1), weights.squeeze(0)
    return out, weights if need_weights else None


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask that is added to scores; in torch's layer True is what is not seen."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


# -- recurrent layers -------------------------------------------------------------------------------------------------

State: TypeAlias = tuple[Tensor, ...]
Cell: TypeAlias = Callable[..., Any]


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    w_hr: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``c' = σ(f) c + σ(i) tanh(g)`` · ``h' = σ(o) tanh(c')``, projected if asked; all four of one linear map."""
    i, f, g, o = (F.linear(input, w_ih, b_ih) + F.linear(hx[0], w_hh, b_hh)).chunk(4, -1)
    c = f.sigmoid() * hx[1] + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if w_hr is None else F.linear(h, w_hr)), c


def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``n = tanh(a_n + σ(a_r + b_r) b_n)`` · ``h' = n + σ(a_z + b_z) (h − n)``."""
    (ar, az, an), (br, bz, bn) = F.linear(input, w_ih, b_ih).chunk(3, -1), F.linear(hx, w_hh, b_hh).chunk(3, -1)
    n = (an + (ar + br).sigmoid() * bn).tanh()
    return n + (az + bz).sigmoid() * (hx - n)


def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``h' = tanh(a + b)``."""
    return (F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh)).tanh()


def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """``h' = relu(a + b)``."""
    return (F.linear(input, w_ih, b_ih) + F.linear(hx, w_hh, b_hh)).relu()


def recurrent(
    cell: Cell,
    dropout: Dropout,
    input: Tensor,
    hx: Tensor | Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout_p: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """``torch.lstm``, ``torch.gru`` and their like: a cell along positions, in layers and directions.

    Args:
        cell: with a sequence of states where ``hx`` is one (LSTM), else with a tensor.
        dropout: of what goes from one layer to the next.
        input: ``[positions, rows, features]``, or rows first.
        hx: the states before the first position, each ``[layers · directions, rows, features]``.
        weights: those of a cell for each layer and direction.

    Returns:
        The output of the last layer at every position, and the last states.
    """
    several = not isinstance(hx, Tensor)
    states: Sequence[Tensor] = hx if several else (hx,)  # type: ignore[assignment]
    directions = 2 if bidirectional else 1
    each = len(weights) // (num_layers * directions)
    x, last = input.transpose(0, 1) if batch_first else input, []
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            own = list(weights[each * index : each * (index + 1)])
            if not has_biases:
                own[2:2] = [None, None]  # type: ignore[list-item]
            state: State = tuple(s[index] for s in states)
            found = []
            for row in reversed(x.unbind(0)) if direction else x.unbind(0):
                new = cell(row, state if several else state[0], *own)
                state = new if several else (new,)
                found.append(state[0])
            outputs.append(torch.stack(found[::-1] if direction else found))
            last.append(state)
        x = torch.cat(outputs, -1)
        if train and layer < num_layers - 1:
            x = dropout(x, dropout_p)
    final = [torch.stack(column) for column in zip(*last, strict=True)]
    return (x.transpose(0, 1) if batch_first else x, *final)
