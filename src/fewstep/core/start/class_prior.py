"""What class means are like, as classes of meta-training tell it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ClassPrior(nn.Module):
    """A mixture of equal Gaussians around classes that were seen before: ``p(c) ∝ Σ_b exp(−τ ‖c − c_b‖²)``.

    As an energy, ``E(c) = −log(Σ_b exp(−τ ‖c − c_b‖²))/2τ``, in half a squared distance: its gradient is c less the
    mean of the c_b that are near, and a step of rate α goes that share of the way to it. The smaller τ, the more of
    them are near, down to the mean of all.

    Args:
        classes: the means m_b of rows of length 1, a row for each class; zeros stand for none. Or the number of classes
            and that of features, for means that are loaded later.
        sharpness: τ. Like the means it is no meta-parameter, and saved with the rest.
        embedding: e of ``c_b = ‖m_b‖ e(m_b/‖m_b‖)``, which maps rows of length 1 to such rows: a mean of them is
            shorter. It is not registered here, as it is a part of the learner already. The identity when omitted.

    Example:
        >>> prior = ClassPrior(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), sharpness=100.0)
        >>> torch.func.grad(lambda c: prior(c, prior.embedded()))(torch.tensor([[0.5, 0.25]]))  # 1, 0 is nearer
        tensor([[-0.5000,  0.2500]])
    """

    classes: Tensor
    sharpness: Tensor

    def __init__(
        self,
        classes: Float[Tensor, "classes features"] | tuple[int, int],
        sharpness: float = 10.0,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        given = torch.zeros(classes) if isinstance(classes, tuple) else classes.detach().clone()
        self.register_buffer("classes", given)
        self.register_buffer("sharpness", torch.tensor(sharpness))
        self._embedding = () if embedding is None else (embedding,)  # a tuple hides it from registration

    def embedded(self) -> Float[Tensor, "classes features"]:
        """The c_b."""
        lengths = self.classes.norm(dim=1, keepdim=True).clamp_min(1e-12)
        rows = self.classes / lengths
        found: Tensor = lengths * (self._embedding[0](rows) if self._embedding else rows)
        return found

    def forward(self, means: Float[Tensor, "ways features"], seen: Float[Tensor, "classes features"]) -> Tensor:
        """The sum of E over the classes of a task, for what :meth:`embedded` gives."""
        distances = means.square().sum(1, keepdim=True) - 2 * means @ seen.T + seen.square().sum(1)
        absent = (self.classes == 0).all(1)
        near = torch.where(absent, -torch.inf, -self.sharpness * distances)
        return -torch.logsumexp(near, 1).sum() / (2 * self.sharpness)
