"""A context of zeros: what steers the network is adapted, the network itself is not."""

from torch import nn

from fewstep.core.network.contextual import contexts
from fewstep.core.noise import Noise
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Params, Penalties, Point


class Zeros(Start):
    """Adaptation begins at a context of zeros and moves that alone; the network is meta-learned around it.

    The values are the buffers of the network's :class:`~fewstep.core.Contextual` layers. Nothing of where they begin is
    learned, so estimators that learn from the starting value alone (Reptile) refuse it.

    Raises:
        ValueError: by the learner, for a network without such a layer.

    Example:
        >>> learner = Learner(mlp((1, 40, 1), context=5), Zeros(), [Descend(SGD(1.0), 1)], loss=regression())
        >>> points = Method(learner, Backprop()).adapt(sines.support)
        >>> {name: tuple(moved.shape) for name, moved in points.value.items()}  # for each of four tasks
        {'0.context': (4, 5)}
    """

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The zeros; nothing of the task is looked at."""
        return Point(self.shared(network), {}), {}

    def shared(self, network: nn.Module) -> Params:
        """The zeros, by the names of their buffers."""
        return contexts(network)

    def decode(self, point: Point, noise: Noise) -> Point:
        """Return the point unchanged: the network reads the context as it is."""
        return point
