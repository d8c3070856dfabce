"""A start between other starts."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.core.noise import Noise
from fewstep.core.start.base import Start
from fewstep.core.types import Batch, Params, Penalties, Point


class Blend(Start):
    """A weighted sum of what several starts begin at: ``φ₀ = Σ_j s_j φ₀ⱼ``.

    Starts of the same values, such as :class:`Prototypes` with no parameters to move and :class:`Ridge`. The shares s
    are no meta-parameters but a choice, such as one on validation tasks after training; they are saved with the rest.

    Args:
        starts: of points with the same names and shapes, which already are weights.
        shares: s, one for each start; all of the first one when omitted.

    Raises:
        ValueError: without a start, or for another number of shares.

    Example:
        >>> support = Batch(torch.tensor([[0.0], [2.0]]), torch.eye(2), torch.ones(2))
        >>> half = Blend(Prototypes(()), Ridge(), shares=(0.5, 0.5))
        >>> point, _ = half.begin(Generated(), support, None)
        >>> point.value["weight"].detach().flatten().tolist()  # halfway between 0, 4 and -1/3, 1/3
        [-0.1666666716337204, 2.1666667461395264]
    """

    shares: Tensor

    def __init__(self, *starts: Start, shares: Sequence[float] | None = None) -> None:
        super().__init__()
        given = (1.0,) + (0.0,) * (len(starts) - 1) if shares is None else tuple(shares)
        if not starts or len(given) != len(starts):
            raise ValueError(f"Blend: one share for each of at least one start; got {len(starts)} and {len(given)}.")
        self.starts: Sequence[Start] = nn.ModuleList(starts)  # type: ignore[assignment]  # torch types entries as modules
        self.register_buffer("shares", torch.tensor(given))

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """The sum of the starts' values; all their penalties.

        Raises:
            ValueError: when the starts have other names, or values that decoding needs.
        """
        own = [None] * len(self.starts) if noise is None else noise["starts"]
        begun = [start.begin(network, support, drawn) for start, drawn in zip(self.starts, own, strict=True)]
        points, penalties = [point for point, _ in begun], [penalty for _, penalty in begun]
        names = {tuple(sorted(point.value)) for point in points}
        if len(names) > 1 or any(point.context for point in points):
            raise ValueError(f"Blend: its starts begin at other values: {', '.join(map(str, sorted(names)))}.")
        value: Params = {
            name: sum(share * point.value[name] for share, point in zip(self.shares, points, strict=True))
            for name in points[0].value
        }
        return Point(value, {}), {name: penalty for found in penalties for name, penalty in found.items()}

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str] | None:
        """Those of the first start that knows them."""
        known = [start.adapted_names(network, decoded) for start in self.starts]
        return next((names for names in known if names is not None), None)

    def begin_sites(self, network: nn.Module, support: Batch) -> dict[str, Any]:
        """Those of all starts."""
        return {"starts": [dict(start.begin_sites(network, support)) for start in self.starts]}

    def decode(self, point: Point, noise: Noise) -> Point:
        """Return the point unchanged: its values already are weights."""
        return point

    def start_parameters(self, network: nn.Module) -> set[str]:
        """Those of all starts."""
        return {
            name.replace("start.", f"start.starts.{i}.", 1) if name.startswith("start.") else name
            for i, start in enumerate(self.starts)
            for name in start.start_parameters(network)
        }
