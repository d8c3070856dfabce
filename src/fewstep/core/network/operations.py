"""Any ``nn.Module`` in an inner loop: what its forward asks of torch is answered from primitive operations.

A network that a user brings may hold layers that torch differentiates wrongly under ``vmap``, or not at all; it may
draw random numbers, and move its buffers. :func:`call` runs such a network with all of these replaced: results and
derivatives of every order are those of the equations, whatever the executor, draws are read from noise, and nothing
that the network holds is moved. Networks made of plain layers run as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

from fewstep.core.network.foreign import RECOMPUTES, explained, foreign_draws, recomputes
from fewstep.core.network.forward import Forward, Moments, Recorded
from fewstep.core.network.replacements import FACTORIES, IN_PLACE_DRAWS, OF_ARGUMENTS, OF_FORWARD, REFUSED, out_of_place
from fewstep.core.noise import Site
from fewstep.core.types import Batch, Params

T = TypeVar("T", bound=Callable[..., Any])


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


def _constant(function: T) -> T:
    """What ``torch.compiler.assume_constant_result`` does; it imports the compiler, which takes as long as torch."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def call(
    network: nn.Module,
    weights: Params,
    x: Tensor,
    row_weight: Tensor | None = None,
    draws: Sequence[Tensor] | None = None,
    moments: Sequence[tuple[Tensor, Tensor]] | None = None,
    examining: bool = False,
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
        examining: look for what costs time to find: once is enough.
    """
    if is_plain(network):
        return Run(functional_call(network, weights, (x,)), [])
    if torch.compiler.is_compiling() and _is_reparametrised(network):
        raise RuntimeError("torch's compiler does not see what takes the place of reparametrised weights")
    seen: list[Moments] = []
    replaced = _Replaced(network, Forward(row_weight, draws, moments, seen), x, weights, examining)
    # A compiler breaks its graph at what handles exceptions.
    with nullcontext() if torch.compiler.is_compiling() else explained(), _unchanged(network), replaced:
        output: Tensor = functional_call(network, weights, (x,))
    return Run(output, seen)


def random_sites(network: nn.Module, weights: Params, batch: Batch) -> list[Site]:
    """Every random draw of ``network`` on rows of this shape: one forward on zeros, which moves nothing."""
    if is_plain(network):
        return []
    dtype = batch.weight.dtype if batch.x.is_floating_point() else batch.x.dtype
    x = torch.zeros(batch.x.shape, dtype=dtype, device=batch.weight.device)
    recorded = Recorded()
    replaced = _Replaced(network, recorded, x, weights, examining=True)
    with torch.no_grad(), foreign_draws(network, x.device), _unchanged(network), replaced:
        functional_call(network, weights, (x,))
    return recorded.sites


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
        with foreign_draws(network, x.device):
            one, two = (call(network, weights, rows, weight, examining=True) for rows in (x, others))
        # NaN is as it was.
        moved = [(name, t) for name, t in _held(network) if not bool(((t == before[name]) | (t != t)).all())]
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


@_constant
def is_plain(network: nn.Module) -> bool:
    """Whether every module is one of fewstep's own, or a layer of torch's that needs no replacement, without hooks."""
    return all(
        (type(module) in _PLAIN or type(module).__module__.split(".")[0] == "fewstep")
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (isinstance(module, nn.Embedding) and (module.max_norm, module.padding_idx) != (None, None))
        for module in _run_by(network)
    )


def _run_by(network: nn.Module) -> Iterator[nn.Module]:
    """Its modules, and what these run without having registered it: ``unregistered``, as an ensemble's members."""
    for module in network.modules():
        yield module
        for other in getattr(module, "unregistered", ()):
            yield from _run_by(other)


@contextmanager
def _unchanged(network: nn.Module) -> Iterator[None]:
    """Give the modules back the tensors that a forward has put others in place of: those would be of a transform."""
    before = [(module, dict(module._buffers), dict(vars(module))) for module in _run_by(network)]
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


@_constant
def _is_reparametrised(network: nn.Module) -> bool:
    """Whether weights are functions of parameters, such as under ``weight_norm``: compiled, these were torch's own."""
    return any(module._forward_pre_hooks or parametrize.is_parametrized(module) for module in _run_by(network))


