"""A latent space around a fitted head: codes that are zero at first, decoded into shifts of each class's rows."""

from collections.abc import Collection
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import generated_head
from fewstep.core.noise import Noise
from fewstep.core.start.base import Start
from fewstep.core.start.class_prior import ClassPrior
from fewstep.core.start.fitted_head import FittedHead
from fewstep.core.types import Batch, Penalties, Point


class Shifted(Start):
    """LEO's latent space around a head that is good already: it is fitted to ``e(x_k) + D z_n``, with codes z.

    The code z_n of a class, zero at first, moves all of its rows, and with them its mean ``c_n(z) = c_n + D z_n``;
    queries stay. Without a step it is the head itself. The inner loss of codes is ``L_S(z) + Σ_n E(c_n(z))`` with the
    energy E of a prior, so that descending in them seeks classes that are likely and explain the support. LEO (Rusu et
    al. 2019) generates the head from z alone, whose prior is a normal distribution.

    The point is ``code`` ``[ways, latents]``; its context holds the embedded support and the prior's classes.

    Args:
        head: what is fitted, such as :class:`Prototypes`; nothing else is adapted.
        decoder: D ``[features, latents]``, which stays as it is; the identity when omitted.
        prior: of class means; no energy when omitted.

    Example:
        >>> support = Batch(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.eye(2), torch.ones(2))
        >>> start = Shifted(Prototypes(), decoder=torch.tensor([[1.0], [0.0]]))
        >>> point, _ = start.begin(Generated(), support, None)
        >>> moved = Point({"code": torch.tensor([[0.0], [3.0]])}, point.context)
        >>> start.decode(moved, None).value["weight"].tolist()  # twice the means 0, 1 and 2 + 3, 1
        [[0.0, 2.0], [10.0, 2.0]]
    """

    decoder: Tensor | None

    def __init__(
        self,
        head: FittedHead,
        decoder: Float[Tensor, "features latents"] | None = None,
        *,
        prior: ClassPrior | None = None,
    ) -> None:
        super().__init__()
        self.head, self.prior = head, prior
        self.register_buffer("decoder", None if decoder is None else decoder.detach().clone())

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """Codes of zero, and what their decoding needs."""
        name = generated_head(network)
        rows = self.head.embedded(network, support, noise)
        latents = rows.shape[1] if self.decoder is None else self.decoder.shape[1]
        context = {f"{name}rows": rows, f"{name}labels": support.y, f"{name}weights": support.weight}
        if self.prior is not None:
            context["seen"] = self.prior.embedded()
        return Point({"code": rows.new_zeros(support.y.shape[1], latents)}, context), {}

    def decode(self, point: Point, noise: Noise) -> Point:
        """The head that fits the moved rows."""
        name, rows, labels, weights = self._support(point)
        weight, bias = self.head.fit(rows + labels @ self._shift(point), labels, weights)
        return Point({f"{name}weight": weight, f"{name}bias": bias}, {})

    def energy(self, point: Point) -> Tensor | None:
        """That of the moved class means."""
        if self.prior is None:
            return None
        _, rows, labels, weights = self._support(point)
        members = labels.T * weights
        means = members @ rows / members.sum(1, keepdim=True).clamp_min(1e-12)  # of no rows: the origin, not NaN
        found: Tensor = self.prior(means + self._shift(point), point.context["seen"])
        return found

    def _shift(self, point: Point) -> Float[Tensor, "ways features"]:
        code = point.value["code"]
        return code if self.decoder is None else code @ self.decoder.T

    def _support(self, point: Point) -> tuple[str, Tensor, Tensor, Tensor]:
        """The head's place in the network; embedded rows, their labels, and the weights by which they count."""
        name = next(key for key in point.context if key.endswith("rows")).removesuffix("rows")
        rows, labels, weights = (point.context[f"{name}{part}"] for part in ("rows", "labels", "weights"))
        return name, rows, labels, weights

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """Codes, or the head's slots."""
        name = generated_head(network)
        return {f"{name}weight", f"{name}bias"} if decoded else {"code"}

    def begin_sites(self, network: nn.Module, support: Batch) -> dict[str, Any]:
        """What the network draws by itself when it embeds the support."""
        return self.head.begin_sites(network, support)

    def start_parameters(self, network: nn.Module) -> set[str]:
        """None: codes begin at zero, whatever was learned."""
        return set()
