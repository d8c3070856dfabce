"""One file per paper: its equations, its composition, its deviations."""

from fewstep.algorithms.leo import leo
from fewstep.algorithms.maml import fomaml, maml
from fewstep.algorithms.meta_sgd import meta_sgd

__all__ = ["fomaml", "leo", "maml", "meta_sgd"]
