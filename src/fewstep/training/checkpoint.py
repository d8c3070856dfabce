"""Checkpoints: one safetensors file each, written atomically, checked by a digest, loaded without unpickling anything.

``last`` holds everything that the next meta-step depends on (meta-parameters, the optimiser's moments, counters,
early stopping, running sums of the log), so that a resumed run continues to the same bits. ``previous`` is the ``last``
before it, to fall back on when that is damaged. ``best`` holds the meta-parameters alone. With Adam these are seven
times the size of the meta-parameters.
"""

import copy
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.data.storage.files import write_atomically
from fewstep.data.storage.tensors import read_metadata, read_tensors, write_tensors

BEST, LAST, PREVIOUS = "best.safetensors", "last.safetensors", "previous.safetensors"
"""Names of the three in a folder."""

KEPT = "best-at-{}.safetensors"
"""Of the meta-parameters that were kept after so many meta-steps, see :mod:`fewstep.training.candidates`."""

_STATE, _RUN = "fewstep", "run"


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
        missed: of how many of these a metric is not.
        seconds: training time so far.
        finished: training ended, by its length or by early stopping.
        log: the digest of the log as it then stood; empty where there was none.
        due: the validation after the last step is still to come, as it was stopped.
        kept: of the best validations, see :mod:`fewstep.training.candidates`: after how many meta-steps, and the score.
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
    log: str = ""
    due: bool = False
    missed: dict[str, int] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)


def save_checkpoint(
    path: Path,
    learner: nn.Module,
    state: State,
    optimiser: torch.optim.Optimizer | None = None,
    others: Mapping[str, Tensor] | None = None,
    run: str = "",
) -> None:
    """Write meta-parameters and counters; and what else is given.

    Args:
        path: of the file.
        learner: its meta-parameters.
        state: the counters.
        optimiser: its moments.
        others: tensors of the trainer, by name.
        run: a word for what the checkpoint belongs to, which only that can read again; empty for nothing in particular.
    """
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
    if optimiser is None:  # what is tested as it stands has nothing to do with the log, nor with what was stopped when
        state = replace(state, log="")
    # repr of a float, which JSON writes, reads back as the same float: counters and sums survive exactly.
    write_tensors(path, tensors, {_STATE: json.dumps(asdict(state)), _RUN: run})


def keep_previous(folder: Path) -> None:
    """Let ``last`` be ``previous`` too, before another ``last`` takes its place; at any moment there is one or both."""
    last, previous = folder / LAST, folder / PREVIOUS
    if not last.exists():
        return
    part = previous.with_name(f".{PREVIOUS}.part")
    try:
        part.unlink(missing_ok=True)
        os.link(last, part)
    except OSError:  # of a file system without links
        write_atomically(previous, last.read_bytes())
    else:
        os.replace(part, previous)


def newest(folder: Path) -> Path | None:
    """The checkpoint that training goes on from; None where it begins."""
    return next((folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()), None)


def load_checkpoint(
    path: Path,
    learner: nn.Module,
    optimiser: torch.optim.Optimizer | None = None,
    others: Mapping[str, Tensor] | None = None,
    run: str = "",
) -> State:
    """Restore in place what :func:`save_checkpoint` wrote; nothing is changed where that cannot be.

    Args:
        path: of the file.
        learner: whose meta-parameters are restored.
        optimiser: whose moments are.
        others: the trainer's tensors, by name.
        run: what the checkpoint must belong to. Empty: anything; those of fewstep before 0.2 belong to anything.

    Raises:
        ValueError: when the file is damaged or no checkpoint, is one of another learner or another run, or holds
            numbers that are not finite; the message says which, and how to go on.
    """
    state, tensors = _read(path, run)
    expected = learner.state_dict()
    tensors = {key if key.split("/")[1] in expected else _since_0_2(key): tensor for key, tensor in tensors.items()}
    weights = {key.removeprefix("learner/"): t for key, t in tensors.items() if key.startswith("learner/")}
    require_fitting(learner, weights, str(path))
    # What was tested as it stands must be numbers. Training may go on from weights that it has itself thrown out.
    if (optimiser is None or not state.nonfinite) and (name := _not_finite(learner, weights)):
        raise ValueError(f"{path} holds {name} with NaN or infinity, so that it can predict nothing: {way_on(path)}")
    kept = {key: tensors.get(f"trainer/{key}") for key in others or {}}
    if wrong := [key for key, tensor in (others or {}).items() if _shape(kept[key]) != tensor.shape]:
        raise ValueError(f"{path} lacks {wrong[0]}, or has it of another shape: {way_on(path)}")
    if optimiser is not None:
        _restore(path, optimiser, learner, tensors, state)
    learner.load_state_dict(weights)
    for key, tensor in (others or {}).items():
        tensor.copy_(tensors[f"trainer/{key}"])
    return state


