"""What a network must be to be adapted, looked at once, when a learner is made."""

import torch
from torch import nn


def admit(network: nn.Module, owner: str) -> None:
    """Refuse a network that would fail later, or train wrongly.

    Args:
        network: of a learner, or what embeds its inputs.
        owner: for the message.

    Raises:
        ValueError: for a wrapper or compiled module, parameters without values, on several devices, or that share
            memory without being one parameter.
    """
    kind = type(network).__name__
    if hasattr(network, "_orig_mod") or any(module._compiled_call_impl is not None for module in network.modules()):
        raise ValueError(
            f"{owner}: {kind} is compiled by itself, which function transforms cannot see through; give it as it was "
            "before torch.compile (`._orig_mod`). Compiling the whole meta-step is an option of training."
        )
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{owner}: {kind} would spread rows over devices; give its `.module`.")
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(f"{owner}: a scripted network is no Python to trace; give the nn.Module that it was made of.")
    named = dict(network.named_parameters())
    for name, parameter in named.items():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"{owner}: {name} has no shape yet; run the network once on some rows, network(x).")
    if len(devices := sorted({str(parameter.device) for parameter in named.values()})) > 1:
        raise ValueError(f"{owner}: the network's parameters lie on {' and '.join(devices)}; move them to one device.")
    at = dict[int, str]()
    for name, parameter in named.items():
        other = at.setdefault(parameter.data_ptr(), name) if parameter.numel() and not parameter.is_meta else name
        if other != name:
            raise ValueError(
                f"{owner}: {other} and {name} share memory but are two parameters, which training would tear apart; "
                "make them one (module_a.weight = module_b.weight)."
            )