_PLAIN = {
    nn.Module,  # which holds others, and runs nothing
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

    def __init__(self, network: nn.Module, forward: Forward, x: Tensor, weights: Params, examining: bool) -> None:
        super().__init__()
        self._forward, self._examining, self._network, self._weights = forward, examining, network, weights
        self._targets = {id(t): t for t in (x, *network.buffers())}  # what in-place operations may aim at
        self._saving = _saving_hooks()
        self._kept = [x, *network.buffers()]
        self._spectral = any(map(_is_spectral, network.modules()))
        self._moved: dict[int, Tensor] = {}  # where targets stand, by their ids

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        asked = args
        if self._moved:
            self._refuse_old_views((args, kwargs))
            args, kwargs = tree_map(self._now, args), {k: v if k == "out" else self._now(v) for k, v in kwargs.items()}
        if self._saving != _saving_hooks() or (self._examining and recomputes()):
            raise ValueError(RECOMPUTES)
        if function in _POWER and self._spectral:  # its vectors are functions of the weight, to every order
            with torch.enable_grad():
                target = kwargs.pop("out", None)
                found = function(*args, **kwargs)
                return found if target is None else self._move(target, found)
        if function in OF_ARGUMENTS:
            return OF_ARGUMENTS[function](*args, **kwargs)
        name = getattr(function, "__name__", "")
        if function in OF_FORWARD:
            target = kwargs.pop("out", None)
            if target is not None and function in FACTORIES:
                kwargs = {"dtype": target.dtype, "device": target.device} | kwargs
            elif target is None and (function in _CHANGING or out_of_place(function, args, kwargs)[0]):
                target = asked[0]
            found = OF_FORWARD[function](self._forward, *args, **kwargs)
            return found if target is None else self._write(target, found, name)
        if function in IN_PLACE_DRAWS:
            return self._write(asked[0], IN_PLACE_DRAWS[function](self._forward, *args, **kwargs), name)
        if function in REFUSED:
            raise ValueError(
                f"The network draws with {resolve_name(function) or name}, which would not be a function of seed, step "
                "and task: draw with nn.Dropout, torch.rand, torch.randn or torch.bernoulli."
            )
        if kwargs.get("out") is not None and id(kwargs["out"]) in self._targets:
            return self._move(kwargs.pop("out"), function(*args, **kwargs))
        if asked and id(asked[0]) in self._targets and function in _CHANGING:
            return self._move(asked[0], self._moved_by(_CHANGING[function], args, kwargs))
        if asked and id(asked[0]) in self._targets:
            changes, args, kwargs = out_of_place(function, args, kwargs)
            found = function(*args, **kwargs)
            return self._move(asked[0], found) if changes else found
        return function(*args, **kwargs)

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

    def _write(self, target: Tensor, value: Tensor, name: str) -> Tensor:
        """Put what was drawn where the forward wants it: views of a tensor of its own see it too."""
        now: Tensor = self._now(target)
        value = value.to(now.dtype)
        if value is now:  # nothing is drawn
            return target
        lent = {*self._targets, *map(id, self._weights.values()), *map(id, self._network.parameters())}
        if now._is_view() and id(now._base) in lent and id(target) not in lent:
            raise ValueError(f"The network draws into a part of its input or of what it holds ({name}): {_DRAW_WHOLE}")
        if id(target) in lent or value.shape != now.shape:
            return self._move(target, value)
        try:
            return now.copy_(value)
        except RuntimeError:  # under vmap all tasks share a tensor that the forward makes, and each has its own draws
            if now._is_view():
                raise ValueError(f"The network draws into a part of a tensor ({name}): {_DRAW_WHOLE}") from None
        return self._move(target, value)

    def _refuse_old_views(self, given: Any) -> None:
        """A view that was taken before its tensor moved is not what it would be in torch."""
        for tensor in tree_flatten(given)[0]:
            base = tensor._base if isinstance(tensor, Tensor) and tensor._is_view() else None
            target = None if base is None else self._targets.get(id(base))
            if target is not None and self._moved.get(id(target), base) is not base and id(tensor) not in self._targets:
                raise ValueError(
                    "The network takes a view of a tensor, changes the tensor in place, and reads the view: take the "
                    "view after the change."
                )

    def _moved_by(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What an in-place method would have made of its tensor."""
        now, *rest = args
        result: Tensor
        if name == "copy_":
            return (rest[0].to(now.dtype) + torch.zeros_like(now)) if isinstance(rest[0], Tensor) else now * 0 + rest[0]
        if name in ("zero_", "fill_"):
            return torch.full_like(now, rest[0] if rest else 0)
        if name == "__setitem__":
            result = now.clone()
            result[rest[0]] = rest[1]
            return result
        plain = _IN_PLACE.get(name, name.rstrip("_"))
        method = getattr(Tensor, plain, None) or getattr(torch._C._nn, plain, None)  # F.elu and its like
        if method is None:
            raise ValueError(f"The network changes its input or a buffer by {name}; make a new tensor instead.")
        result = method(now, *rest, **kwargs)
        return result.to(now.dtype)


def _saving_hooks() -> Any:
    """What autograd has been told to do with the tensors it saves, as recomputation tells it; None in compiled code."""
    return None if torch.compiler.is_compiling() else torch._C._autograd._top_saved_tensors_default_hooks(False)


_DRAW_WHOLE = "draw a tensor of its own, torch.bernoulli(chances) or torch.randn(shape), and join parts by torch.cat."

_POWER = {torch.mv, F.normalize, Tensor.t, Tensor.clone, Tensor.H.__get__}  # type: ignore[attr-defined]
"""What the power iteration of a spectral norm is made of."""


def _is_spectral(module: nn.Module) -> bool:
    hooks = module._forward_pre_hooks.values()
    return type(module) is parametrizations._SpectralNorm or any(isinstance(hook, SpectralNorm) for hook in hooks)


_IN_PLACE = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div", "__setitem__": ""}


_CHANGING = {
    getattr(owner, name): name
    for owner in (Tensor, torch, torch._C._nn)
    for name in dir(owner)
    if name in _IN_PLACE or (name.endswith("_") and name[0] != "_" and name not in ("requires_grad_", "detach_"))
}
"""What changes its first argument, and its name; compilers do not read names."""
