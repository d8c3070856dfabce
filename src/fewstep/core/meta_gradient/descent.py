"""What estimators share that learn from a single descent."""

from fewstep.core.learner import Learner
from fewstep.core.stages import Decode, Descend


def only_descent(learner: Learner, estimator: str) -> tuple[Descend, int, bool]:
    """The one ``Descend`` of a learner, its place among the stages, and whether it moves decoded weights.

    Raises:
        ValueError: when there is none or more than one.
    """
    stages = list(learner.stages)
    found = [i for i, stage in enumerate(stages) if isinstance(stage, Descend)]
    if len(found) != 1:
        raise ValueError(
            f"{estimator} learns from one descent, but the learner has {len(found)} Descend stages: give it exactly "
            "one, or use Backprop or FirstOrder."
        )
    stage = stages[found[0]]
    assert isinstance(stage, Descend)
    return stage, found[0], any(isinstance(before, Decode) for before in stages[: found[0]])
