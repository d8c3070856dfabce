"""A start that generates a network: one latent code a task, decoded into all parameters that were named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fewstep.core.loss import Reduction
from fewstep.core.network.slots import Slot, require_slots
from fewstep.core.noise import Noise, Normal, Sites
from fewstep.core.start.base import Start
from fewstep.core.start.generator import PAPER, Formulation, Relation
from fewstep.core.tree import stopped_square
from fewstep.core.types import Batch, Penalties, Point


class NetworkGenerator(Start):
    """LEO's start in the general case: one code, conditioned on inputs and labels, generates a whole network.

    ``h_k = g_e([x_k, y_k])`` · ``(μ, u) = 1/K² Σ_{k,m} g_r([h_k, h_m])`` · ``z ~ N(μ, σ(u)²)`` ·
    ``(m, v) = g_d(z)`` · ``θ ~ N(c + s∘m, (s∘σ(v))²)`` (Rusu et al. 2019, sections 2.3.2 and 2.3.5). In evaluation
    means take the place of samples, unless noise is passed there too (see ``Method.adapt``). The three networks are
    multi-layer perceptrons without biases, with ReLU between the layers; padded rows count for nothing.

    The point is ``code`` ``[latents]``; decoding gives every slot its tensor, under the slot's name. Parameters of the
    network that are not generated are meta-learned, and the same for all tasks. Every decoding draws its parameters
    anew, as the authors' code does for classification.

    Where this goes beyond the paper, which says nothing on scales: c and s are the slots' centres and deviations, so
    that m = 0 is an average network and m of unit size one as Glorot's initialisation makes it. The decoder's hidden
    layers and means begin at the gain that keeps the second moment of a code, encoder and relation network at Glorot's.

    Args:
        slots: what is generated, from :func:`~fewstep.core.network.slots` of the network.
        inputs: entries of one input row x, all axes flattened.
        outputs: entries of one label y: targets of a regression, or the number of ways.
        latents: n_z, width of the code.
        hidden: units of every hidden layer of the three networks.
        encoder_depth: linear layers of the encoder, ≥ 1. The relation network always has three.
        decoder_depth: linear layers of the decoder, ≥ 1; 1 is a linear decoder.
        kl_weight: β ≥ 0 of Eq. 6.
        encoder_penalty_weight: γ ≥ 0 of Eq. 6.
        spread: σ(0) ≥ 0 of the parameters, in units of s. 0: they are their means, and nothing gives a deviation.
        formulation: of deviations, KL and penalties; its ``codes`` have no meaning here.
        average: meta-learn θ̄ in ``θ ~ N(c + s∘(θ̄ + m), …)``, a fresh network at first. Without it (the paper has no
            biases) the zero code decodes to c, which is no network at all, and codes have to grow before they say much.

    Raises:
        ValueError: for no slots, a depth of zero or a negative spread.

    Example:
        >>> network = mlp((1, 40, 1))
        >>> start = NetworkGenerator(slots(network), inputs=1, outputs=1, latents=16)
        >>> method = Method(Learner(network, start, [], loss=regression()), Backprop())
        >>> method.adapt(sines.support).value["0.weight"].shape  # a network for each of the four tasks
        torch.Size([4, 40, 1])
    """

    scale: Tensor
    centre: Tensor

    def __init__(
        self,
        slots: Mapping[str, Slot],
        inputs: int,
        outputs: int,
        latents: int = 16,
        *,
        hidden: int = 32,
        encoder_depth: int = 3,
        decoder_depth: int = 3,
        kl_weight: float = 0.0,
        encoder_penalty_weight: float = 0.0,
        spread: float = 1.0,
        formulation: Formulation = PAPER,
        average: bool = False,
    ) -> None:
        super().__init__()
        if not slots:
            raise ValueError("NetworkGenerator: there is nothing to generate; make slots of a network's parameters.")
        if encoder_depth < 1 or decoder_depth < 1:
            raise ValueError(
                "NetworkGenerator: encoder and decoder need at least one layer each, got encoder_depth "
                f"{encoder_depth} and decoder_depth {decoder_depth}."
            )
        if not spread >= 0:
            raise ValueError(f"NetworkGenerator: spread is a deviation ≥ 0, got {spread}.")
        self.shapes = {name: slot.shape for name, slot in slots.items()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.inputs, self.outputs, self.latents = inputs, outputs, latents
        self.kl_weight, self.encoder_penalty_weight = kl_weight, encoder_penalty_weight
        self.spread, self.formulation = spread, formulation
        for field in ("deviation", "centre"):
            each = [torch.full((size,), getattr(s, field)) for size, s in zip(self.sizes, slots.values(), strict=True)]
            self.register_buffer("scale" if field == "deviation" else field, torch.cat(each), persistent=False)
        size = sum(self.sizes)
        self.encoder = _mlp((inputs + outputs, *[hidden] * (encoder_depth - 1), latents))
        self.relation = Relation(latents, 2 * latents, hidden)
        self.decoder = _mlp((latents, *[hidden] * (decoder_depth - 1), (2 if spread else 1) * size))
        for matrix in self.parameters():
            nn.init.xavier_uniform_(matrix)
        self.average = nn.Parameter(torch.randn(size)) if average else None
        with torch.no_grad():
            *inner, last = self.decoder.parameters()
            for matrix in inner:
                nn.init.kaiming_uniform_(matrix, nonlinearity="relu")
            nn.init.kaiming_uniform_(last[:size], nonlinearity="linear")

    @property
    def decoder_layers(self) -> tuple[str, ...]:
        """Names of the decoder's matrices: each has an orthogonality constraint of its own (section 2.3.4)."""
        return tuple(f"decoder.{name}" for name, _ in self.decoder.named_parameters())

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """The code, or all slots; the network must have them."""
        require_slots(network, self.shapes)
        return self.shapes if decoded else {"code"}

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """Encode the rows, relate all pairs, draw the code; penalise its distance from N(0, I).

        Raises:
            ValueError: when rows do not have as many inputs and outputs as the encoder was made for.
        """
        x, y = support.x.flatten(1), support.y
        if (x.shape[1], y.shape[1]) != (self.inputs, self.outputs):
            raise ValueError(
                f"NetworkGenerator: a row has {x.shape[1]} inputs and {y.shape[1]} outputs, but the encoder was made "
                f"for {self.inputs} and {self.outputs}."
            )
        share = (support.weight / support.weight.sum()).unsqueeze(0)
        moments = self.relation(self.encoder(torch.cat([x, y], dim=1)), share, support.weight)[0]
        if noise is None:
            return Point({"code": moments[: self.latents]}, {}), {}
        code, kl = self.formulation.draw(moments, noise["code"])
        return Point({"code": code}, {}), {"kl": self.kl_weight * _reduced(kl, self.formulation.reduction)}

    def decode(self, point: Point, noise: Noise) -> Point:
        """The generated parameters of a code: their means, or where there is noise a sample."""
        mean, *v = self.decoder(point.value["code"]).split(len(self.scale))
        if self.average is not None:
            mean = mean + self.average
        if noise is not None and v:
            mean = mean + self.formulation.spread(v[0], self.spread) * noise["parameters"]
        parts = (self.centre + self.scale * mean).split(self.sizes)
        return Point({n: part.view(shape) for (n, shape), part in zip(self.shapes.items(), parts, strict=True)}, {})

    def start_parameters(self, network: nn.Module) -> set[str]:
        """Encoder and relation network."""
        return {f"start.{name}" for name, _ in self.named_parameters() if name.startswith(("encoder", "relation"))}

    def penalise(self, begun: Point, ended: Point) -> Penalties:
        """``γ ‖z − stop(z')‖²``: the encoder should begin where adaptation would have ended (Eq. 6)."""
        distance = stopped_square(begun.value["code"], ended.value["code"])
        return {"encoder_penalty": self.encoder_penalty_weight * _reduced(distance, self.formulation.reduction)}

    def begin_sites(self, network: nn.Module, support: Batch) -> Sites:
        """One standard-normal number per latent dimension."""
        return {"code": Normal((self.latents,))}

    def decode_sites(self, support: Batch) -> Sites:
        """One standard-normal number per generated parameter."""
        return {"parameters": Normal((len(self.scale),))} if self.spread else {}


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.ReLU(), nn.Linear(a, b, bias=False)]
    return nn.Sequential(*layers[1:])


def _reduced(entries: Tensor, reduction: Reduction) -> Tensor:
    return entries.sum() if reduction == "sum" else entries.mean()
