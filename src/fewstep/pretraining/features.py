"""Features of all images, computed once: the second stage never sees an image."""

import dataclasses
import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewstep.data import Dataset, l2_normalise
from fewstep.data.cache import cache_folder
from fewstep.files import write_atomically
from fewstep.networks.backbone import Backbone
from fewstep.pretraining.pretrain import Pretraining, pretrain

_log = logging.getLogger(__name__)

_Split = TypeVar("_Split", bound=str)

_SOURCES = (Backbone, pretrain, l2_normalise, write_atomically)
"""One object of each module whose source decides the features' bits, beside this one."""


@final
class FeatureExtractor(nn.Module):
    """Images to feature vectors: a backbone up to one of its blocks, averaged over space, scaled to length 1.

    Frozen: it holds no gradients, is always in evaluation mode and computes in its weights' dtype, float32.

    Args:
        backbone: trained network; its blocks up to ``block`` are copied.
        block: which block's output, from 1.
        normalise: scale every vector to unit Euclidean length, as the LEO authors' code does.

    Raises:
        ValueError: if there is no such block.
    """

    def __init__(self, backbone: Backbone, block: int, *, normalise: bool = True) -> None:
        super().__init__()
        # Channels-last, as in training: fastest on a CPU, and the format decides the last bits of the result.
        part = backbone.up_to(block).requires_grad_(False).eval()
        self.backbone: Backbone = part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.block, self.normalise = block, normalise

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Evaluation mode, whatever is asked for: a frozen network's running statistics must not move."""
        return super().train(False)

    @property
    def features(self) -> int:
        """D, length of a feature vector."""
        return self.backbone.channels[-1]

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "rows channels height width"], batch: int = 1024
    ) -> Float[Tensor, "rows features"]:
        """Features of images with ink 1 and paper 0, so many at a time.

        Args:
            images: of any floating-point dtype, on any device.
            batch: how many images pass through the network at once.

        Returns:
            float32 ``[rows, D]`` on the extractor's device.

        Raises:
            ValueError: if the images' channels are not those the network was trained on.
        """
        if images.dim() != 4 or images.shape[1] != self.backbone.inputs:
            raise ValueError(
                f"features: images must be [rows, {self.backbone.inputs}, height, width], got {list(images.shape)}."
            )
        weight = next(self.backbone.parameters())
        parts = [torch.empty(0, self.features, dtype=weight.dtype, device=weight.device)]
        for part in images.split(batch):
            x = part.to(weight).contiguous(memory_format=torch.channels_last)
            parts.append(self.backbone.features(x, self.block))
        features = torch.cat(parts)
        return l2_normalise(features) if self.normalise else features

    def save(self, path: str | Path) -> None:
        """Write weights and settings to a safetensors file, whole or not at all.

        Raises:
            OSError: if the file cannot be written.
        """
        write_atomically(path, save(_contiguous(self.state_dict()), self._metadata()))

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> "FeatureExtractor":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is damaged or no feature extractor.
        """
        try:
            with safe_open(path, "pt") as file:
                return cls._rebuild(_tensors(file), file.metadata()).to(device)
        except FileNotFoundError:
            raise
        except (SafetensorError, KeyError, TypeError, RuntimeError, OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged or is no feature extractor: {error}") from error

    def _metadata(self) -> dict[str, str]:
        network = {name: getattr(self.backbone, name) for name in ("channels", "inputs", "pools")}
        return {"fewstep": json.dumps(network | {"normalise": self.normalise})}

    @classmethod
    def _rebuild(cls, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> "FeatureExtractor":
        network: dict[str, Any] = json.loads(metadata["fewstep"])
        normalise = network.pop("normalise")
        extractor = cls(Backbone(None, **network), len(network["channels"]), normalise=normalise)
        extractor.load_state_dict(weights)
        return extractor


def embed(
    backbone: Backbone | FeatureExtractor,
    dataset: Dataset,
    block: int | None = None,
    *,
    normalise: bool = True,
    device: torch.device | str = "cpu",
    batch: int = 1024,
) -> Dataset:
    """The features of all images of a dataset.

    Args:
        backbone: a trained network; or an extractor, which knows its block and whether to normalise.
        dataset: images ``[n, channels, height, width]``.
        block: whose output, from 1.
        normalise: scale every vector to unit Euclidean length.
        device: where to compute, and where the features will lie.
        batch: images at a time.

    Returns:
        float32 ``[n, D]`` in class order, with the same classes, names and sizes.

    Raises:
        ValueError: if there is no such block, or the images do not fit the network.
    """
    if isinstance(backbone, FeatureExtractor):
        extractor = backbone
    elif block is None:
        raise ValueError("embed: say which block's output the features are.")
    else:
        extractor = FeatureExtractor(backbone, block, normalise=normalise)
    return _like(dataset, _embedded(extractor, dataset, torch.device(device), batch))


def _embedded(
    extractor: FeatureExtractor, dataset: Dataset, device: torch.device, batch: int = 1024
) -> Float[Tensor, "rows features"]:
    extractor = extractor.to(device)
    return torch.cat([extractor(x, batch) for x in _blocks(dataset, batch)])


def cached_features(
    images: Mapping[_Split, Dataset],
    config: Pretraining,
    *,
    seed: int = 0,
    normalise: bool = True,
    device: torch.device | str = "cpu",
    folder: str | Path | None = None,
    report: Callable[[str], None] | None = None,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> tuple[dict[_Split, Dataset], FeatureExtractor]:
    """Pretrain on ``images["train"]`` and embed every split; or read from the cache what an earlier call computed.

    The cache's key is everything that the numbers depend on: all images and class boundaries, settings, seed, the
    source text of the modules involved, torch's version, the device and, on a CPU, the number of threads.

    Args:
        images: datasets of images by split; one must be "train".
        config: settings of the pretraining, with the block.
        seed: of the pretraining.
        normalise: scale every feature vector to unit Euclidean length.
        device: where to compute, and where the features will lie.
        folder: of the cache; ``$FEWSTEP_CACHE`` or the user's cache folder when omitted.
        report: receives a sentence when work begins and ends.
        progress: see :func:`pretrain`.

    Returns:
        The features by split, and what maps further images to such features.

    Raises:
        ValueError: if there is no training split, or as :func:`pretrain` does.
    """
    if "train" not in images:
        raise ValueError(f"features: a split named 'train' is needed to pretrain on, got {sorted(images)}.")
    say = report or _log.info
    device, config = torch.device(device), config.resolved(device)
    path = cache_folder(folder) / f"features-{_key(images, config, seed, normalise, device)}.safetensors"
    cached = _read(path, images, device)
    if cached is not None:
        say(f"features: taken from {path}")
        return cached
    train: Dataset = dict(images)["train"]  # type: ignore[index]
    say(f"pretraining: {config.epochs} epochs on {len(train)} images of {train.classes} classes ({config.precision})")
    backbone = pretrain(train, config, seed=seed, device=device, progress=progress)
    extractor = FeatureExtractor(backbone, config.block, normalise=normalise)
    rows = {split: _embedded(extractor, dataset, device) for split, dataset in images.items()}
    features = {split: _like(dataset, rows[split]) for split, dataset in images.items()}
    try:
        tensors = {f"features/{split}": tensor for split, tensor in rows.items()}
        weights = {f"extractor/{name}": tensor for name, tensor in extractor.state_dict().items()}
        stored = _contiguous(tensors | weights)
        write_atomically(path, save(stored, extractor._metadata() | {"digest": _digest(stored)}))
        say(f"features: kept in {path}")
    except OSError as error:
        _log.warning("cannot keep the features in %s (%s); the next run computes them again", path, error)
    return features, extractor


def _read(
    path: Path, images: Mapping[_Split, Dataset], device: torch.device
) -> tuple[dict[_Split, Dataset], FeatureExtractor] | None:
    """What the cache holds; None if there is nothing or the file is damaged."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            tensors, metadata = _tensors(file), file.metadata()
        # safetensors checks that the sizes fit the file, but not the numbers.
        if _digest(tensors) != metadata["digest"]:
            raise ValueError("its numbers do not match its digest")
        weights = {name.removeprefix("extractor/"): t for name, t in tensors.items() if name.startswith("extractor/")}
        extractor = FeatureExtractor._rebuild(weights, metadata).to(device)
        return {s: _like(dataset, tensors[f"features/{s}"].to(device)) for s, dataset in images.items()}, extractor
    except (SafetensorError, KeyError, TypeError, RuntimeError, OSError, ValueError) as error:
        _log.warning("the cached features in %s are unreadable (%s); computing them again", path, error)
        return None


