"""Softmax weights of known classes, for what is made of them."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fewstep.data.dataset import Dataset


def softmax_weights(dataset: Dataset, rows: int, penalty: float) -> Float[Tensor, "classes features"]:
    """The classifier of all classes of a dataset, without a bias: ``argmin_W mean_i CE(y_i, W x_i) + ½ λ ‖W‖²``.

    Found by L-BFGS, in float64; it is unique.

    Args:
        dataset: of feature vectors.
        rows: of each class, at even distances; fewer where there are fewer.
        penalty: λ > 0.
    """
    positions, of = [], []
    for number, (first, last) in enumerate(zip(dataset.offsets[:-1], dataset.offsets[1:], strict=True)):
        own = np.unique(np.linspace(first, last - 1, rows).round().astype(np.int64))
        positions.append(own)
        of.append(np.full(len(own), number))
    x, y = dataset.gather(np.concatenate(positions), dtype=torch.float64), torch.from_numpy(np.concatenate(of))
    weights = x.new_zeros(dataset.classes, x.shape[1], requires_grad=True)
    descent = torch.optim.LBFGS(
        [weights], max_iter=1000, tolerance_grad=1e-8, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        with torch.enable_grad():
            value = F.cross_entropy(x @ weights.T, y) + 0.5 * penalty * weights.square().sum()
        (weights.grad,) = torch.autograd.grad(value, [weights])
        return value.item()

    descent.step(loss)
    return weights.detach()