def resumed(
    folder: Path,
    steps: int,
    learner: nn.Module,
    optimiser: torch.optim.Optimizer,
    others: Mapping[str, Tensor] | None = None,
    run: str = "",
) -> State:
    """Where training stands in a folder: its newest checkpoint, restored in place; a beginning where there is none.

    Args:
        folder: of the checkpoints.
        steps: that there are to be.
        learner: see :func:`load_checkpoint`, as for the others.
        optimiser: see there.
        others: see there.
        run: see there.

    Raises:
        ValueError: as there; or when more steps have been taken than there are to be, or the best checkpoint is gone,
            damaged or an older one.
    """
    if (path := newest(folder)) is None:
        return State()
    state = load_checkpoint(path, learner, optimiser, others, run)
    if state.step > steps or (state.step == steps and not (state.finished or state.due)):
        raise ValueError(
            f"{path} was written after {state.step} steps, but training has {steps}; its configuration was changed, or "
            f"the file is of another run: {way_on(path)}"
        )
    if state.best_step:
        _require_best(path, state, read_state(folder / BEST, run))
    return state


def _require_best(newest: Path, state: State, best: State) -> None:
    """Refuse a best checkpoint that is older than what the newest says of it.

    It may be the newer one, for it is written first; training then makes it again.
    """
    if best.step < state.best_step:
        path = newest.with_name(BEST)
        raise ValueError(
            f"{path} is of step {best.step}, and {newest.name} says that step {state.best_step} was the best: the "
            f"folder was copied while it was written to, or one of them is an older one: {way_on(path)}"
        )


def restore(learner: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put meta-parameters in place.

    Args:
        learner: is changed.
        weights: by their names in it.
        where: they come from, for the message.

    Raises:
        ValueError: when they are of another learner, or not finite; the message names the difference.
    """
    require_fitting(learner, weights, where)
    if name := _not_finite(learner, weights):
        raise ValueError(f"{where}: {name} holds NaN or infinity, so that it can predict nothing")
    learner.load_state_dict(weights)


def require_fitting(learner: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Refuse meta-parameters of another learner.

    Raises:
        ValueError: with the first names or shapes that differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in learner.state_dict().items()}
    if shapes != wanted:
        different = sorted(set(shapes.items()) ^ set(wanted.items()))[:4]
        raise ValueError(f"{where} belongs to another learner; names or shapes differ, for example {different}.")


def _not_finite(learner: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """The first of the meta-parameters that is not finite; a buffer may hold infinity, as masks of attention do."""
    moved = {name for name, _ in learner.named_parameters()}
    bad = (n for n, t in weights.items() if bool((~t.isfinite() if n in moved else t.isnan()).any()))
    return next(bad, None)


def _shape(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.shape


def _trained(learner: nn.Module) -> list[str]:
    """The names of what the optimiser moves, in its order."""
    return [name for name, parameter in learner.named_parameters() if parameter.requires_grad]


def read_state(path: Path, run: str = "") -> State:
    """The counters of a checkpoint, whatever its learner; all of the file is checked.

    Args:
        path: of the file.
        run: what it must belong to, as in :func:`load_checkpoint`.

    Raises:
        ValueError: when the file is not there, damaged, no checkpoint or one of another run; the message says how to
            go on.
    """
    return _read(path, run)[0]


def _read(path: Path, run: str) -> tuple[State, dict[str, Tensor]]:
    try:
        tensors, words = read_tensors(path, undigested=_STATE)
        state = _state_of(json.loads(words[_STATE]))
        if not all("/" in key for key in tensors):
            raise ValueError("it holds other tensors")
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        what = (
            "is not there"
            if isinstance(error, FileNotFoundError)
            else f"is damaged or is no checkpoint of fewstep ({error})"
        )
        raise ValueError(f"{path} {what}: {way_on(path)}") from error
    _require_own(path, words, run)
    return state, tensors


def last_state(folder: Path) -> State | None:
    """The counters of the newest checkpoint of a folder, without reading its tensors; None where they are not known."""
    path = newest(folder)
    return None if path is None else told_state(path)


def told_state(path: Path) -> State | None:
    """The counters of a checkpoint, without reading its tensors; None where they are not known."""
    with suppress(OSError, KeyError, TypeError, ValueError, RecursionError):
        return _state_of(json.loads(read_metadata(path)[_STATE]))
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The meta-parameters of a checkpoint by their names, whatever its learner.

    Raises:
        ValueError: as :func:`read_state`.
    """
    tensors = {_since_0_2(key): tensor for key, tensor in _read(path, "")[1].items()}
    return {key.removeprefix("learner/"): tensor for key, tensor in tensors.items() if key.startswith("learner/")}


def require_own(folder: Path, run: str) -> None:
    """Refuse a folder whose checkpoints belong to something else, or not together, before it is used.

    Args:
        folder: of the checkpoints; of what is damaged, or older than this, nothing is known here.
        run: what they must belong to.

    Raises:
        ValueError: naming the first that does not.
    """
    states: dict[str, State] = {}
    for path in (folder / LAST, folder / PREVIOUS, folder / BEST):  # the best last: it may be replaced meanwhile
        words: dict[str, str] = {}
        with suppress(OSError, ValueError):
            words = read_metadata(path)
        _require_own(path, words, run)
        with suppress(KeyError, TypeError, ValueError, RecursionError):
            states[path.name] = _state_of(json.loads(words[_STATE]))
    if (last := newest(folder)) is not None and {last.name, BEST} <= states.keys():
        _require_best(last, states[last.name], states[BEST])


def _require_own(path: Path, words: Mapping[str, str], run: str) -> None:
    if run and words.get(_RUN) and words[_RUN] != run:
        raise ValueError(
            f"{path} belongs to a run of other settings or data than its folder says: restore the folder's files as "
            f"they were, or {way_on(path)}"
        )


def _state_of(values: Any) -> State:
    """Counters from JSON, whose types are looked at: what has no digest may hold anything.

    Raises:
        TypeError: for other counters.
        ValueError: for counts below zero.
    """
    if not isinstance(values, dict) or (unknown := sorted(values.keys() - {one.name for one in fields(State)})):
        raise TypeError(f"its counters are {unknown if isinstance(values, dict) else values}")
    for one in fields(State):
        value = values.get(one.name, getattr(State(), one.name))
        kinds = {"best": (int, float, type(None)), "seconds": (int, float)}.get(
            one.name, (type(getattr(State(), one.name)),)
        )
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"its {one.name} is {value!r}")
        if isinstance(value, int) and one.name != "best" and value < 0:
            raise ValueError(f"its {one.name} is {value}")
    for name in ("sums", "missed", "kept"):
        if not all(isinstance(value, int | float) for value in values.get(name, {}).values()):
            raise TypeError(f"its {name} are {values[name]}")
    if not all(step.isdecimal() for step in values.get("kept", {})):
        raise ValueError(f"its kept are {values['kept']}")
    return State(**values)


