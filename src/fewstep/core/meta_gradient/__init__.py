"""How the outer loop learns from an adaptation."""

from fewstep.core.meta_gradient.amortised import Amortised
from fewstep.core.meta_gradient.backprop import Backprop
from fewstep.core.meta_gradient.chaser import Chaser
from fewstep.core.meta_gradient.difference import Difference
from fewstep.core.meta_gradient.first_order import FirstOrder
from fewstep.core.meta_gradient.implicit import Implicit
from fewstep.core.meta_gradient.laplace import Laplace
from fewstep.core.meta_gradient.mixture import Mixture
from fewstep.core.meta_gradient.multi_step import Fading, MultiStep

__all__ = [
    "Amortised",
    "Backprop",
    "Chaser",
    "Difference",
    "Fading",
    "FirstOrder",
    "Implicit",
    "Laplace",
    "Mixture",
    "MultiStep",
]
