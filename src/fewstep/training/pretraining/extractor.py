"""Images to feature vectors, by a trained network."""

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.data import l2_normalise
from fewstep.data.images.crops import views
from fewstep.data.images.files import Reading
from fewstep.data.storage.reading import reading
from fewstep.data.storage.tensors import read_metadata, read_tensors, write_tensors
from fewstep.training.pretraining.options import Architecture, structure, unstructure
from fewstep.training.pretraining.standardised import Standardised


class _Reached(Exception):
    """Carries the activations of the layer that was wanted: nothing after it is needed."""


def _stop(module: nn.Module, arguments: Any, activations: Tensor) -> None:
    raise _Reached(activations)


@final
class FeatureExtractor(nn.Module):
    """Images to feature vectors: a layer's activations, averaged over space and over views, scaled to length 1.

    ``f(x) = mean over views v of mean over space of h_layer(v(x))``. Frozen: it holds no gradients, is always in
    evaluation mode and computes in its weights' dtype, float32, unless the caller autocasts.

    Args:
        network: a trained network.
        architecture: what it was built from.
        layer: whose activations: ``"middle"``, ``"last"``, the number of a convolution, or a submodule's name, as
            :meth:`Backbone.layer <fewstep.networks.backbone.Backbone.layer>` reads it.
        views: the centre of an image; or the mean over the four corners, the centre and the mirror images of all five
            (Qiao et al. 2018), ``"multiview"``.
        side: of a view, in pixels. None: the whole image is the only view.
        normalise: scale every vector to unit Euclidean length, as the LEO authors' code does.
        reading: how image files are read for it, where that is known: images of another size are then refused.

    Raises:
        ValueError: if there is no such layer, or for ten views of whole images.
    """

    def __init__(
        self,
        network: Standardised,
        architecture: Architecture,
        layer: str = "middle",
        *,
        views: Literal["center", "multiview"] = "center",
        side: int | None = None,
        normalise: bool = True,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.layer = network.backbone.layer(layer)
        if views not in ("center", "multiview"):
            raise ValueError(f"features: views must be 'center' or 'multiview', not {views!r}.")
        if views == "multiview" and side is None:
            raise ValueError("features: corners need a side, the number of pixels of a view: give one.")
        # Channels-last, as in training: fastest on a CPU, and the format decides the last bits of the result.
        frozen = copy.deepcopy(network).requires_grad_(False).eval()
        self.network: Standardised = frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # For good, so that threads may share it: nothing follows this layer, for nobody.
        self.network.backbone.get_submodule(self.layer).register_forward_hook(_stop)
        self.architecture, self.views, self.side, self.normalise = architecture, views, side, normalise
        self.reading = reading
        self.classes = len(torch.as_tensor(network.backbone.head.weight))
        # What the layer gives is known by trying: any submodule may be asked for.
        smallest = network.backbone.smallest
        weight = next(network.parameters())
        self.features = self._pooled(weight.new_zeros(1, network.backbone.inputs, smallest, smallest)).shape[1]

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Evaluation mode, whatever is asked for: a frozen network's running statistics must not move."""
        return super().train(False)

    @property
    def inputs(self) -> int:
        """Channels of the images."""
        return self.network.backbone.inputs

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "rows channels height width"], batch: int = 512
    ) -> Float[Tensor, "rows features"]:
        """Features of images from 0 to 1, so many at a time.

        Args:
            images: of any floating-point dtype, on any device.
            batch: how many views pass through the network at once.

        Returns:
            float32 ``[rows, D]`` on the extractor's device.

        Raises:
            ValueError: if the images' channels are not those the network was trained on, they are of another size
                than they are read in, too small, or bytes.
        """
        if images.dim() != 4 or images.shape[1] != self.inputs:
            raise ValueError(
                f"features: images must be [rows, {self.inputs}, height, width], got {list(images.shape)}."
            )
        if not images.is_floating_point():
            raise ValueError(f"features: images must be numbers from 0 to 1, got {images.dtype}: divide bytes by 255.")
        if self.reading is not None and any(side != self.reading.size for side in images.shape[2:]):
            raise ValueError(
                f"features: images must have {self.reading.size} × {self.reading.size} pixels, as in training, got "
                f"{images.shape[2]} × {images.shape[3]}: read them by reading.folder(path)."
            )
        sides = (*images.shape[2:], *(() if self.side is None else (self.side,)))
        shorter, smallest = min(sides), self.network.backbone.smallest
        if shorter < smallest:
            raise ValueError(
                f"features: views must have {smallest} pixels or more on either side, got {shorter}; "
                "enlarge the images, or give a larger side."
            )
        weight = next(self.network.parameters())
        parts = [torch.empty(0, self.features, dtype=weight.dtype, device=weight.device)]
        seen = 10 if self.views == "multiview" else 1
        for part in images.split(max(1, batch // seen)):
            x = part.to(weight)
            shown = x[None] if self.side is None else views(x, self.side, self.views)
            pooled = self._pooled(shown.flatten(0, 1).contiguous(memory_format=torch.channels_last))
            parts.append(pooled.to(weight).unflatten(0, shown.shape[:2]).mean(0))
        features = torch.cat(parts)
        return l2_normalise(features) if self.normalise else features

    def _pooled(self, x: Tensor) -> Float[Tensor, "rows features"]:
        try:
            with torch.no_grad():
                self.network(x)
        except _Reached as reached:
            activations: Tensor = reached.args[0]
        else:
            raise ValueError(f"features: the layer {self.layer!r} takes no part in the network's forward pass.")
        return activations if activations.dim() == 2 else activations.mean((2, 3))

    def save(self, path: str | Path, *, features: str | None = None) -> None:
        """Write weights and settings to a safetensors file, whole or not at all.

        Args:
            path: the file.
            features: :func:`~fewstep.data.features.export.features_digest` of features that it has made, which the
                file then belongs to: see :func:`features_of`.

        Raises:
            OSError: if the file cannot be written.
        """
        write_tensors(path, self.state_dict(), self.metadata() | ({} if features is None else {"features": features}))

    def needed(self) -> dict[str, Tensor]:
        """The weights of all that its layer depends on: what comes after it is left out."""
        ran = set[str]()
        handles = [
            module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
            for name, module in self.named_modules()
        ]
        try:
            side = self.network.backbone.smallest
            self._pooled(next(self.network.parameters()).new_zeros(1, self.inputs, side, side))
        finally:
            for handle in handles:
                handle.remove()
        return {name: tensor for name, tensor in self.state_dict().items() if name.rpartition(".")[0] in ran}

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> "FeatureExtractor":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or no feature extractor.
        """
        with reading(path, "is no feature extractor"):
            return cls.rebuilt(*read_tensors(path)).to(device)

    def metadata(self) -> dict[str, str]:
        """What :meth:`rebuilt` needs besides the weights."""
        settings = {name: getattr(self, name) for name in ("classes", "inputs", "layer", "views", "side", "normalise")}
        reading = None if self.reading is None else asdict(self.reading)
        return {"fewstep": json.dumps(settings | {"architecture": unstructure(self.architecture), "reading": reading})}

    @classmethod
    def rebuilt(cls, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> "FeatureExtractor":
        """An extractor from its ``state_dict``, or what is :meth:`needed` of it, and its :meth:`metadata`."""
        settings: dict[str, Any] = json.loads(metadata["fewstep"])
        architecture = structure(settings.pop("architecture"), Architecture)
        if (reading := settings.pop("reading", None)) is not None:
            settings["reading"] = Reading(**reading)
        # The first weights are overwritten: drawing them must not move the caller's random state.
        with torch.random.fork_rng(devices=[]):
            network = Standardised(architecture.build(settings.pop("classes"), settings.pop("inputs")))
        extractor = cls(network, architecture, **settings)
        state = extractor.state_dict()
        if lost := sorted(extractor.needed().keys() - weights.keys()):
            raise ValueError(f"{lost[0]} is missing")
        if surplus := sorted(weights.keys() - state.keys()):
            raise ValueError(f"{surplus[0]} is none of its weights")
        extractor.load_state_dict(state | dict(weights))
        return extractor


def features_of(path: str | Path) -> str | None:
    """Which features an extractor's file belongs to: the digest that it was saved with, None without one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    with reading(path, "is no feature extractor"):
        return read_metadata(path).get("features")
