"""The best validations of a training, whose meta-parameters are kept beside ``best``: for the mean of their outputs."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from fewstep.training.checkpoint import (
    KEPT,
    State,
    last_state,
    newest,
    read_state,
    read_weights,
    save_checkpoint,
    way_on,
)


def keep(folder: Path, learner: nn.Module, state: State, score: float, count: int, sign: float, run: str) -> None:
    """Write the meta-parameters if they are among the best so far, and say in the counters which are.

    Args:
        folder: of the checkpoints.
        learner: its meta-parameters, as they were validated.
        state: its ``kept`` is changed.
        score: of the validation; of what is not a number nothing is kept.
        count: how many there are to be; of equals the earlier one.
        sign: +1 where a higher score is better, -1 where a lower one is.
        run: a word for what the checkpoints belong to.
    """
    scores = {step: one for step, one in (state.kept | {str(state.step): score}).items() if one == one}
    best = sorted(scores, key=lambda step: (-sign * scores[step], int(step)))[:count]
    state.kept = {step: scores[step] for step in best}
    if str(state.step) in best:
        save_checkpoint(folder / KEPT.format(state.step), learner, state, run=run)


def forget(folder: Path, state: State) -> None:
    """Delete what is no longer among the best; after ``last``, which says so, was written."""
    before, after = KEPT.split("{}")
    for path in folder.glob(KEPT.format("*")):
        step = path.name.removeprefix(before).removesuffix(after)
        if step.isdecimal() and step not in state.kept:  # another name is of the user's own
            path.unlink(missing_ok=True)


def candidates(folder: Path, run: str = "") -> list[Mapping[str, Tensor]]:
    """The meta-parameters that a training has kept, the best first.

    Args:
        folder: of the checkpoints.
        run: what they must belong to.

    Raises:
        ValueError: when one is gone, damaged or of something else, or what says which they are.
    """
    while (path := newest(folder)) is not None:
        kept = read_state(path, run).kept
        try:
            return [_of_step(folder / KEPT.format(step), int(step), run) for step in kept]
        except ValueError:
            if (now := last_state(folder)) is None or now.kept == kept:  # else training has gone on meanwhile
                raise
    return []


def _of_step(path: Path, step: int, run: str) -> Mapping[str, Tensor]:
    if (at := read_state(path, run).step) != step:
        raise ValueError(f"{path} is of step {at}: {way_on(path)}")
    return read_weights(path)
