"""A meta-gradient that asks how wide the minimum is where an adaptation ends."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fewstep.core.learner import Learner
from fewstep.core.loss import cross_entropy, squared_error
from fewstep.core.meta_gradient.backprop import Backprop
from fewstep.core.meta_gradient.outer_loss import with_penalties
from fewstep.core.network.taps import Tap, taps
from fewstep.core.noise import Noise
from fewstep.core.types import Batch, Estimate, Penalties, Point


class Laplace(Backprop):
    """The meta-gradient of Laplace's approximation to the marginal likelihood of a task (Grant et al. 2018).

    ``∇ [L_Q(φ(θ)) + η/2 log det Ĥ_Q(φ(θ))]``, with every derivative. Ĥ is the Fisher information of the adapted
    weights on the query rows, by K-FAC (Martens and Grosse 2015): of each layer ``(A + δI) ⊗ (G + δI)``, where A is the
    second moment of its inputs, with a 1 for the bias, and G that of the errors at its outputs, so that

    ``log det = d_G log det(A + δI) + d_A log det(G + δI)``.

    G is the expectation over labels that the model gives: of softmax ``Σ_n p_n g_n g_nᵀ``, of squared errors that of
    normal targets of variance 1. Of a convolution A is summed over positions and G averaged (Grosse and Martens 2016).
    Errors that batch normalisation carries from row to row are added up. Parameters of other layers, such as those of
    normalisations, have no part in Ĥ.

    Args:
        weight: η ≥ 0; at 0 it is :class:`Backprop`.
        damping: δ > 0. Without it the determinant is 0: errors of a softmax add up to nothing, and there are fewer rows
            than inputs.
        exact: the whole Fisher information with δ² in place of K-FAC's, for a single linear layer: a reference. Its
            size is that of all weights, squared.

    Raises:
        ValueError: for a negative weight, or a damping that is not positive.

    Example:
        >>> learner = Learner(mlp((8, 3)), Shared(), [Descend(SGD(0.5), 1)])
        >>> metrics = Method(learner, Laplace(1e-3, damping=0.1)).objective(clusters, None).metrics
        >>> sorted(metrics)  # "log_det" is η/2 log det Ĥ of each task
        ['accuracy', 'log_det', 'loss']
    """

    def __init__(self, weight: float, damping: float, exact: bool = False) -> None:
        super().__init__()
        for name, number in (("weight", weight), ("damping", damping)):
            if not 0 <= number < math.inf or (name, number) == ("damping", 0):
                raise ValueError(
                    f"Laplace: the {name} must be {'positive' if name == 'damping' else 'at least 0'} "
                    f"and finite, got {number}."
                )
        self.weight, self.damping, self.exact = weight, damping, exact

    def untrained(self, learner: Learner) -> set[str]:
        """None.

        Raises:
            ValueError: when the loss is no cross-entropy and no squared error.
        """
        if learner.loss.rows not in (cross_entropy, squared_error):
            raise ValueError(
                "Laplace: the Fisher information is known of cross-entropy and of squared errors; give "
                "classification() or regression() for the loss."
            )
        return super().untrained(learner)

    def _outer(
        self, learner: Learner, point: Point, penalties: Penalties, support: Batch, query: Batch, noise: Noise
    ) -> Estimate:
        objective, metrics = super()._outer(learner, point, penalties, support, query, noise)
        if not self.weight:
            return Estimate(objective, metrics)
        return with_penalties(objective, metrics, {"log_det": 0.5 * self.weight * self.log_det(learner, point, query)})

    def log_det(self, learner: Learner, point: Point, query: Batch) -> Float[Tensor, ""]:
        """``log det Ĥ`` of decoded weights on the rows of one task.

        Raises:
            ValueError: when no layer of the network is adapted whole, or for ``exact`` another than a linear one.
        """
        query = learner.embed(query)
        classifies = learner.loss.rows is cross_entropy

        def roots(prediction: Tensor) -> Tensor:
            return query.weight.sqrt().unsqueeze(1) * (_of_softmax if classifies else _of_normal)(prediction)

        found = taps(learner.network, point, query.x, query.weight, roots)
        if not found or (self.exact and (len(found) > 1 or found[0].inputs.shape[1] > 1)):
            needed = "a single linear layer" if self.exact else "a linear layer or a convolution"
            raise ValueError(f"Laplace: the network needs {needed} whose weight the inner loop moves, and has none.")
        rows = query.weight.sum()
        if self.exact:
            return self._whole(found[0], query.weight, rows)
        return torch.stack([self._factored(tap, query.weight, rows) for tap in found]).sum()

    def _factored(self, tap: Tap, weight: Tensor, rows: Tensor) -> Tensor:
        inputs, errors = (weight.view(-1, 1, 1).sqrt() * tap.inputs).flatten(0, 1), tap.errors.flatten(0, 2)
        a, g = inputs.mT @ inputs / rows, errors.mT @ errors / (rows * tap.inputs.shape[1])
        return len(g) * self._of_damped(a, self.damping) + len(a) * self._of_damped(g, self.damping)

    def _whole(self, tap: Tap, weight: Tensor, rows: Tensor) -> Tensor:
        """Of ``Σ_r Σ_n (g_rn ⊗ a_r)(g_rn ⊗ a_r)ᵀ``; errors have the square root of the weight already."""
        each = torch.einsum("nro,ri->nroi", tap.errors.squeeze(2), tap.inputs.squeeze(1)).flatten(2).flatten(0, 1)
        return self._of_damped(each.mT @ each / rows, self.damping**2)

    def _of_damped(self, matrix: Float[Tensor, "d d"], damping: float) -> Tensor:
        found: Tensor = torch.linalg.slogdet(matrix + damping * torch.eye(len(matrix)).to(matrix)).logabsdet
        return found


def _of_softmax(prediction: Float[Tensor, "rows ways"]) -> Float[Tensor, "ways rows ways"]:
    """``√p_n (p − e_n)``, whose squares add up to ``diag p − p pᵀ``."""
    p = prediction.softmax(-1)
    return p.T.sqrt().unsqueeze(2) * (p - torch.eye(p.shape[1]).to(p).unsqueeze(1))


def _of_normal(prediction: Float[Tensor, "rows outputs"]) -> Float[Tensor, "outputs rows outputs"]:
    """One for each output."""
    return torch.eye(prediction.shape[1]).to(prediction).unsqueeze(1).expand(-1, len(prediction), -1)
