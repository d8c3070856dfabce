"""A start made of class means: a linear classifier by distance to them."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.choice import Choice
from fewstep.core.start.fitted_head import FittedHead


class Prototypes(FittedHead):
    """Adaptation begins at the network's parameters and a head made of class means, the prototypes.

    ``c_n = Σ_k w_k y_kn e(x_k) / Σ_k w_k y_kn`` · ``W_n = 2 c_n`` · ``b_n = −‖c_n‖²``: logits are then
    ``−‖e(x) − c_n‖² + ‖e(x)‖²``, whose last term is the same for all classes (Snell et al. 2017, section 2.4;
    Triantafillou et al. 2020, Proto-MAML). On the embedding e see :class:`FittedHead`. The prototype of a class without
    real rows is the origin.

    Args:
        adapts: which of the network's parameters the inner loop moves: their names, or a predicate on names; all when
            omitted, and no frozen one. The head's slots are always among what it moves, and alone with ``()``.
        scale: the initial s of logits ``−s ‖e(x) − c_n‖²``, an inverse temperature that is meta-learned as its
            logarithm: embeddings of length 1 want more than 1. None: there is none.

    Raises:
        ValueError: for a scale that is not positive.

    Example:
        >>> support = Batch(torch.tensor([[0.0], [2.0]]), torch.eye(2), torch.ones(2))  # classes at 0 and 2
        >>> point, _ = Prototypes().begin(Generated(), support, None)
        >>> logits = nn.functional.linear(torch.tensor([[0.9]]), *point.value.values())
        >>> logits.argmax(1)  # 0.9 is nearer to the first
        tensor([0])
    """

    def __init__(self, adapts: Choice | None = None, scale: float | None = None) -> None:
        super().__init__(adapts)
        if scale is not None and not 0 < scale < float("inf"):
            raise ValueError(f"Prototypes: the scale must be positive and finite, got {scale}.")
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(scale).log())

    def fit(
        self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows ways"], weight: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "ways features"], Float[Tensor, " ways"]]:
        """The classifier by distance to class means."""
        members = y.T * weight
        # 0/0 would be NaN for a class that is padding only; any positive total is far above this floor.
        total = members.sum(1, keepdim=True).clamp(min=torch.finfo(members.dtype).tiny)
        prototypes = (members / total) @ x
        head, bias = 2 * prototypes, -prototypes.square().sum(1)
        return (head, bias) if self.log_scale is None else (self.log_scale.exp() * head, self.log_scale.exp() * bias)
