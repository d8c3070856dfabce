"""A latent space around another start: codes that are zero at first, decoded into shifts of its classifier."""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import generated_head
from fewstep.core.noise import Noise, entry
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Penalties, Point


class Shifted(Start):
    """LEO's latent space around a start that is already good: ``w_n = w⁰_n + D z_n``, with ``z_n = 0`` at first.

    Another start makes the classifier ``(w⁰, b⁰)``, such as class means. Descending in the codes moves the weights of
    each class within what D spans, by steps that are the weights' own, seen through ``D Dᵀ``; the bias stays. Without a
    step it is that start. LEO (Rusu et al. 2019) generates w from z alone, has z from an encoder, and samples both.

    The point is ``code`` ``[ways, latents]``; its context ``weight`` and ``bias`` of the head. Decoding fills these.

    Args:
        start: of a :class:`~fewstep.networks.Generated` head, with nothing else that is adapted.
        features: D's height, the width of the inputs that the head classifies.
        latents: its width, that of a code.
        basis: the initial D ``[features, latents]``, such as the directions in which class means vary; when omitted,
            orthonormal directions at random.
        learned: D is meta-learned. False: it stays, as a buffer.

    Raises:
        ValueError: for a basis of another shape.

    Example:
        >>> support = Batch(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.eye(2), torch.ones(2))
        >>> start = Shifted(Prototypes(()), features=2, latents=1, basis=torch.tensor([[1.0], [0.0]]))
        >>> point, _ = start.begin(Generated(), support, None)
        >>> moved = Point({"code": torch.tensor([[0.0], [3.0]])}, point.context)
        >>> start.decode(moved, None).value["weight"].tolist()  # that of the second class was 4, 2
        [[0.0, 2.0], [7.0, 2.0]]
    """

    decoder: Tensor

    def __init__(
        self,
        start: Start,
        features: int,
        latents: int,
        basis: Float[Tensor, "features latents"] | None = None,
        *,
        learned: bool = False,
    ) -> None:
        super().__init__()
        if basis is None:
            basis = nn.init.orthogonal_(torch.empty(features, latents))
        if basis.shape != (features, latents):
            raise ValueError(f"Shifted: the basis must have the shape {[features, latents]}, got {list(basis.shape)}.")
        self.start = start
        if learned:
            self.decoder = nn.Parameter(basis.detach().clone())
        else:
            self.register_buffer("decoder", basis.detach().clone())

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """Codes of zero, and the other start's classifier.

        Raises:
            ValueError: when the other start has more than a classifier to adapt.
        """
        point, penalties = self.start.begin(network, support, entry(noise, "start"))
        head = generated_head(network)
        if point.value.keys() - {f"{head}weight", f"{head}bias"} or point.context:
            raise ValueError(f"Shifted: the start adapts {sorted(point.value)}, not a classifier alone.")
        weight = point.value[f"{head}weight"]
        return Point({"code": weight.new_zeros(len(weight), self.decoder.shape[1])}, point.value), penalties

    def decode(self, point: Point, noise: Noise) -> Point:
        """The classifier, its weights shifted."""
        shift = point.value["code"] @ self.decoder.T
        return Point({name: t + shift if name.endswith("weight") else t for name, t in point.context.items()}, {})

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str] | None:
        """Codes, or the head's slots."""
        return self.start.adapted_names(network, decoded) if decoded else {"code"}

    def begin_sites(self, network: nn.Module, support: Batch) -> dict[str, Any]:
        """Those of the other start."""
        return {"start": dict(self.start.begin_sites(network, support))}

    def start_parameters(self, network: nn.Module) -> set[str]:
        """None: codes begin at zero, whatever was learned."""
        return set()
