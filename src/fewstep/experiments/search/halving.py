"""When a search stops a configuration: successive halving."""

from __future__ import annotations

import optuna
from optuna.study import StudyDirection

SHARE = 3
"""One in so many goes on from a rung to the next, and has so many times as many meta-steps there."""

RUNGS = 2


class Halving(optuna.pruners.BasePruner):
    """Asynchronous successive halving (Li, Jamieson, Rostamizadeh et al. 2020) in which what is stopped stays so.

    The rungs are a ninth and a third of the meta-steps. There a configuration goes on if its best validation so far is
    among the best third of all that have come to that rung yet, itself among them, or is the best one: nobody is waited
    for, and whichever is the best of all at a rung passes it.

    What configurations have reached is read from what they have reported. Optuna's own pruner keeps it with attempts,
    and so counts a configuration twice that was killed and continued.

    Args:
        steps: meta-steps of a whole training.
        every: meta-steps between validations; rungs are validations.
    """

    def __init__(self, steps: int, every: int) -> None:
        rungs = (-(-steps // (SHARE**rung * every)) * every for rung in range(RUNGS, 0, -1))
        self.rungs = [rung for rung in dict.fromkeys(rungs) if rung < steps]

    def __str__(self) -> str:
        rungs = " and ".join(f"{rung:,}" for rung in self.rungs)
        return f"successive halving: the best in {SHARE} go on after {rungs} meta-steps" if rungs else "none"

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial that has just reported is to be stopped."""
        step = trial.last_step
        if step is None or step not in self.rungs:
            return False
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        reached = {
            other.user_attrs.get("index"): sign * other.intermediate_values[step]
            for other in study.get_trials(deepcopy=False)
            if step in other.intermediate_values
        }
        better = sum(value > sign * trial.intermediate_values[step] for value in reached.values())
        return better >= max(1, len(reached) // SHARE)
