"""Features of all images, computed once: the second stage never sees an image."""

import ast
import dataclasses
import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor

from fewstep.core.ranks import ALONE, Ranks
from fewstep.data import Dataset
from fewstep.data.storage.cache import Report, cache_folder
from fewstep.data.storage.tensors import read_tensors, write_tensors
from fewstep.training.pretraining.extractor import FeatureExtractor
from fewstep.training.pretraining.options import Pretraining
from fewstep.training.pretraining.pretrainer import Progress, pretrain
from fewstep.training.stopping import poll
from fewstep.training.timing import timed

_log = logging.getLogger(__name__)

_Split = TypeVar("_Split", bound=str)


@timed("embedding")
def embed(
    extractor: FeatureExtractor,
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    batch: int = 512,
    ranks: Ranks = ALONE,
) -> Dataset:
    """The features of all images of a dataset.

    Args:
        extractor: images to features.
        dataset: images ``[n, channels, height, width]``.
        device: where to compute, and where the features will lie.
        batch: views at a time.
        ranks: the processes that share the images out, all of which call this and get the same.

    Returns:
        float32 ``[n, D]`` in class order, with the same classes, names and sizes.

    Raises:
        ValueError: if the images do not fit the network.
    """
    extractor = extractor.to(device)
    ranks = ranks if len(dataset) >= ranks.size else ALONE
    rows, own = [], ranks.share(len(dataset))
    for some in dataset.blocks(batch):
        poll()  # between two batches a validation can be stopped
        if len(mine := some[(some >= own.start) & (some < own.stop)]):
            rows.append(extractor(dataset.gather(mine), batch))
    return _with_rows(dataset, ranks.gather(torch.cat(rows), len(dataset)))


def cached_features(
    images: Mapping[_Split, Dataset],
    config: Pretraining,
    layer: str = "middle",
    *,
    seed: int = 0,
    normalise: bool = True,
    device: torch.device | str = "cpu",
    folder: str | Path | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> tuple[dict[_Split, Dataset], FeatureExtractor]:
    """Pretrain on ``images["train"]`` and embed every split; or read from the cache what an earlier call computed.

    The cache's key is everything that the numbers depend on: all images and class boundaries, settings, seed, the
    source text of the modules involved, torch's version, the device and, on a CPU, the number of threads.

    Args:
        images: datasets of images by split; one must be "train".
        config: settings of the pretraining.
        layer: whose activations are the features, see :class:`FeatureExtractor`.
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
    report = report or _log.info
    device, config = torch.device(device), config.resolved(device)
    path = cache_folder(folder) / f"features-{cache_key(images, config, layer, seed, normalise, device)}.safetensors"
    if (cached := _read(path, images, device)) is not None:
        report(f"features: taken from {path}")
        return cached
    train: Dataset = dict(images)["train"]  # type: ignore[index]
    data = f"{len(train)} images of {train.classes} classes"
    report(f"pretraining: {config.epochs} epochs on {data} ({config.precision})")
    network = pretrain(train, config, seed=seed, device=device, progress=progress)
    extractor = FeatureExtractor(network, config.network, layer, normalise=normalise)
    features = {split: embed(extractor, dataset, device=device) for split, dataset in images.items()}
    tensors = {f"extractor/{name}": tensor for name, tensor in extractor.state_dict().items()}
    tensors |= {f"features/{split}": torch.as_tensor(rows.store) for split, rows in features.items()}
    try:
        write_tensors(path, tensors, extractor.metadata())
        report(f"features: kept in {path}")
    except OSError as error:
        hint = "the next run computes them again, unless $FEWSTEP_CACHE is a folder that can be written"
        _log.warning("cannot keep the features in %s (%s); %s", path, error, hint)
    return features, extractor


def _read(
    path: Path, images: Mapping[_Split, Dataset], device: torch.device
) -> tuple[dict[_Split, Dataset], FeatureExtractor] | None:
    """What the cache holds; None if there is nothing or the file is damaged."""
    try:
        tensors, metadata = read_tensors(path)
        weights = {name.removeprefix("extractor/"): t for name, t in tensors.items() if name.startswith("extractor/")}
        extractor = FeatureExtractor.rebuilt(weights, metadata).to(device)
        return {s: _with_rows(dataset, tensors[f"features/{s}"].to(device)) for s, dataset in images.items()}, extractor
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, RuntimeError, OSError, ValueError) as error:
        _log.warning("the cached features in %s are unreadable (%s); computing them again", path, error)
        return None


def cache_key(
    images: Mapping[_Split, Dataset], config: Pretraining, layer: str, seed: int, normalise: bool, device: torch.device
) -> str:
    """Everything that the numbers depend on, as 20 hexadecimal digits."""
    where = f"cpu {torch.get_num_threads()}" if device.type == "cpu" else device.type
    settings = [dataclasses.asdict(config), layer, seed, normalise, torch.__version__, where]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for module in sources(sys.modules[__name__]):
        digest.update(inspect.getsource(module).encode())
    for split in sorted(images):
        dataset = images[split]
        # Names may be written otherwise; what matters is which images are of one class.
        digest.update(json.dumps([split, dataset.offsets.tolist(), dataset.feature_shape]).encode())
        for some in dataset.blocks(4096):
            digest.update(dataset.gather(some).numpy().tobytes())
    return digest.hexdigest()[:20]


def sources(module: ModuleType) -> list[ModuleType]:
    """A module and all of fewstep that it takes names from, directly or through others, by name."""
    package, found, left = __name__.partition(".")[0], {module.__name__: module}, [module]
    while left:
        for node in ast.walk(ast.parse(inspect.getsource(left.pop()))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == package:
                for alias in node.names:
                    value = getattr(import_module(node.module), alias.name)
                    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
                    if name.partition(".")[0] != package:  # of a constant: those know no module
                        name = node.module
                    if name not in found:
                        found[name] = import_module(name)
                        left.append(found[name])
    return [found[name] for name in sorted(found)]


def _with_rows(dataset: Dataset, rows: Tensor) -> Dataset:
    """Other rows with the classes of a dataset."""
    return Dataset.from_sorted(rows, dataset.offsets, dataset.class_names, name=dataset.name, split=dataset.split)
