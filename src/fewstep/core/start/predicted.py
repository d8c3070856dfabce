"""A start predicted from what classes are like: a linear classifier that a network makes of class means."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.start.fitted_head import FittedHead


class Predicted(FittedHead):
    """Adaptation begins at a head whose weights a network predicts from class means: ``W_n = s φ(c_n)``, ``b_n = 0``.

    ``c_n = Σ_k w_k y_kn e(x_k) / Σ_k w_k y_kn``, the origin for a class without real rows. On the embedding e see
    :class:`FittedHead`; φ is the same for all classes. The head alone is adapted, the network is not.

    Args:
        predictor: φ, from means ``[ways, features]`` to weights of that shape.
        scale: the initial s, which is meta-learned as its logarithm; None: it stays 1.

    Example:
        >>> support = Batch(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2), torch.ones(2))
        >>> point, _ = Predicted(nn.Identity()).begin(Generated(), support, None)
        >>> point.value["weight"]  # the class means themselves
        tensor([[1., 0.],
                [0., 2.]])
    """

    def __init__(self, predictor: nn.Module, scale: float | None = None) -> None:
        super().__init__(adapts=())
        self.predictor = predictor
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(scale).log())

    def fit(
        self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows ways"], weight: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "ways features"], Float[Tensor, " ways"]]:
        """What is predicted, without a bias."""
        members = y.T * weight
        head: Tensor = self.predictor(members @ x / members.sum(1, keepdim=True).clamp(min=1e-12))
        return head if self.log_scale is None else self.log_scale.exp() * head, head.new_zeros(len(head))
