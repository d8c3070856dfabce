"""Several networks of one shape that learn side by side, each for itself."""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from fewstep.core.network import dotted


@final
class Ensemble(nn.Module):
    """M networks with weights of their own, run at once: predictions stand side by side, ``[rows, M · outputs]``.

    With a loss that is the sum of the members' losses (:func:`ensemble_regression`), no member's gradient depends on
    another, inner steps included: meta-training the ensemble is meta-training M networks on the same tasks, from M
    initialisations.

    Args:
        make: makes a member with fresh weights; it has parameters, and no buffers.
        members: M ≥ 1.

    Raises:
        ValueError: for no members, or a network with buffers.
    """

    def __init__(self, make: Callable[[], nn.Module], members: int) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"Ensemble: at least one member is needed, got {members}.")
        networks = [make() for _ in range(members)]
        parameters, buffers = stack_module_state(networks)
        if buffers:
            raise ValueError(f"Ensemble: members with buffers ({', '.join(buffers)}) are not stacked.")
        self.members = members
        # In a list, so that it is not registered: its weights belong to nobody. What looks at a network looks here too.
        self.unregistered = [networks[0].to("meta")]
        self._names = list(parameters)
        dotted.register(self, {name: nn.Parameter(tensor.detach().clone()) for name, tensor in parameters.items()})

    def forward(self, x: Float[Tensor, "rows *features"]) -> Float[Tensor, "rows members_outputs"]:
        """Predictions of every member."""
        weights = {name: dotted.get(self, name) for name in self._names}
        each: Tensor = vmap(lambda one: functional_call(self.unregistered[0], one, (x,)), out_dims=1)(weights)
        return each.flatten(1)


def squared_error_of_each(
    prediction: Float[Tensor, "rows members_outputs"], y: Float[Tensor, "rows outputs"]
) -> Float[Tensor, " rows"]:
    """The squared errors of all members added up, each averaged over outputs; one number a row."""
    each = prediction.unflatten(-1, (-1, y.shape[-1]))
    errors: Tensor = (each - y.unsqueeze(-2)).square().mean(-1).sum(-1)
    return errors


def squared_error_of_the_mean(
    prediction: Float[Tensor, "rows members_outputs"], y: Float[Tensor, "rows outputs"]
) -> Float[Tensor, " rows"]:
    """Squared error of the members' mean, averaged over outputs; one number a row."""
    errors: Tensor = (prediction.unflatten(-1, (-1, y.shape[-1])).mean(-2) - y).square().mean(-1)
    return errors