def _key(
    images: Mapping[_Split, Dataset], config: Pretraining, seed: int, normalise: bool, device: torch.device
) -> str:
    """Everything that the numbers depend on, as 20 hexadecimal digits."""
    where = f"cpu {torch.get_num_threads()}" if device.type == "cpu" else device.type
    settings = [dataclasses.asdict(config), seed, normalise, torch.__version__, where]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for part in (*_SOURCES, FeatureExtractor):
        digest.update(inspect.getsource(sys.modules[part.__module__]).encode())
    for split in sorted(images):
        dataset = images[split]
        # Names may be written otherwise; what matters is which images are of one class.
        digest.update(json.dumps([split, dataset.offsets.tolist(), dataset.feature_shape]).encode())
        for rows in _blocks(dataset, 4096):
            digest.update(rows.numpy().tobytes())
    return digest.hexdigest()[:20]


def _tensors(file: Any) -> dict[str, Tensor]:
    names: list[str] = file.keys()
    return {name: file.get_tensor(name) for name in names}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _blocks(dataset: Dataset, rows: int) -> Iterator[Float[Tensor, "rows *features"]]:
    """A dataset's rows in class order, so many at a time."""
    for start in range(0, len(dataset), rows):
        yield dataset.gather(np.arange(start, min(start + rows, len(dataset))))


def _like(dataset: Dataset, rows: Tensor) -> Dataset:
    """Other rows with the classes of a dataset."""
    return Dataset.from_sorted(rows, dataset.offsets, dataset.class_names, name=dataset.name, split=dataset.split)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
