"""A head that classifies by the distance to the class means of the support."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.network.heads import MemoryHead


@final
class Distances(MemoryHead):
    """Classify by the distance to class means: ``logit_n = −s ‖x − c_n‖``, or that of the squared distance.

    ``c_n = Σ_k w_k y_kn x_k / Σ_k w_k y_kn``, the origin for a class without real rows. At c_n itself, where a norm has
    no slope, it is √ε.

    Slots: see :class:`~fewstep.core.MemoryHead`.

    Args:
        scale: s.
        learned: meta-learn s, as its logarithm.
        squared: of squared distances; they make a linear classifier, that of :class:`~fewstep.core.Prototypes`.
        eps: ε of ``√(‖x − c‖² + ε)``.
    """

    scale: Tensor

    def __init__(self, scale: float = 1.0, learned: bool = False, squared: bool = False, eps: float = 1e-12) -> None:
        super().__init__()
        self.squared, self.eps = squared, eps
        self.log_scale = nn.Parameter(torch.tensor(scale).log()) if learned else None
        self.register_buffer("scale", None if learned else torch.tensor(scale))

    def attend(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows ways"]:
        """Logits of every row."""
        members = self.labels.T * self.weights
        means = members @ self.remembered / members.sum(1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        squares = (x.unsqueeze(1) - means).square().sum(2)
        scale = self.scale if self.log_scale is None else self.log_scale.exp()
        return -scale * (squares if self.squared else (squares + self.eps).sqrt())
