"""What every row of an ablation may spend."""

from dataclasses import dataclass
from typing import final

from fewstep.evaluation.tables import counted


@final
@dataclass(frozen=True)
class Budget:
    """The same for every row, so that no row can win by being searched for or trained for longer.

    Attributes:
        rows: how many there are.
        trials: configurations of the search of each.
        trial_steps: meta-steps of a trial, at most.
        seeds: final runs of each.
        final_steps: meta-steps of a final run.
        tasks: of a meta-step.
    """

    rows: int
    trials: int
    trial_steps: int
    seeds: int
    final_steps: int
    tasks: int

    @property
    def meta_steps(self) -> int:
        """Of a row, at most."""
        return self.trials * self.trial_steps + self.seeds * self.final_steps

    def __str__(self) -> str:
        rows, trials, seeds = counted(self.rows, "row"), counted(self.trials, "trial"), counted(self.seeds, "seed")
        return (
            f"{rows} × ({trials} × {self.trial_steps:,} meta-steps + {seeds} × "
            f"{self.final_steps:,} meta-steps) = {rows} × {self.meta_steps:,} = {self.rows * self.meta_steps:,} "
            f"meta-steps of {self.tasks} tasks, at most"
        )
