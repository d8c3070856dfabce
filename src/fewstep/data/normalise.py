"""Normalisation of feature rows."""

from jaxtyping import Float
from torch import Tensor


def l2_normalise(x: Float[Tensor, "*rows features"], floor: float = 1e-12) -> Float[Tensor, "*rows features"]:
    """Scale each row to unit Euclidean length: ``x / sqrt(max(sum x², floor))``.

    LEO's data loader does this to every embedding, for training and for evaluation; the paper does not mention it. A
    zero row stays zero.

    Args:
        x: ``[..., features]``, floating point, not half precision (the squares would overflow).
        floor: the smallest sum of squares that is divided by. It also keeps the gradient finite at a zero row.

    Source: Rusu et al. 2019, code at google-deepmind/leo, ``data.py``.
    """
    return x * x.square().sum(-1, keepdim=True).clamp_min(floor).rsqrt()
