"""First-order back-propagation."""

from fewstep.core.meta_gradient.backprop import Backprop
from fewstep.core.slope import Slope, stopped


class FirstOrder(Backprop):
    """``∇L_Q(φ)`` with inner gradients as constants: no second derivatives (Finn et al. 2017, section 5.2)."""

    slope: Slope = staticmethod(stopped)
