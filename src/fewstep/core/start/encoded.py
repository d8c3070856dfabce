"""A context that is made of the support: the mean of what an encoder makes of its rows, and a latent code."""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.contextual import contexts
from fewstep.core.noise import Noise, Normal, Sites
from fewstep.core.normal import divergence
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Params, Penalties, Point


class Encoded(Start):
    """The context of the network is encoded from the support, whatever the order and number of its rows.

    ``φ = [r, z]``, ``r = mean_i e([x_i, y_i])`` and ``z ~ p(z | S) = N(μ(s), σ(s)²)``, ``s = mean_i l([x_i, y_i])``,
    with ``σ = 0.1 + 0.9 sigmoid``. The mean is over real rows. z is its mean in evaluation, unless noise is passed
    there too. In meta-training z comes from the posterior of an estimator's targets T, by the same l: ``q(z | T)``, at
    the cost of ``KL(q(z | T) ‖ p(z | S))/|T|``, in nats a target.

    By class, e and l read inputs alone, and labels say to whose mean a row goes: r and s are the means of all classes
    side by side, zeros for a class without rows, with ``e([x_i, y_i])`` replaced by ``e(x_i)``.

    The value is the context itself, ``[width of r + latents]``: stages can go on from where the encoder begins.

    Args:
        encoder: e, from rows ``[rows, inputs + outputs]`` to ``[rows, width]``; None: there is no r. By class, from
            ``[rows, inputs]``, and r is ``[classes · width]``.
        latent: l, likewise; None: there is no z.
        moments: from s ``[width]``, by class ``[classes · width]``, to μ and the argument of σ, ``[2 · latents]``.
        latents: width of z.
        kl_weight: β of the divergence; 1 makes the objective a bound of the likelihood.
        by_class: encode each class apart.

    Raises:
        ValueError: for neither encoder nor latent; by the learner, for a network without a single
            :class:`~fewstep.core.Contextual` layer of the width of φ.

    Example:
        >>> start = Encoded(nn.Linear(2, 5))
        >>> learner = Learner(mlp((1, 40, 1), context=5), start, [], loss=regression())
        >>> points = Method(learner, Backprop()).adapt(sines.support)  # no steps: a mean over each task's rows
        >>> points.value["0.context"].shape
        torch.Size([4, 5])
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        latent: nn.Module | None = None,
        moments: nn.Module | None = None,
        latents: int = 0,
        kl_weight: float = 1.0,
        by_class: bool = False,
    ) -> None:
        super().__init__()
        if encoder is None and latent is None:
            raise ValueError("Encoded: nothing is encoded; give an encoder, or a latent one, or both.")
        if (latent is None) != (moments is None) or (latent is None) != (latents == 0):
            raise ValueError("Encoded: a latent code needs all of latent, moments and latents.")
        self.encoder, self.latent, self.moments = encoder, latent, moments
        self.latents, self.kl_weight, self.infers = latents, kl_weight, latent is not None
        self.by_class = by_class

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The encoding, and a code of the prior."""
        return self._point(network, support, self._moments(support), noise), {}

    def infer(self, network: nn.Module, support: Batch, targets: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The encoding of the support, and a code of the posterior."""
        prior, posterior = self._moments(support), self._moments(targets)
        if prior is None or posterior is None:
            return self.begin(network, support, noise)
        kl = divergence(*posterior, *prior).sum() / targets.weight.sum()
        return self._point(network, support, posterior, noise), {"kl": self.kl_weight * kl}

    def _point(self, network: nn.Module, support: Batch, moments: tuple[Tensor, Tensor] | None, noise: Noise) -> Point:
        parts = [] if self.encoder is None else [self._mean(self.encoder, support)]
        if moments is not None:
            mean, deviation = moments
            parts.append(mean if noise is None else mean + deviation * noise["code"])
        (name, slot), context = self._slot(network), torch.cat(parts)
        if slot.shape != context.shape:
            raise ValueError(
                f"Encoded: the network reads a context of {len(slot)} numbers, but {len(context)} are encoded: make it "
                f"with context={len(context)}."
            )
        return Point({name: context}, {})

    def _moments(self, rows: Batch) -> tuple[Tensor, Tensor] | None:
        """μ and σ of a code."""
        if self.latent is None or self.moments is None:
            return None
        mean, raw = self.moments(self._mean(self.latent, rows)).split(self.latents)
        return mean, 0.1 + 0.9 * raw.sigmoid()

    def _mean(self, module: nn.Module, rows: Batch) -> Float[Tensor, " width"]:
        """The mean over real rows of what a module makes of them, or the means of all classes."""
        x = rows.x.flatten(1)
        encoded: Tensor = module(x if self.by_class else torch.cat([x, rows.y], 1))
        if not self.by_class:
            return rows.weight @ encoded / rows.weight.sum()
        member = rows.weight[:, None] * rows.y
        number = member.sum(0)
        return (member.T @ encoded / torch.where(number > 0, number, 1)[:, None]).flatten()

    @staticmethod
    def _slot(network: nn.Module) -> tuple[str, Tensor]:
        found: Params = contexts(network)
        if len(found) != 1:
            raise ValueError(f"Encoded: it fills one context, but the network reads {', '.join(found)}.")
        return next(iter(found.items()))

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """The context."""
        return {self._slot(network)[0]}

    def start_parameters(self, network: nn.Module) -> set[str]:
        """All of its own."""
        return {f"start.{name}" for name, _ in self.named_parameters()}

    def decode(self, point: Point, noise: Noise) -> Point:
        """Return the point unchanged: the network reads the context as it is."""
        return point

    def begin_sites(self, network: nn.Module, support: Batch) -> Sites:
        """A standard-normal number for each latent dimension."""
        return {"code": Normal((self.latents,))} if self.latents else {}
