"""A start generated from the task itself: encode the support, relate its examples, decode codes into weights."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.core.loss import Reduction
from fewstep.core.network.slots import require_slots
from fewstep.core.noise import Noise, Normal, Sites
from fewstep.core.start.base import Start
from fewstep.core.start.pairs import WHOLE, mean_over_pairs
from fewstep.core.tree import stopped_square
from fewstep.core.types import Batch, Params, Penalties, Point

FLOOR = 1e-10
"""The smallest standard deviation that the authors' code allows."""


@dataclass(frozen=True)
class Formulation:
    """What the LEO paper and its authors' code write differently, or the paper leaves open.

    Attributes:
        codes: ``"copies"``: every support row owns a code with noise of its own, all codes of a class share their
            mean and deviation, and a class's logit is the mean over its codes. ``"class"``: one code a class. In
            evaluation the K copies of a class are one code with rates divided by K.
        deviation: of a raw scale u. ``"expm1"``: σ = max(eᵘ − 1 + s, 1e-10). ``"exp"``: σ = s·eᵘ, with s = 1 for
            codes. ``"sigmoid"``: σ = 2s/(1 + e⁻ᵘ), nobody's: bounded by 2s, so that a long step in latent space does
            not end in noise without limits. For weights, s = √(2/(ways + features)) in all of them, Glorot's deviation.
        kl: ``"sample"``: log q(z) − log p(z) at the drawn code. ``"analytic"``:
            ½(σ² + μ² − 1) − log σ.
        reduction: of the KL and of the encoder penalty over codes and their dimensions. ``"sum"`` sums them, as the
            paper's norms do; ``"mean"`` averages over dimensions and copies and classes.

    Example:
        >>> sampled = Formulation(codes="class", kl="sample")
        >>> sampled.spread(torch.tensor([-9.0, 0.0, 1.0]), at_zero=0.5)  # deviations of raw scales
        tensor([1.0000e-10, 5.0000e-01, 2.2183e+00])
    """

    codes: Literal["copies", "class"] = "copies"
    deviation: Literal["expm1", "exp", "sigmoid"] = "expm1"
    kl: Literal["sample", "analytic"] = "sample"
    reduction: Reduction = "mean"

    def spread(self, raw: Tensor, at_zero: float) -> Tensor:
        """σ of a raw scale, which is ``at_zero`` where that is zero."""
        if self.deviation == "exp":
            return at_zero * raw.exp()
        if self.deviation == "sigmoid":
            return 2 * at_zero * raw.sigmoid()
        return (raw.expm1() + at_zero).clamp(min=FLOOR)

    def draw(
        self, moments: Float[Tensor, "*codes moments"], epsilon: Float[Tensor, "*codes latents"]
    ) -> tuple[Float[Tensor, "*codes latents"], Float[Tensor, "*codes latents"]]:
        """Codes ``z = μ + σ(u) ε`` of moments (μ, u), and the KL to N(0, I) of each of their dimensions."""
        mean, u = moments.chunk(2, dim=-1)
        deviation = self.spread(u, 0.0 if self.deviation == "expm1" else 1.0)
        log_deviation = u if self.deviation == "exp" else deviation.log()  # σ = eᵘ may underflow, u does not
        code = mean + deviation * epsilon
        if self.kl == "sample":
            # log N(z; μ, σ²) − log N(z; 0, 1) through ε: dividing z − μ by a σ at its floor would lose all digits.
            return code, -0.5 * epsilon.square() - log_deviation + 0.5 * code.square()
        return code, 0.5 * (deviation.square() + mean.square() - 1) - log_deviation


OFFICIAL = Formulation()
PAPER = Formulation(codes="class", deviation="exp", kl="analytic", reduction="sum")
BOUNDED = Formulation(codes="class", deviation="sigmoid", kl="analytic", reduction="sum")
"""The paper's text, with deviations that cannot exceed twice what they are for a raw scale of zero."""