def way_on(path: Path) -> str:
    """How to go on without a checkpoint that cannot be used, in words that end a sentence."""
    folder, anew = path.parent, "training then begins anew, to the same bits"
    again = f"and give the same command again, or --resume {folder}"
    if path.name == LAST and (folder / PREVIOUS).exists():
        with suppress(ValueError):
            step = read_state(folder / PREVIOUS).step
            return f"delete it {again}: training then goes on from {PREVIOUS}, of step {step}, to the same bits"
    if path.name in (LAST, PREVIOUS, BEST) or path.match(KEPT.format("*")):
        kept = [name for name in (LAST, PREVIOUS, BEST) if (folder / name).exists()]
        return f"restore it, or delete {', '.join(kept) or 'nothing'} in {folder} {again}: {anew}"
    return "restore it"


def _since_0_2(key: str) -> str:
    """The name of a tensor that fewstep 0.1 called otherwise, such as ``_rates.0:bias`` for ``rates.0.bias``."""
    return key.replace("._rates.", ".rates.").replace("._factors.", ".factors.").replace(":", ".")


def _restore(
    path: Path, optimiser: torch.optim.Optimizer, learner: nn.Module, tensors: Mapping[str, Tensor], state: State
) -> None:
    """Put moments in place, if there are those that the optimiser needs, for each of its parameters."""
    moments: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            name, _, kind = key.removeprefix("optimiser/").rpartition("/")
            moments[name][kind] = value
    names, parameters, kinds = _trained(learner), dict(learner.named_parameters()), _kinds(optimiser)
    stepped = state.step > state.nonfinite
    for name in {*moments, *(names if stepped or moments else ())}:
        shapes = {kind: value.shape for kind, value in moments.get(name, {}).items()}
        wanted = (
            {kind: parameters[name].shape if whole else torch.Size() for kind, whole in kinds.items()}
            if name in names
            else None
        )
        if shapes != wanted:
            found = ", ".join(f"{kind} {list(shape)}" for kind, shape in sorted(shapes.items())) or "none"
            raise ValueError(
                f"{path} lacks the optimiser's moments of {name}, or has them of another shape (it has {found}): "
                f"{way_on(path)}"
            )
    numbered = {names.index(name): dict(kept) for name, kept in moments.items()}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": numbered})


def _kinds(optimiser: torch.optim.Optimizer) -> dict[str, bool]:
    """What an optimiser keeps for a parameter, and whether it has the parameter's shape: known by trying."""
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.zeros(2)
    tried = copy.copy(optimiser)
    tried.state = defaultdict(dict)
    tried.param_groups = [{**optimiser.param_groups[0], "params": [parameter]}]
    tried.step()
    kept = tried.state[parameter].items()
    return {kind: value.shape == parameter.shape for kind, value in kept if isinstance(value, Tensor)}
