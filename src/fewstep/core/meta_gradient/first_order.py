"""First-order back-propagation."""

from fewstep.core.meta_gradient.backprop import Backprop
from fewstep.core.slope import Slope, stopped


class FirstOrder(Backprop):
    """The meta-gradient without second derivatives: inner gradients are constants (Finn et al. 2017, section 5.2).

    ``∇L_Q(φ)`` at the adapted point φ.

    Example:
        >>> learner = Learner(line, Shared(), [Descend(SGD(0.25), 1)], loss=regression())  # w' = w/2 on the loss w²
        >>> Method(learner, FirstOrder()).objective(parabola, None).objective.backward()
        >>> line.weight.grad  # 2w' at w' = 1/2, as if w' were w minus a constant
        tensor([[1.]])
    """

    slope: Slope = staticmethod(stopped)
