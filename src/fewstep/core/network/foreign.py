"""What a network's forward does that nothing can take the place of: it is found out, and said by name."""

import pickle
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import BuiltinMethodType, FrameType
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from fewstep.core.slope import transformed

_PYTHON = random.random.__self__  # type: ignore[attr-defined]
"""The generator behind the functions of Python's ``random``."""

_ONE_AT_A_TIME = threading.RLock()
"""Kept while a forward is looked at: torch notes in a global, as one thread would, that a dispatch mode is on."""

RECOMPUTES = (
    "The network recomputes a part of itself (torch.utils.checkpoint), which an inner loop would do with weights that "
    "are not the task's: leave it out; the learner can recompute its steps (recompute=True)."
)


def recomputes() -> bool:
    """Whether the caller is called by torch's recomputation: autograd is not told of the reentrant kind."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == torch.utils.checkpoint.__file__:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


@contextmanager
def foreign_draws(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Refuse a forward that moves a generator of random numbers: its results were functions of more than the seed.

    Generators are shared by all threads, and another may draw meanwhile. So that this one is not blamed for it, NumPy's
    are kept from others for as long; of Python's and torch's it is seen what this thread calls.

    Raises:
        ValueError: naming the generator and what to draw with.
    """
    own, called, seeded, other = dict(_generators(network)), set[int](), _Seeded(), sys.getprofile()
    alone = threading.active_count() == 1  # then nobody else draws, and torch need not be watched, which takes time

    def look(frame: FrameType, event: str, asked: Any) -> None:
        # Beartype draws which part of an argument it looks at: not a result.
        if event == "c_call" and "beartype" not in frame.f_code.co_filename:
            called.add(id(getattr(asked, "__self__", None)))

    with ExitStack() as kept:
        kept.enter_context(_ONE_AT_A_TIME)
        for lock in filter(None, map(_lock, own.values())):
            kept.enter_context(lock)
        before = {name: _state(of, device) for name, of in own.items()}
        sys.setprofile(look)  # every call in the forward comes by here
        try:
            with nullcontext() if alone else seeded:
                yield
        finally:
            sys.setprofile(other)
        moved = [
            name
            for name, of in own.items()
            if (id(of) in called if _is_seen(of) else alone or seeded.found if _is_torch(of) else True)
            and (isinstance(of, random.Random) or _state(of, device) != before[name])
        ]
    if moved:
        raise ValueError(
            f"The network's forward draws from {moved[0]}, which would not be a function of seed, step and task: draw "
            "with nn.Dropout, torch.rand, torch.randn or torch.bernoulli, whose draws are the task's."
        )


def _generators(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """The generators that a forward can reach, by what they are called."""
    yield "Python's `random`", _PYTHON
    yield "`numpy.random`", np.random.mtrand._rand
    yield "torch's global generator", torch.default_generator
    yield "torch's global generator of the GPU", torch.cuda
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, random.Random | np.random.Generator | np.random.RandomState | torch.Generator):
                yield f"its generator {path + '.' if path else ''}{name}", value


def _state(of: Any, device: torch.device) -> Any:
    """Where a generator stands."""
    if isinstance(of, random.Random):
        return None  # it is seen when it is called
    if isinstance(of, np.random.Generator):
        return pickle.dumps(of.bit_generator.state)
    if isinstance(of, np.random.RandomState):
        return pickle.dumps(of.get_state())
    if of is torch.cuda:
        return torch.cuda.get_rng_state(device).numpy().tobytes() if device.type == "cuda" else None
    return of.get_state().numpy().tobytes()


def _is_torch(of: Any) -> bool:
    return of is torch.cuda or isinstance(of, torch.Generator)


def _is_seen(of: Any) -> bool:
    """Whether Python tells of every call of a generator: not of NumPy's, since 2.0."""
    return isinstance(of, random.Random) or (not _is_torch(of) and isinstance(of.random, BuiltinMethodType))


def _lock(of: Any) -> Any:
    """What keeps other threads from a generator of NumPy, and not this one; None where there is no such lock."""
    bits = of._bit_generator if isinstance(of, np.random.RandomState) else getattr(of, "bit_generator", None)
    lock = getattr(bits, "lock", None)
    return lock if isinstance(lock, type(threading.RLock())) else None  # since NumPy 2.4


class _Seeded(TorchDispatchMode):
    """Sees whether its thread asks torch for what draws; others are not seen."""

    supports_higher_order_operators = True  # they are passed on, as all others

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what is examined is not compiled, and dynamo takes a second to import

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
            given |= kwargs or {}
            # Attention and recurrent layers draw for dropout alone.
            self.found |= bool(given.get("dropout_p", given.get("dropout", True))) and given.get("train", True) is True
        return func(*args, **(kwargs or {}))


@contextmanager
def explained() -> Iterator[None]:
    """Say what to do about an operation that cannot be vectorised over tasks.

    Raises:
        ValueError: naming the operation.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not transformed():
            raise
        raise ValueError(
            f"The network asks for {_asked(error)}, which torch cannot do for several tasks at once: run one after "
            f"another, by the executor Loop() in place of Vmap() (`--training.executor loop`). Torch says: {error}"
        ) from error


@contextmanager
def differentiated_twice() -> Iterator[None]:
    """Say what to do about an operation that has no second derivative in torch.

    Raises:
        ValueError: naming the operation.
    """
    try:
        yield
    except RuntimeError as error:
        if "derivative for" not in str(error) or "not implemented" not in str(error):
            raise
        raise ValueError(f"{_ONCE}: {error}") from error


def require_second_derivatives(result: Tensor) -> None:
    """Refuse a graph through a derivative that is marked ``once_differentiable``: torch takes its derivative for zero.

    Raises:
        ValueError: naming the ``torch.autograd.Function``.
    """
    seen, left, marked, lost = set[Any](), [result.grad_fn], set[str](), False
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        lost = lost or type(node).__name__ == "Error"  # what torch puts behind such a derivative
        function = getattr(type(node), "_forward_cls", None)
        if function is not None and function.backward.__code__.co_filename == torch.autograd.function.__file__:
            marked.add(function.__name__)
        left += [parent for parent, _ in node.next_functions]
    if lost:
        names = ", ".join(sorted(marked)) or "a torch.autograd.Function"
        raise ValueError(f"{_ONCE}: the backward of {names} is marked once_differentiable.")


_ONCE = (
    "The network asks for an operation whose derivative torch cannot differentiate again, as the meta-gradient does: "
    "write it from others, or take a first-order method (fomaml, reptile)"
)


def _asked(error: BaseException) -> str:
    """The innermost operation of a traceback that can be named."""
    name, trace = "an operation", error.__traceback__
    if "must override the setup_context" in str(error):  # since torch 2.15 no frame says of which function
        name = "a torch.autograd.Function without a rule for vmap"
    while trace is not None:
        code, names = trace.tb_frame.f_code, trace.tb_frame.f_locals
        if code.co_filename == torch.autograd.function.__file__ and isinstance(names.get("cls"), type):
            return f"{names['cls'].__name__}, a torch.autograd.Function without a rule for vmap"
        if code.co_name == "__torch_function__" and "function" in names:
            name = resolve_name(names["function"]) or getattr(names["function"], "__name__", name)
        trace = trace.tb_next
    return name
