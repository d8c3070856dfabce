"""Multi-layer perceptrons."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from fewstep.networks.contextual import Concatenated
from fewstep.networks.heads import Generated
from fewstep.networks.norms import BatchNorm


def mlp(
    widths: Sequence[int | None],
    *,
    norm: bool = False,
    scale: bool = True,
    eps: float = 1e-5,
    std: float | None = None,
    context: int = 0,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Linear layers with an activation between, linear at the end.

    Args:
        widths: of the input, the hidden layers and the output; ``(1, 40, 40, 1)`` is the sinusoid network. An output
            of None is a :class:`Generated` head, whose weights a start makes; features are then the last activation's.
        norm: batch normalisation before every activation, as in MAML's fully connected Omniglot network (784, 256, 128,
            64, 64, N; no ``scale``, ``eps`` 0.001, ``std`` 0.01).
        scale: learn the normalisation's γ.
        eps: of the normalisation.
        std: standard deviation of normal weights, truncated at two of them, with zero biases (0.01 in MAML's sinusoid
            code); torch's default initialisation when omitted.
        context: numbers of a context beside the inputs, see :class:`Concatenated` (CAVIA).
        activation: makes the layer after each hidden one.

    Raises:
        ValueError: for a width of None that is not the last.
    """
    layers: list[nn.Module] = [Concatenated(context)] if context else []
    for i, (a, b) in enumerate(pairwise(widths)):
        if a is None:
            raise ValueError(f"mlp: only the last width can be None, for a generated head; got {tuple(widths)}.")
        a += 0 if i else context
        if b is None:
            layers.append(Generated())
            continue
        linear = nn.Linear(a, b)
        if std is not None:
            nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(linear.bias)
        layers.append(linear)
        if i < len(widths) - 2:
            layers += [BatchNorm(b, eps=eps, scale=scale), activation()] if norm else [activation()]
    return nn.Sequential(*layers)
