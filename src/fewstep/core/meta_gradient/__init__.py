"""How the outer loop learns from an adaptation."""

from fewstep.core.meta_gradient.backprop import Backprop
from fewstep.core.meta_gradient.first_order import FirstOrder

__all__ = ["Backprop", "FirstOrder"]