class Relation(nn.Module):
    """The relation network: a three-layer ReLU network on every ordered pair of examples, averaged over pairs.

    ``r_n = 1/(N K²) Σ_{k,m,k'} g([h_{nk}, h_{mk'}])``, linear at the end and without biases (Eq. 3, B.3).

    All (NK)² pairs are needed only in the middle. The first layer acts on a concatenation, so it is the sum of two
    products of single examples; the last is linear and is followed by means, so the means come first. Many pairs are
    made a block at a time, and again for the derivatives: memory grows with NK and not with its square, but in compiled
    code. Equal to the plain evaluation up to rounding.

    Args:
        inputs: width of an encoded example, H.
        outputs: width of the result.
        hidden: units of the two hidden layers.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        widths = (2 * inputs, hidden, hidden, outputs)
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))

    def forward(
        self, h: Float[Tensor, "rows inputs"], by_class: Float[Tensor, "ways rows"], weight: Float[Tensor, " rows"]
    ) -> Float[Tensor, "ways outputs"]:
        """Relate encoded rows; ``by_class`` averages rows within classes, ``weight`` is 0 for padded rows."""
        first, second, last = (layer.get_parameter("weight") for layer in self.layers)
        left, right = (h @ half.T for half in first.chunk(2, dim=1))
        share = weight / weight.sum()
        if len(h) ** 2 * len(first) > WHOLE and not torch.compiler.is_compiling():
            related: Tensor = mean_over_pairs(left[None], right[None], second, share[None])[0]
        else:
            pairs = _relu(_relu(left.unsqueeze(1) + right.unsqueeze(0)) @ second.T)
            related = (pairs * share.unsqueeze(1)).sum(1)
        return (by_class @ related) @ last.T


class Generator(Start):
    """LEO's start: class-conditional latent codes, decoded into the weights of a linear classifier.

    ``h = W_e x`` · ``(μ_n, u_n) = relate(h)`` · ``z_n ~ N(μ_n, σ(u_n)²)`` · ``(μ_w, v_w) = W_d z_n`` ·
    ``w_n ~ N(μ_w, σ(v_w)²)`` (Rusu et al. 2019, Eq. 3 and 4). In evaluation means take the place of samples.

    The point is ``code`` ``[codes, latents]``. Where a class has several codes, its context is ``mix``
    ``[ways, codes]``, which averages them. Decoding fills the slot ``weight`` ``[ways, features]`` of a
    :class:`~fewstep.networks.Generated` head, and then also its ``share``. Any number of ways and shots is fine at
    any time.

    A class's K codes act on its logit through the mean of their weights alone, w̄, and a step of rate α on each of
    them moves w̄ by α/K times its slope. So does a step of rate α on √K·w̄: that is what is decoded, and
    ``share`` is 1/√K. Fine-tuning then moves one vector a class instead of K, to the same numbers.

    Args:
        features: D, width of the inputs that the head classifies.
        latents: H, width of a code.
        hidden: units of the relation network's hidden layers.
        kl_weight: β ≥ 0 of Eq. 6.
        encoder_penalty_weight: γ ≥ 0 of Eq. 6.
        formulation: the authors' code, or the paper's text.
        head: prefix of the head's slots in the network, for a head inside a larger module (``"head."``).
        stochastic: False: codes and weights are their means in meta-training too, there is no KL, and nothing that
            would give a deviation (the paper's "deterministic").
        encoded: False: codes are drawn from N(0, I) whatever the task, and are zero in evaluation; there is no encoder,
            no relation network and no penalty on either (the paper's "random prior").

    Example:
        >>> start = Generator(8, latents=3)
        >>> support = Batch(*(tensor[0] for tensor in clusters.support))  # two examples of each of three classes
        >>> point, _ = start.begin(Generated(), support, None)
        >>> point.value["code"].shape, start.decode(point, None).value["weight"].shape
        (torch.Size([6, 3]), torch.Size([3, 8]))
    """

    def __init__(
        self,
        features: int,
        latents: int,
        *,
        hidden: int | None = None,
        kl_weight: float = 0.0,
        encoder_penalty_weight: float = 0.0,
        formulation: Formulation = OFFICIAL,
        head: str = "",
        stochastic: bool = True,
        encoded: bool = True,
    ) -> None:
        super().__init__()
        self.features, self.latents = features, latents
        self.kl_weight, self.encoder_penalty_weight = kl_weight, encoder_penalty_weight
        self.formulation, self.head = formulation, head
        self.stochastic, self.encoded = stochastic, encoded
        moments = 2 if stochastic else 1  # a mean, and what the deviation is made of
        if encoded:
            self.encoder = nn.Linear(features, latents, bias=False)
            self.relation = Relation(latents, moments * latents, 2 * latents if hidden is None else hidden)
        self.decoder = nn.Linear(latents, moments * features, bias=False)
        for matrix in self.parameters():
            nn.init.xavier_uniform_(matrix)

    def begin(self, network: nn.Module, support: Batch, noise: Noise) -> tuple[Point, Penalties]:
        """Encode and relate the support; draw one code a row or a class; penalise its distance from N(0, I)."""
        members = support.y.T * support.weight
        by_class = members / members.sum(1, keepdim=True)
        context: Params = {"mix": by_class} if self._copies(support) else {}
        if not self.encoded:
            drawn = noise is not None and self.stochastic
            code = noise["code"] if drawn else support.x.new_zeros(self._codes(support), self.latents)
            return Point({"code": code}, context), {}
        moments = self.relation(self.encoder(support.x), by_class, support.weight)
        if context:
            moments = members.T @ moments
        if noise is None or not self.stochastic:
            return Point({"code": moments[:, : self.latents]}, context), {}
        code, kl = self.formulation.draw(moments, noise["code"])
        point = Point({"code": code}, context)
        return point, {"kl": self.kl_weight * self._reduce(kl, point)}

    def decode(self, point: Point, noise: Noise) -> Point:
        """The weights of a code: their mean, or in meta-training a sample."""
        code, mix = point.value["code"], point.context.get("mix")
        to_mean, *to_deviation = self.decoder.weight.split(self.features)
        if noise is None or not self.stochastic:
            mean = (code if mix is None else mix @ code) @ to_mean.T
        else:
            if mix is None:
                mean, v = (code @ self.decoder.weight.T).chunk(2, dim=-1)
            else:  # of the means only the class average matters; the deviations multiply draws of their own
                mean, v = (mix @ code) @ to_mean.T, code @ to_deviation[0].T
            spread = self.formulation.spread(v, math.sqrt(2 / (len(mean) + self.features))) * noise["weight"]
            mean = mean + (spread if mix is None else mix @ spread)
        if mix is None:
            return Point({f"{self.head}weight": mean}, {})
        share = mix.square().sum(1, keepdim=True).sqrt()
        return Point({f"{self.head}weight": mean / share}, {f"{self.head}share": share})

    def adapted_names(self, network: nn.Module, decoded: bool) -> Collection[str]:
        """Codes, or the weights of the head; the network must have that head."""
        require_slots(network, {f"{self.head}weight"})
        return {f"{self.head}weight"} if decoded else {"code"}

    def start_parameters(self, network: nn.Module) -> set[str]:
        """Encoder and relation network."""
        return {f"start.{name}" for name, _ in self.named_parameters() if not name.startswith("decoder")}

    def penalise(self, begun: Point, ended: Point) -> Penalties:
        """``γ ‖z − stop(z')‖²``: the encoder should begin where adaptation would have ended (Eq. 6)."""
        if not self.encoded:
            return {}
        distance = stopped_square(begun.value["code"], ended.value["code"])
        return {"encoder_penalty": self.encoder_penalty_weight * self._reduce(distance, begun)}

    def begin_sites(self, network: nn.Module, support: Batch) -> Sites:
        """One standard-normal number per code and latent dimension."""
        return {"code": Normal((self._codes(support), self.latents))} if self.stochastic else {}

    def decode_sites(self, support: Batch) -> Sites:
        """One standard-normal number per code and feature."""
        return {"weight": Normal((self._codes(support), self.features))} if self.stochastic else {}

    def _codes(self, support: Batch) -> int:
        return len(support.y) if self._copies(support) else support.y.shape[1]

    def _copies(self, support: Batch) -> bool:
        """Whether classes have more than one code: with one shot the formulations have the same codes."""
        return self.formulation.codes == "copies" and len(support.y) > support.y.shape[1]

    def _reduce(self, entries: Float[Tensor, "codes latents"], point: Point) -> Float[Tensor, ""]:
        """Mean over dimensions, over the codes of a class and over classes, or the sum over all classes' codes."""
        # Padded codes have weight zero in the mix.
        by_class = point.context["mix"] @ entries if "mix" in point.context else entries
        return by_class.sum() if self.formulation.reduction == "sum" else by_class.mean()


def _relu(x: Tensor) -> Tensor:
    # Of the pairs, the largest tensors here. torch.relu's derivative keeps a boolean mask, and inductor reads and
    # writes those one by one on a CPU: this form made the compiled 5-shot step a third faster, and costs nothing else.
    return 0.5 * (x + x.abs())
