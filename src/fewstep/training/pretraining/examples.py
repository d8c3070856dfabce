"""Features of files of images or of texts, by a network of another library, as a file of features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewstep.data import Dataset
from fewstep.data.features.export import StoredAs, export_features
from fewstep.data.storage.files import replacing
from fewstep.training.pretraining.backbones import Embedder, Example

Progress = Callable[[int, int], None]


def export_examples(
    embed: Embedder,
    examples: Sequence[Example],
    target: str | Path,
    *,
    labels: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    dtype: StoredAs = "float32",
    batch: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Write the features of examples, as :func:`~fewstep.data.features.export.export_features` does.

    Args:
        embed: the network.
        examples: files of images, or texts.
        target: as there.
        labels: the class of each. None: the file has features alone, in the order of the examples, for prediction; it
            is ``.npy``, or ``.npz``, where they are named ``features``.
        splits: "train", "val" or "test" of each. None: it is not known which classes are for what.
        dtype: of the stored numbers.
        batch: examples that pass through the network together.
        progress: told how many examples of how many are done.

    Raises:
        FileExistsError: if the target is there.
        ValueError: as there, and as ``embed`` does for what it cannot take.
        OSError: if the target cannot be written.
    """
    if labels is None:
        return _export_unlabelled(embed, examples, Path(target), dtype, batch, progress)
    named, wanted = np.array(labels, np.str_), np.array([""] * len(labels) if splits is None else splits, np.str_)
    rows = {split: np.flatnonzero(wanted == split) for split in dict.fromkeys(wanted.tolist())}
    # What is drawn from and grouped are numbers of examples: these are opened when their turn comes.
    numbers = {
        split: Dataset.from_labels(of, named[of], name=Path(target).name, split=split, tokens=True)
        for split, of in rows.items()
    }
    return export_features(
        lambda some: embed([examples[i] for i in some.tolist()]),
        numbers,
        target,
        dtype=dtype,
        batch=batch,
        progress=progress,
    )


def export_images(
    embed: Embedder,
    images: Mapping[str, Dataset],
    target: str | Path,
    *,
    dtype: StoredAs = "float32",
    batch: int = 64,
    progress: Progress | None = None,
) -> Path:
    """Write the features of images of a dataset, each of which is given to the network as an image file would be.

    Args:
        embed: the network.
        images: uint8 images by split.
        target: as in :func:`export_examples`, and so are the others.
        dtype: of the stored numbers.
        batch: images that pass through the network together.
        progress: told how many images of how many are done.
    """
    return export_features(
        lambda shown: embed([_image(one) for one in shown]), images, target, dtype=dtype, batch=batch, progress=progress
    )


def _export_unlabelled(
    embed: Embedder, examples: Sequence[Example], target: Path, dtype: StoredAs, batch: int, progress: Progress | None
) -> Path:
    if target.suffix not in (".npy", ".npz"):
        raise ValueError(f"{target}: features without classes go into a file that ends in .npy or .npz")
    if target.exists():
        raise FileExistsError(f"{target} exists: remove it, or choose another target")
    parts: list[Tensor] = []
    for start in range(0, len(examples), batch):
        found = embed(examples[start : start + batch]).to(getattr(torch, dtype))
        if not found.isfinite().all():
            raise ValueError(f"{embed.name} gives NaN or infinity for some of the {embed.of} from {start + 1} on")
        parts.append(found)
        if progress is not None:
            progress(start + len(found), len(examples))
    rows = torch.cat(parts).numpy()
    with replacing(target) as file:
        if target.suffix == ".npz":
            np.savez(file, features=rows)
        else:
            np.save(file, rows, allow_pickle=False)
    return target


def _image(pixels: Tensor) -> Image.Image:
    """An image from 0 to 1, ``[channels, height, width]``, as Pillow holds it."""
    values = (255 * pixels).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
