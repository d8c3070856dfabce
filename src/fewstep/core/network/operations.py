"""Any ``nn.Module`` in an inner loop: what its forward asks of torch is answered from primitive operations.

A network that a user brings may hold layers that torch differentiates wrongly under ``vmap``, or not at all; it may
draw random numbers, and move its buffers. :func:`call` runs such a network with all of these replaced: results and
derivatives of every order are those of the equations, whatever the executor, draws are read from noise, and nothing
that the network holds is moved. Networks made of plain layers run as they are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_map

from fewstep.core.network import primitives
from fewstep.core.noise import Mask, Normal, Site, dropout
from fewstep.core.types import Batch, Params


class Moments(NamedTuple):
    """What a batch normalisation saw.

    Attributes:
        mean: ``[channels]``.
        variance: ``[channels]``.
        momentum: weight of the newest statistics in running ones, as the layer asked for.
        by_row: an entry of what was normalised was a row, so that rows could be counted by their weights.
    """

    mean: Tensor
    variance: Tensor
    momentum: float
    by_row: bool


class Run(NamedTuple):
    """What a network gave, and what its batch normalisations saw, in the order of its forward."""

    output: Tensor
    moments: list[Moments]


class Mixing(NamedTuple):
    """How a row of the output depends on the other rows of the input.

    Attributes:
        normalises: by the statistics of a batch normalisation, which can be taken from other rows.
        otherwise: in another way.
    """

    normalises: bool
    otherwise: bool


def call(
    network: nn.Module,
    weights: Params,
    x: Tensor,
    row_weight: Tensor | None = None,
    draws: Sequence[Tensor] | None = None,
    moments: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> Run:
    """Run ``network`` with ``weights`` in place of its own parameters and buffers of those names.

    Args:
        network: maps rows to rows.
        weights: by name; what is not named is the network's own.
        x: ``[rows, *features]``.
        row_weight: ``[rows]``, by which rows enter the statistics of batch normalisations; all alike when omitted.
        draws: what the network draws, in the order of :func:`random_sites`. None: every draw is its mean, and
            dropout leaves its input as it is.
        moments: means and variances to normalise by, in place of those of ``x``.
    """
    if is_plain(network):
        return Run(functional_call(network, weights, (x,)), [])
    if torch.compiler.is_compiling() and _is_reparametrised(network):
        raise RuntimeError("torch's compiler does not see what takes the place of reparametrised weights")
    seen: list[Moments] = []
    with _unchanged(network), _Replaced(network, row_weight, draws, moments, seen):
        output: Tensor = functional_call(network, weights, (x,))
    return Run(output, seen)


def random_sites(network: nn.Module, weights: Params, batch: Batch) -> list[Site]:
    """Every random draw of ``network`` on rows of this shape: one forward on zeros, which moves nothing."""
    if is_plain(network):
        return []
    dtype = batch.weight.dtype if batch.x.is_floating_point() else batch.x.dtype
    x = torch.zeros(batch.x.shape, dtype=dtype, device=batch.weight.device)
    with torch.no_grad(), _unchanged(network), _Recorded(network, None, None, None, []) as mode:
        functional_call(network, weights, (x,))
        found: list[Site] = mode.sites
    return found


def mixing(network: nn.Module, weights: Params, batch: Batch) -> Mixing:
    """Whether rows of such a shape see each other: two forwards, whose first rows alone are the same.

    Raises:
        ValueError: when they move a buffer or a parameter of the network, in a way that is not seen.
    """
    if is_plain(network):
        return Mixing(False, False)
    shape = (max(2, len(batch.x)), *batch.x.shape[1:])
    x = torch.zeros(shape, dtype=batch.x.dtype, device=batch.weight.device)
    if batch.x.is_floating_point():
        numbers = torch.randn((2, *shape), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        x, others = numbers.to(batch.weight.device, batch.weight.dtype)
        others[0] = x[0]
    else:
        others = x + 1
        others[0] = 0
    weight, before = batch.weight.new_ones(len(x)), {name: t.clone() for name, t in _held(network)}
    with torch.no_grad():
        one, two = call(network, weights, x, weight), call(network, weights, others, weight)
        moved = [(name, tensor) for name, tensor in _held(network) if not torch.equal(tensor, before[name])]
        for name, tensor in moved:
            tensor.copy_(before[name])
    if moved:
        raise ValueError(
            f"The network's forward moves its {moved[0][0]} through a view or `.data`, which would make predictions "
            "depend on earlier ones: assign a new tensor instead, or move it by a method of its own."
        )
    scale = one.output[0].abs().max()
    same = bool((one.output[0] - two.output[0]).abs().max() <= 1e-4 * scale) or not bool(scale.isfinite())
    by_rows = [moments.by_row for moments in one.moments]
    return Mixing(all(by_rows) and bool(by_rows), not same and not (by_rows and all(by_rows)))


def _held(network: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, by name."""
    return [*network.named_parameters(), *network.named_buffers()]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def is_plain(network: nn.Module) -> bool:
    """Whether every module is one of fewstep's own, or a layer of torch's that needs no replacement, without hooks."""
    return all(
        (type(module) in _PLAIN or type(module).__module__.split(".")[0] == "fewstep")
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (isinstance(module, nn.Embedding) and (module.max_norm, module.padding_idx) != (None, None))
        for module in network.modules()
    )


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Give the modules back the tensors that a forward has put others in place of: those would be of a transform."""
    before = [(module, dict(module._buffers), dict(vars(module))) for module in network.modules()]
    try:
        yield
    finally:
        for module, buffers, attributes in before:
            module._buffers.update(buffers)
            for name in [name for name, value in vars(module).items() if isinstance(value, Tensor)]:
                if name in attributes:
                    vars(module)[name] = attributes[name]
                else:
                    del vars(module)[name]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_reparametrised(network: nn.Module) -> bool:
    """Whether weights are functions of parameters, such as under ``weight_norm``: compiled, these were torch's own."""
    return any(module._forward_pre_hooks or parametrize.is_parametrized(module) for module in network.modules())


