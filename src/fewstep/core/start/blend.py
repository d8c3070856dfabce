"""A head between other heads."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.start.fitted_head import FittedHead


class Blend(FittedHead):
    """A weighted sum of fitted heads: ``(W, b) = Σ_j s_j (W_j, b_j)``.

    The shares s are no meta-parameters but a choice, such as one on validation tasks after training; they are saved
    with the rest. The head alone is adapted, whatever else its parts would adapt.

    Args:
        starts: the heads, such as :class:`Prototypes` and :class:`Ridge`.
        shares: s, one for each of them; all of the first one when omitted.

    Raises:
        ValueError: without a head, or for another number of shares.

    Example:
        >>> support = Batch(torch.tensor([[0.0], [2.0]]), torch.eye(2), torch.ones(2))
        >>> half = Blend(Prototypes(), Ridge(), shares=(0.5, 0.5))
        >>> point, _ = half.begin(Generated(), support, None)
        >>> point.value["weight"].detach().flatten().tolist()  # halfway between 0, 4 and -1/3, 1/3
        [-0.1666666716337204, 2.1666667461395264]
    """

    shares: Tensor

    def __init__(self, *starts: FittedHead, shares: Sequence[float] | None = None) -> None:
        super().__init__(adapts=())
        given = (1.0,) + (0.0,) * (len(starts) - 1) if shares is None else tuple(shares)
        if not starts or len(given) != len(starts):
            raise ValueError(f"Blend: one share for each of at least one head; got {len(starts)} and {len(given)}.")
        self.starts: Sequence[FittedHead] = nn.ModuleList(starts)  # type: ignore[assignment]  # torch types entries as modules
        self.register_buffer("shares", torch.tensor(given))

    def fit(
        self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows ways"], weight: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "ways features"], Float[Tensor, " ways"]]:
        """The sum of the heads."""
        heads, biases = zip(*(start.fit(x, y, weight) for start in self.starts), strict=True)
        return torch.einsum("j,jnd->nd", self.shares, torch.stack(heads)), self.shares @ torch.stack(biases)
