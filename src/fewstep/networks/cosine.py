"""A classifier by cosines, whose weights and features have no length."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Cosine(nn.Linear):
    """``logit_n = s cos(w_n, x)``, with s learned (Gidaris and Komodakis 2018, section 3.1).

    Features that are trained under it lie close to others of their class in angle, whatever the class.

    Args:
        features: width of a row.
        outputs: number of classes.
        scale: the initial s.
    """

    def __init__(self, features: int, outputs: int, scale: float = 10.0) -> None:
        super().__init__(features, outputs, bias=False)
        nn.init.normal_(self.weight, std=(2 / features) ** 0.5)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows outputs"]:
        """Logits."""
        normalize = nn.functional.normalize
        return self.scale * nn.functional.linear(normalize(x, dim=-1), normalize(self.weight, dim=-1))