_PLAIN = {
    *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Bilinear),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.Upsample, nn.ZeroPad2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.ConstantPad1d, nn.ConstantPad2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign),
    *(nn.Softmax, nn.LogSoftmax, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
}


class _Replaced(TorchFunctionMode):
    """Answers what one forward asks of torch."""

    def __init__(
        self,
        network: nn.Module,
        row_weight: Tensor | None,
        draws: Sequence[Tensor] | None,
        moments: Sequence[tuple[Tensor, Tensor]] | None,
        seen: list[Moments],
    ) -> None:
        super().__init__()
        self.row_weight, self.seen = row_weight, seen
        self._draws: Iterator[Tensor] | None = None if draws is None else iter(draws)
        self._given = None if moments is None else iter(moments)
        self._targets = {id(buffer): buffer for buffer in network.buffers()}  # what in-place operations may aim at
        self._saving = _saving_hooks()
        self._kept = list(network.buffers())
        self._spectral = any(map(_is_spectral, network.modules()))
        self._moved: dict[int, Tensor] = {}  # where targets stand, by their ids

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = args
        if self._moved:
            args, kwargs = tree_map(self._now, args), {k: v if k == "out" else self._now(v) for k, v in kwargs.items()}
        if self._saving != _saving_hooks():
            raise ValueError(
                "The network recomputes a part of itself (torch.utils.checkpoint), which an inner loop would do with "
                "weights that are not the task's: leave it out; the learner can recompute its steps (recompute=True)."
            )
        if function in _POWER and self._spectral:  # its vectors are functions of the weight, to every order
            with torch.enable_grad():
                target = kwargs.pop("out", None)
                found = function(*args, **kwargs)
                return found if target is None else self._move(target, found)
        if function in _REPLACED:
            return _REPLACED[function](*args, **kwargs)
        if function in _ASKED:
            return _ASKED[function](self, *args, **kwargs)
        name = getattr(function, "__name__", "")
        if function in _RANDOM_IN_PLACE:
            return self._move(asked[0], _RANDOM_IN_PLACE[function](self, *args, **kwargs))
        if function in _REFUSED:
            raise ValueError(
                f"The network draws with {resolve_name(function) or name}, which would not be a function of seed, step "
                "and task: draw with nn.Dropout, torch.rand, torch.randn or torch.bernoulli."
            )
        if kwargs.get("out") is not None and id(kwargs["out"]) in self._targets:
            return self._move(kwargs.pop("out"), function(*args, **kwargs))
        if asked and id(asked[0]) in self._targets and (name in _IN_PLACE or _is_in_place(name)):
            return self._move(asked[0], self._moved_by(name, args, kwargs))
        return function(*args, **kwargs)

    # -- buffers ------------------------------------------------------------------------------------------------------

    def _now(self, value: Any) -> Any:
        """A tensor as the forward has left it."""
        if type(value) in (list, tuple):
            return type(value)(self._now(part) for part in value)
        target = self._targets.get(id(value))
        return value if target is None else self._moved.get(id(target), target)

    def _move(self, target: Tensor, value: Tensor) -> Tensor:
        """Let the rest of this forward see ``value`` for ``target``, which itself stays as it is."""
        target = self._targets.setdefault(id(target), target)
        self._moved[id(target)] = value
        self._kept.append(value)  # so that no other tensor gets its id
        self._targets[id(value)] = target  # buffer.mul_(a).add_(b) aims at the buffer twice
        return value

    def _moved_by(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What an in-place method would have made of its tensor."""
        now, *rest = args
        if name == "copy_":
            return (rest[0].to(now.dtype) + torch.zeros_like(now)) if isinstance(rest[0], Tensor) else now * 0 + rest[0]
        if name in ("zero_", "fill_"):
            return torch.full_like(now, rest[0] if rest else 0)
        method = getattr(Tensor, _IN_PLACE.get(name, name.rstrip("_")), None)
        if method is None:
            raise ValueError(f"The network moves one of its buffers by Tensor.{name}; assign a new tensor instead.")
        result: Tensor = method(now, *rest, **kwargs)
        return result.to(now.dtype)

    # -- draws --------------------------------------------------------------------------------------------------------

    def drawn(self, site: Site, like: Tensor) -> Tensor | None:
        """The numbers of a site, or None in evaluation."""
        if self._draws is None:
            return None
        found = next(self._draws, None)
        if found is None or tuple(found.shape) != tuple(site.shape):
            raise ValueError(
                "The network draws otherwise than when its random draws were counted "
                f"({'no draw is left' if found is None else list(found.shape)} for one of {list(site.shape)}): what it "
                "draws must depend on the shape of its input alone."
            )
        return found

    def normal(self, like: Tensor) -> Tensor | None:
        """Standard-normal numbers in the shape and type of ``like``."""
        found = self.drawn(Normal(tuple(like.shape)), like)
        return None if found is None else found.to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor | None:
        """Numbers uniform in (0, 1): the normal distribution function of normal ones."""
        found = self.normal(like)
        return None if found is None else torch.special.ndtr(found)

    def drop(self, x: Tensor, rate: float, shape: Sequence[int] | None = None) -> Tensor:
        """Dropout of the entries of ``x``, or of whatever has this shape and is spread over the rest."""
        if rate == 0:
            return x
        if not 0 <= rate <= 1:
            raise ValueError(f"The network's dropout has a rate outside of [0, 1]: {rate}.")
        shape = tuple(x.shape if shape is None else shape)
        if rate > 1 - 2**-16:
            return x if self._draws is None else x * 0
        kept = self.drawn(Mask(shape, rate), x)
        return x if kept is None else dropout(x, kept.view(*shape, *(1,) * (x.dim() - len(shape))).expand_as(x), rate)

    def moments_of(self, x: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
        """The statistics of the rows, or what takes their place."""
        by_row = self.row_weight is not None and len(self.row_weight) == len(x)
        own = primitives.batch_moments(x, self.row_weight if by_row else None)
        mean, variance = own if self._given is None else next(self._given)
        self.seen.append(Moments(mean, variance, momentum, by_row))
        return mean, variance


class _Recorded(_Replaced):
    """Notes what is drawn, and draws nothing."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sites: list[Site] = []

    def drawn(self, site: Site, like: Tensor) -> Tensor | None:
        self.sites.append(site)
        return None


# -- torch's functions, and what takes their place --------------------------------------------------------------------


def _f_batch_norm(
    mode: _Replaced,
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
        running_mean, running_var = mode.moments_of(input, momentum)
    return primitives.batch_norm(input, running_mean, running_var, weight, bias, eps)


def _batch_norm(
    mode: _Replaced,
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
    return _f_batch_norm(mode, input, running_mean, running_var, weight, bias, training, momentum, eps)


def _elements(
    mode: _Replaced, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, train: bool = True
) -> Tensor:
    return mode.drop(input, p) if training and train else input


def _channels(
    dims: tuple[int, ...],
    mode: _Replaced,
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    train: bool = True,
) -> Tensor:
    """Whole channels; the axes before them are rows where ``input`` has one of ``dims``."""
    return mode.drop(input, p, input.shape[: 2 if input.dim() in dims else 1]) if training and train else input


def _alpha(
    whole: bool,
    mode: _Replaced,
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
    kept = mode.drawn(Mask(shape, p), input)
    if kept is None:
        return input
    kept, alpha = kept.view(*shape, *(1,) * (input.dim() - len(shape))).to(input.dtype), 1.7580993408473766
    scale = 1 / math.sqrt((alpha**2 * p + 1) * (1 - p))
    return scale * (input * kept + alpha * (kept - 1) + alpha * p)


def _embedding(
    mode: _Replaced,
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
    mode: _Replaced,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    share = mode.uniform(input) if training else None
    slope = (lower + upper) / 2 if share is None else lower + (upper - lower) * share
    return torch.where(input >= 0, input, input * slope)


def _filled(make: Callable[..., Tensor], uniform: bool, mode: _Replaced, *args: Any, **kwargs: Any) -> Tensor:
    """``torch.rand`` and its like."""
    if kwargs.pop("generator", None) is not None:
        raise ValueError("The network draws from a generator of its own; leave it out, and its draws are the task's.")
    like = make(*args, **kwargs)
    found = mode.uniform(like) if uniform else mode.normal(like)
    return (like + 0.5 if uniform else like) if found is None else found


def _bernoulli(mode: _Replaced, input: Tensor, p: float | None = None, *, generator: Any = None) -> Tensor:
    chance = input if p is None else torch.full_like(input, p)
    share = mode.uniform(chance)
    return chance if share is None else (share < chance).to(chance.dtype)


def _set_bernoulli(mode: _Replaced, input: Tensor, p: float | Tensor = 0.5, *, generator: Any = None) -> Tensor:
    return _bernoulli(mode, torch.zeros_like(input) + p)


def _set_normal(
    mode: _Replaced, input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None
) -> Tensor:
    found = mode.normal(input)
    return torch.full_like(input, mean) if found is None else mean + std * found


def _set_uniform(
    mode: _Replaced, input: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None
) -> Tensor:
    found = mode.uniform(input)
    return torch.full_like(input, (low + high) / 2) if found is None else low + (high - low) * found


def _recurrent(cell: primitives.Cell, mode: _Replaced, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(args[3], bool):  # packed sequences have their lengths for a second argument
        raise ValueError("The network runs a recurrent layer on packed sequences: give it padded ones.")
    return primitives.recurrent(cell, mode.drop, *args, **kwargs)


def _with_dropout(function: Callable[..., Any], mode: _Replaced, *args: Any, **kwargs: Any) -> Any:
    return function(mode.drop, *args, **kwargs)


_REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    F.layer_norm: primitives.layer_norm,
    torch.layer_norm: primitives.layer_norm,
    F.rms_norm: primitives.rms_norm,
    torch.rms_norm: primitives.rms_norm,
    F.group_norm: primitives.group_norm,
    torch.group_norm: primitives.group_norm,
    F.instance_norm: primitives.instance_norm,
    torch._weight_norm: primitives.weight_norm,
    torch.lstm_cell: primitives.lstm_cell,
    torch.gru_cell: primitives.gru_cell,
    torch.rnn_tanh_cell: primitives.rnn_tanh_cell,
    torch.rnn_relu_cell: primitives.rnn_relu_cell,
}
"""What needs nothing but its arguments."""

_ASKED: dict[Callable[..., Any], Callable[..., Any]] = {
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
    **dict.fromkeys((F.dropout, torch.dropout, torch.dropout_), _elements),
    F.dropout1d: partial(_channels, (3,)),
    F.dropout2d: partial(_channels, (3, 4)),
    F.dropout3d: partial(_channels, (5,)),
    **dict.fromkeys((torch.feature_dropout, torch.feature_dropout_), partial(_channels, (2, 3, 4, 5))),
    **dict.fromkeys((F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_), partial(_alpha, False)),
    **dict.fromkeys(
        (F.feature_alpha_dropout, torch.feature_alpha_dropout, torch.feature_alpha_dropout_), partial(_alpha, True)
    ),
}
"""What also reads noise or row weights."""

_RANDOM_IN_PLACE: dict[Callable[..., Any], Callable[..., Tensor]] = {
    Tensor.bernoulli_: _set_bernoulli,
    Tensor.normal_: _set_normal,
    Tensor.uniform_: _set_uniform,
}

_REFUSED = {
    *(getattr(Tensor, name) for name in ("random_", "exponential_", "geometric_", "log_normal_", "cauchy_")),
    *(torch.randint, torch.randint_like, torch.randperm, torch.multinomial, Tensor.multinomial, torch.normal),
    *(torch.poisson, F.gumbel_softmax, F.fractional_max_pool2d, F.fractional_max_pool3d),
}


def _saving_hooks() -> Any:
    """What autograd has been told to do with the tensors it saves, as recomputation tells it; None in compiled code."""
    return None if torch.compiler.is_compiling() else torch._C._autograd._top_saved_tensors_default_hooks(False)


_POWER = {torch.mv, F.normalize, Tensor.t, Tensor.clone, Tensor.H.__get__}  # type: ignore[attr-defined]
"""What the power iteration of a spectral norm is made of."""


def _is_spectral(module: nn.Module) -> bool:
    hooks = module._forward_pre_hooks.values()
    return type(module) is parametrizations._SpectralNorm or any(isinstance(hook, SpectralNorm) for hook in hooks)


_IN_PLACE = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div"}


def _is_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__") and name not in ("requires_grad_", "detach_")
