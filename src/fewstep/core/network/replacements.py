"""What takes the place of torch's functions in a network's forward, with torch's own signatures.

Beside a function's arguments these read the noise and the statistics of the forward (:class:`Forward`).
"""

import math
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewstep.core.network import primitives
from fewstep.core.network.forward import Forward
from fewstep.core.noise import Mask


def _f_batch_norm(
    forward: Forward,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        running_mean, running_var = forward.moments_of(input, momentum)
    return primitives.batch_norm(input, running_mean, running_var, weight, bias, eps)


def _batch_norm(
    forward: Forward,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    return _f_batch_norm(forward, input, running_mean, running_var, weight, bias, training, momentum, eps)


def _dropout(
    dims: tuple[int, ...] | None,
    forward: Forward,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    train: bool = True,
) -> Tensor:
    """Of elements; or of whole channels, before which there are rows where ``input`` has one of so many ``dims``."""
    shape = input.shape if dims is None else input.shape[: 2 if input.dim() in dims else 1]
    return forward.drop(input, p, shape) if training and train else input


def _alpha(
    whole: bool,
    forward: Forward,
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    train: bool = False,
) -> Tensor:
    """SELU's dropout: what is dropped becomes −α', and mean and variance stay (Klambauer et al. 2017, section 3)."""
    if not (training or train) or p == 0:
        return input
    shape = tuple(input.shape[:2] if whole else input.shape)
    kept = forward.drawn(Mask(shape, p))
    if kept is None:
        return input
    kept, alpha = kept.view(*shape, *(1,) * (input.dim() - len(shape))).to(input.dtype), 1.7580993408473766
    scale = 1 / math.sqrt((alpha**2 * p + 1) * (1 - p))
    return scale * (input * kept + alpha * (kept - 1) + alpha * p)


def _embedding(
    forward: Forward,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of a table; that of the padding is a constant, which ``vmap`` forgets."""
    if max_norm is not None:
        raise ValueError("The network's embedding renews its table in place (max_norm): leave max_norm out.")
    rows = F.embedding(input, weight)
    if padding_idx is None:
        return rows
    return torch.where((input == padding_idx % len(weight)).unsqueeze(-1), rows.detach(), rows)


def _rrelu(
    forward: Forward,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    share = forward.uniform(input) if training else None
    slope = (lower + upper) / 2 if share is None else lower + (upper - lower) * share
    return torch.where(input >= 0, input, input * slope)


def _filled(make: Callable[..., Tensor], uniform: bool, forward: Forward, *args: Any, **kwargs: Any) -> Tensor:
    """``torch.rand`` and its like; the noise itself is lent, so a copy of it."""
    _require_no_generator(kwargs.pop("generator", None))
    like = make(*args, **kwargs)
    found = forward.uniform(like) if uniform else forward.normal(like)
    return (like + 0.5 if uniform else like) if found is None else found.clone()


def _require_no_generator(generator: Any) -> None:
    if generator is not None:
        raise ValueError("The network draws from a generator of its own; leave it out, and its draws are the task's.")


def _bernoulli(forward: Forward, input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    _require_no_generator(generator)
    chance = input if p is None else torch.full_like(input, p)
    share = forward.uniform(chance)
    return chance if share is None else (share < chance).to(chance.dtype)


def _set_bernoulli(forward: Forward, input: Tensor, p: float | Tensor = 0.5, *, generator: Any = None) -> Tensor:
    return _bernoulli(forward, torch.zeros_like(input) + p, generator=generator)


def _set_normal(
    forward: Forward, input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None
) -> Tensor:
    _require_no_generator(generator)
    found = forward.normal(input)
    return torch.full_like(input, mean) if found is None else mean + std * found


def _set_uniform(
    forward: Forward, input: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None
) -> Tensor:
    _require_no_generator(generator)
    found = forward.uniform(input)
    return torch.full_like(input, (low + high) / 2) if found is None else low + (high - low) * found


def _recurrent(cell: primitives.Cell, forward: Forward, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(args[3], bool):  # packed sequences have their lengths for a second argument
        raise ValueError("The network runs a recurrent layer on packed sequences: give it padded ones.")
    return primitives.recurrent(cell, forward.drop, *args, **kwargs)


def _with_dropout(function: Callable[..., Any], forward: Forward, *args: Any, **kwargs: Any) -> Any:
    return function(forward.drop, *args, **kwargs)


OF_ARGUMENTS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: primitives.layer_norm,
    torch.layer_norm: primitives.layer_norm,
    F.rms_norm: primitives.rms_norm,
    torch.rms_norm: primitives.rms_norm,
    F.group_norm: primitives.group_norm,
    torch.group_norm: primitives.group_norm,
    F.instance_norm: primitives.instance_norm,
    torch._weight_norm: primitives.weight_norm,
    torch.cdist: primitives.cdist,
    torch.pdist: primitives.pdist,
    F.pdist: primitives.pdist,
    F.embedding_bag: primitives.embedding_bag,
    torch.lstm_cell: primitives.lstm_cell,
    torch.gru_cell: primitives.gru_cell,
    torch.rnn_tanh_cell: primitives.rnn_tanh_cell,
    torch.rnn_relu_cell: primitives.rnn_relu_cell,
}
"""What needs nothing but its arguments."""

OF_FORWARD: dict[Callable[..., Any], Callable[..., Any]] = {
    F.batch_norm: _f_batch_norm,
    torch.batch_norm: _batch_norm,
    F.scaled_dot_product_attention: partial(_with_dropout, primitives.attention),
    F.multi_head_attention_forward: partial(_with_dropout, primitives.multi_head_attention),
    torch.lstm: partial(_recurrent, primitives.lstm_cell),
    torch.gru: partial(_recurrent, primitives.gru_cell),
    torch.rnn_tanh: partial(_recurrent, primitives.rnn_tanh_cell),
    torch.rnn_relu: partial(_recurrent, primitives.rnn_relu_cell),
    F.embedding: _embedding,
    F.rrelu: _rrelu,
    torch.rand: partial(_filled, torch.zeros, True),
    torch.rand_like: partial(_filled, torch.zeros_like, True),
    torch.randn: partial(_filled, torch.zeros, False),
    torch.randn_like: partial(_filled, torch.zeros_like, False),
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    **dict.fromkeys((F.dropout, torch.dropout, torch.dropout_), partial(_dropout, None)),
    F.dropout1d: partial(_dropout, (3,)),
    F.dropout2d: partial(_dropout, (3, 4)),
    F.dropout3d: partial(_dropout, (5,)),
    **dict.fromkeys((torch.feature_dropout, torch.feature_dropout_), partial(_dropout, (2, 3, 4, 5))),
    **dict.fromkeys((F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_), partial(_alpha, False)),
    **dict.fromkeys(
        (F.feature_alpha_dropout, torch.feature_alpha_dropout, torch.feature_alpha_dropout_), partial(_alpha, True)
    ),
}
"""What also reads noise or row weights."""

FACTORIES = {torch.rand, torch.randn}
"""What takes the type of its ``out``."""


def _place(function: Any) -> int | None:
    names = function.__code__.co_varnames[: function.__code__.co_argcount] if isinstance(function, FunctionType) else ()
    return names.index("inplace") if "inplace" in names else None


_PLACES = {function: place for function in vars(F).values() if (place := _place(function)) is not None}
"""Where functions have the argument ``inplace``."""


def out_of_place(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[bool, tuple[Any, ...], dict[str, Any]]:
    """Whether a function is asked to change its input, and the arguments with which it does not."""
    place = _PLACES.get(function)
    if place is None or not (args[place] if len(args) > place else kwargs.get("inplace", False)):
        return False, args, kwargs
    if len(args) > place:
        return True, (*args[:place], False, *args[place + 1 :]), kwargs
    return True, args, kwargs | {"inplace": False}


IN_PLACE_DRAWS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    Tensor.bernoulli_: _set_bernoulli,
    Tensor.normal_: _set_normal,
    Tensor.uniform_: _set_uniform,
}

REFUSED = {
    *(getattr(Tensor, name) for name in ("random_", "exponential_", "geometric_", "log_normal_", "cauchy_")),
    *(torch.randint, torch.randint_like, torch.randperm, torch.multinomial, Tensor.multinomial, torch.normal),
    *(torch.poisson, F.gumbel_softmax, F.fractional_max_pool2d, F.fractional_max_pool3d),
}
