"""Checkpoints: one safetensors file each, written atomically, loaded without unpickling anything.

``last`` holds everything that the next meta-step depends on (meta-parameters, the optimiser's moments, counters,
early stopping, running sums of the log), so that a resumed run continues to the same bits. ``best`` holds the
meta-parameters alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewstep.data.storage.files import write_atomically

BEST, LAST = "best.safetensors", "last.safetensors"
"""Names of the two in a folder."""


@dataclass
class State:
    """The trainer's counters.

    Attributes:
        step: meta-steps taken.
        best: best validation score so far, None before the first validation.
        best_step: after how many meta-steps it was reached.
        stale: validations since then.
        nonfinite: meta-steps whose loss or gradient was not finite.
        sums: running sums of metrics since the last logged row.
        summed: how many meta-steps they hold.
        seconds: training time so far.
        finished: training ended, by its length or by early stopping.
        due: the validation after the last step is still to come, as it was stopped.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    nonfinite: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0
    seconds: float = 0.0
    finished: bool = False
    due: bool = False


def save_checkpoint(
    path: Path,
    learner: nn.Module,
    state: State,
    optimiser: torch.optim.Optimizer | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> None:
    """Write meta-parameters, counters, the optimiser's moments, and other tensors of the trainer when given."""
    tensors: dict[str, Tensor] = {}
    storages = set[int]()
    for name, tensor in learner.state_dict().items():
        whole, storage = tensor.contiguous(), tensor.untyped_storage().data_ptr()
        tensors[f"learner/{name}"] = whole.clone() if storage in storages else whole  # a file has no shared memory
        storages.add(storage)
    if optimiser is not None:
        names = _trained(learner)
        for i, moments in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{names[i]}/{key}": value.contiguous() for key, value in moments.items()}
    tensors |= {f"trainer/{name}": tensor.contiguous() for name, tensor in (others or {}).items()}
    # repr of a float, which JSON writes, reads back as the same float: counters and sums survive exactly.
    write_atomically(path, save(tensors, {"fewstep": json.dumps(asdict(state))}))


def load_checkpoint(
    path: Path,
    learner: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    others: Mapping[str, Tensor] | None = None,
) -> State:
    """Restore in place what :func:`save_checkpoint` wrote.

    Raises:
        ValueError: when the file is not a checkpoint, or is one of another learner; the message names the difference.
    """
    state, tensors = _read(path)
    expected = learner.state_dict()
    tensors = {key if key.split("/")[1] in expected else _since_0_2(key): tensor for key, tensor in tensors.items()}
    weights = {key.removeprefix("learner/"): t for key, t in tensors.items() if key.startswith("learner/")}
    restore(learner, weights, str(path))
    for name, tensor in (others or {}).items():
        tensor.copy_(tensors[f"trainer/{name}"])
    if optimiser is not None:
        _restore(optimiser, _trained(learner), tensors)
    return state


def restore(learner: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put meta-parameters in place.

    Args:
        learner: is changed.
        weights: by their names in it.
        where: they come from, for the message.

    Raises:
        ValueError: when they are of another learner; the message names the difference.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in learner.state_dict().items()}
    if shapes != wanted:
        different = sorted(set(shapes.items()) ^ set(wanted.items()))[:4]
        raise ValueError(f"{where} belongs to another learner; names or shapes differ, for example {different}.")
    learner.load_state_dict(weights)


def _trained(learner: nn.Module) -> list[str]:
    """The names of what the optimiser moves, in its order."""
    return [name for name, parameter in learner.named_parameters() if parameter.requires_grad]


def read_state(path: Path) -> State:
    """The counters of a checkpoint, whatever its learner.

    Raises:
        ValueError: when the file is not a checkpoint.
    """
    return _read(path, tensors=False)[0]


def _read(path: Path, *, tensors: bool = True) -> tuple[State, dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            state = State(**json.loads((file.metadata() or {})["fewstep"]))
            return state, {key: file.get_tensor(key) for key in (file.keys() if tensors else ())}
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a checkpoint of fewstep ({error}).") from error


def _since_0_2(key: str) -> str:
    """The name of a tensor that fewstep 0.1 called otherwise, such as ``_rates.0:bias`` for ``rates.0.bias``."""
    return key.replace("._rates.", ".rates.").replace("._factors.", ".factors.").replace(":", ".")


def _restore(optimiser: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    moments: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            name, kind = key.removeprefix("optimiser/").rsplit("/", 1)
            moments.setdefault(names.index(name), {})[kind] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
