"""What a network's forward does that nothing can take the place of: it is found out, and said by name."""

import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import resolve_name

from fewstep.core.slope import transformed

_PYTHON = random.random.__self__  # type: ignore[attr-defined]
"""The generator behind the functions of Python's ``random``."""

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

    Raises:
        ValueError: naming the generator and what to draw with.
    """
    before, python, other = _states(network, device), list[str](), sys.getprofile()

    # Every call in the forward comes by here. Beartype draws which part of an argument it looks at: not a result.
    sys.setprofile(
        lambda frame, event, asked: (
            python.append("Python's `random`")
            if event == "c_call"
            and getattr(asked, "__self__", None) is _PYTHON
            and "beartype" not in frame.f_code.co_filename
            else None
        )
    )
    try:
        yield
    finally:
        sys.setprofile(other)
    moved = python + [name for name, state in _states(network, device).items() if state != before.get(name, state)]
    if moved:
        raise ValueError(
            f"The network's forward draws from {moved[0]}, which would not be a function of seed, step and task: draw "
            "with nn.Dropout, torch.rand, torch.randn or torch.bernoulli, whose draws are the task's."
        )


def _states(network: nn.Module, device: torch.device) -> dict[str, Any]:
    """The states of the generators that a forward can reach, by what they are called."""
    states: dict[str, Any] = {
        "`numpy.random`": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "torch's global generator": torch.get_rng_state().numpy().tobytes(),
    }
    if device.type == "cuda":
        states["torch's global generator of the GPU"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    for path, module in network.named_modules():
        for name, value in vars(module).items():
            where = f"its generator {path + '.' if path else ''}{name}"
            if isinstance(value, random.Random):
                states[where] = value.getstate()
            elif isinstance(value, np.random.Generator):
                states[where] = pickle.dumps(value.bit_generator.state)
            elif isinstance(value, np.random.RandomState):
                states[where] = pickle.dumps(value.get_state())
            elif isinstance(value, torch.Generator):
                states[where] = value.get_state().numpy().tobytes()
    return states


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
