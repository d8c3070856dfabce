"""A start solved in closed form: a linear classifier that fits the task's own examples by ridge regression."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.start.fitted_head import FittedHead


class Ridge(FittedHead):
    """Adaptation begins at the linear classifier that ridge regression onto one-hot labels finds, on embedded rows.

    ``(W, b) = s · argmin_{W,b} Σ_i w_i ‖W e(x_i) + b − y_i‖² + λ‖W‖²``, λ and s positive.

    With ``X̃ = √w e(x)`` and ``Ỹ = √w y`` it is ``W = s Ỹᵀ(X̃X̃ᵀ + λI)⁻¹X̃``, or ``s ỸᵀX̃(X̃ᵀX̃ + λI)⁻¹`` where there
    are fewer features than rows: the smaller system is solved. The meta-gradient goes through the solution, to the
    embedding e (see :class:`FittedHead`), to λ and to s. The head alone is adapted, the network is not.

    Source: Bertinetto, Henriques, Torr and Vedaldi 2019, Eq. 4 to 6 (R2-D2).

    Args:
        penalty: the initial λ, in the squared unit of an embedding; of a sum over rows, or of their mean.
        scale: the initial s. Labels are 0 and 1, so that logits of a softmax want more than 1.
        bias: ``"free"``: b has no penalty, as if rows and labels were centred by their means. ``"penalised"``: b is the
            weight of one more feature, which is 1 (the authors' code).
        mean: the sum over rows is a mean (the authors' code), so that λ does not depend on the number of rows.
        learned: λ and s are meta-learned, as their logarithms. False: they stay, as buffers.

    Raises:
        ValueError: unless λ and s are positive.

    Example:
        >>> support = Batch(torch.tensor([[0.0], [2.0]]), torch.eye(2), torch.ones(2))  # classes at 0 and 2
        >>> point, _ = Ridge(penalty=2.0).begin(Generated(), support, None)
        >>> nn.functional.linear(torch.tensor([[2.0]]), *point.value.values()).detach()  # half of the way to (0, 1)
        tensor([[0.2500, 0.7500]])
    """

    log_penalty: Tensor
    log_scale: Tensor

    def __init__(
        self,
        penalty: float = 1.0,
        scale: float = 1.0,
        *,
        bias: Literal["free", "penalised"] = "free",
        mean: bool = False,
        learned: bool = True,
    ) -> None:
        super().__init__(adapts=())
        for name, value in (("penalty", penalty), ("scale", scale)):
            if not 0 < value < float("inf"):
                raise ValueError(f"Ridge: the {name} must be positive and finite, got {value}.")
            logarithm = torch.tensor(value).log()
            if learned:
                self.register_parameter(f"log_{name}", nn.Parameter(logarithm))
            else:
                self.register_buffer(f"log_{name}", logarithm)
        self.bias, self.mean = bias, mean

    def fit(
        self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows ways"], weight: Float[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "ways features"], Float[Tensor, " ways"]]:
        """The solution, multiplied by s."""
        share = (weight / weight.sum()).unsqueeze(1)
        root = (share if self.mean else weight.unsqueeze(1)).sqrt()
        if self.bias == "free":
            x_mean, y_mean = (share * x).sum(0), (share * y).sum(0)
            head = self._solve(root * (x - x_mean), root * (y - y_mean))
            bias = y_mean - head @ x_mean
        else:
            head = self._solve(root * torch.cat([x, torch.ones_like(x[:, :1])], 1), root * y)
            head, bias = head[:, :-1], head[:, -1]
        return self.log_scale.exp() * head, self.log_scale.exp() * bias

    def _solve(
        self, x: Float[Tensor, "rows features"], y: Float[Tensor, "rows ways"]
    ) -> Float[Tensor, "ways features"]:
        """The weights of a fit through the origin; of two forms, that with the smaller system."""
        few = len(x) <= x.shape[1]
        gram = x @ x.T if few else x.T @ x
        system = gram + self.log_penalty.exp() * torch.eye(len(gram), dtype=x.dtype, device=x.device)
        solved: Tensor = x.T @ torch.linalg.solve(system, y) if few else torch.linalg.solve(system, x.T @ y)
        return solved.T
