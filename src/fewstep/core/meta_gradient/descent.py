"""What estimators share that learn from a single descent."""

from fewstep.core.learner import Learner
from fewstep.core.stages import Decode, Descend


def only_descent(learner: Learner, estimator: str) -> tuple[Descend, int, bool]:
    """The one ``Descend`` of a learner, its place among the stages, and whether it moves decoded weights.

    Raises:
        ValueError: when there is none, more than one, or another stage that moves the point.
    """
    stages = [(i, stage) for i, stage in enumerate(learner.stages) if not isinstance(stage, Decode)]
    found = [(i, stage) for i, stage in stages if isinstance(stage, Descend)]
    others = "".join(f" and a {type(stage).__name__}" for _, stage in stages if not isinstance(stage, Descend))
    if len(found) != 1 or others:
        raise ValueError(
            f"{estimator} learns from one descent, but the learner has {len(found)} Descend stages{others}: give it "
            "exactly one, or use Backprop or FirstOrder."
        )
    index, stage = found[0]
    return stage, index, any(isinstance(before, Decode) for before in list(learner.stages)[:index])
