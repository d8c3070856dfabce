"""Where a task starts: the protocol of a start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from jaxtyping import Int
from torch import Tensor, nn

from fewstep.core.noise import Noise, Sites
from fewstep.core.types import Batch, Params, Penalties, Point


class Start(nn.Module, ABC):
    """Where a task's adaptation begins. Functions of one task; meta-parameters are the module's own.

    Example:
        >>> class Origin(Start):
        ...     def begin(self, network, support, noise):
        ...         return Point({name: torch.zeros_like(p) for name, p in network.named_parameters()}, {}), {}
        ...     def decode(self, point, noise):
        ...         return point  # values already are weights
        >>> learner = Learner(line, Origin(), [Descend(SGD(0.1), steps=3)])
    """

    @abstractmethod
    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The starting point of a task, and penalties on it (none in evaluation, when ``noise`` is None)."""

    knows: int = 0
    """Of how many classes of meta-training it holds something. If any, it asks which of them a task is of, and is
    trained on :class:`KnownTask`."""

    others: int = 0
    """How many rows of other known classes such a task has in its query. If any, the query is classified among the
    task's own and all known classes together, in this order."""

    def begin_known(
        self, network: nn.Module, support: Batch, classes: Int[Tensor, " ways"], noise: Noise
    ) -> tuple[Point, Penalties]:
        """As :meth:`begin`, for a task of meta-training whose classes are known by number; most starts do not ask."""
        return self.begin(network, support, noise)

    infers: bool = False
    """Whether in meta-training it draws from a posterior that sees the targets too, see :meth:`infer`."""

    def infer(self, network: nn.Module, support: Batch, targets: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """As :meth:`begin`, drawn from the posterior of a task whose targets are seen; penalties have its divergence.

        The prior that it diverges from is what :meth:`begin` draws from.
        """
        return self.begin(network, support, noise)

    @abstractmethod
    def decode(self, point: Point, noise: Noise) -> Point:
        """A point of network weights: ``value`` is what fine-tuning may move, ``context`` what it may not.

        A pure function. Together the two are passed to the network in place of its parameters and slots.
        """

    samples_steps: bool = True
    """Whether each inner step on codes draws what decoding draws. False: steps see the mean, and one draw follows."""

    def energy(self, point: Point) -> Tensor | None:
        """What the inner loss of codes has besides that of the support: how unlikely they are. None: nothing.

        It is asked for points before decoding alone.
        """
        return None

    def shared(self, network: nn.Module) -> Params | None:
        """The value that every task starts from, or None when it takes a task to know it.

        What is known is held against the rules when a learner is made, not when its first task comes.
        """
        return None

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str] | None:
        """Names of the values that a stage moves before decoding or after it, or None when it takes a task to know.

        They are held against the rules when a learner is made, as is :meth:`shared`.

        Raises:
            ValueError: when the network is none that this start can begin with.
        """
        value = self.shared(network)
        return None if value is None else value.keys()

    def penalise(self, begun: Point, ended: Point) -> Penalties:
        """Penalties of meta-training on how far codes moved, from the start to the point that is decoded."""
        return {}

    def start_parameters(self, network: nn.Module) -> set[str]:
        """Which meta-parameters :meth:`begin` makes the point's *value* of, by their names in the learner.

        Estimators that learn from nothing but the starting value (Reptile) leave all others untrained.
        """
        return set()

    def begin_sites(self, network: nn.Module, support: Batch) -> Sites:
        """Random sites of :meth:`begin`, for a support of the given (unbatched) shapes."""
        return {}

    def decode_sites(self, support: Batch) -> Sites:
        """Random sites of one :meth:`decode`."""
        return {}
