"""Features of images by any network, computed once and written to a file that few-shot tasks are drawn from."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fewstep.data.checks import check_count, check_unit_range
from fewstep.data.dataset import Dataset, as_tensor
from fewstep.data.features.datasets import writer_for
from fewstep.data.features.formats import SUFFIXES
from fewstep.data.features.store import SPLITS, Parts, as_dataset, bytes_of, dtype_name, group, join
from fewstep.data.storage.files import folder_beside

Extract: TypeAlias = Callable[[Tensor], Tensor]
"""Images ``[rows, channels, height, width]`` from 0 to 1 to features ``[rows, d]``."""

StoredAs: TypeAlias = Literal["float16", "float32", "float64"]
"""Floating-point types that every format can hold."""


def export_features(
    extractor: Extract,
    images: Mapping[str, Dataset],
    target: str | Path,
    *,
    dtype: StoredAs = "float32",
    device: torch.device | str = "cpu",
    batch: int = 256,
    progress: Callable[[int, int], None] | None = None,
    before_writing: Callable[[str], None] | None = None,
) -> Path:
    """Write the features of images, by any network, in a format that :func:`~fewstep.data.embeddings` reads.

    ``extractor`` is any function, such as a pre-trained model without its classifier::

        model = timm.create_model("resnet18", pretrained=True, num_classes=0).eval()
        splits = {split: photographs(split, "photos", size=224) for split in ("train", "val", "test")}
        export_features(lambda x: model((x - mean) / deviation), splits, "photos.npz")

    Vectors are written as they come, not scaled to length 1: a recipe does so, or not. Of a network in training mode,
    the extractor itself if it is an ``nn.Module``, dropout is off and batch statistics do not move meanwhile.

    Memory holds one batch: rows go to a temporary file beside the target, as large as the features, from which the
    target is then written. (DeepMind's pickles are made in memory, a split at a time.)

    Args:
        extractor: images ``[rows, channels, height, width]``, float32 from 0 to 1 on ``device``, to floating-point
            features ``[rows, d]`` on any device.
        images: by split: train, val and test, or some of them, without common classes; or all under "", where it is not
            known which classes are for what.
        target: ``.npz``; ``.safetensors``, the library's memory-mapped format; ``.npy`` with its labels beside it;
            ``.pkl`` for one split; without a suffix, a folder of DeepMind's pickles.
        dtype: of the stored numbers. float16 takes half the room, keeps three decimal digits, and ends at 65,504.
        device: where the extractor wants its images.
        batch: images at a time.
        progress: told how many images of how many are done.
        before_writing: told the :func:`features_digest` when all features are known, and before the target is there.

    Returns:
        The target. It is whole, or not there.

    Raises:
        FileExistsError: if the target is there already.
        ValueError: for a target of no known format, an unknown split or dtype, splits with common classes, without
            images or with images beyond [0, 1]; or if the extractor gives anything but finite ``[rows, d]`` of one d
            (the class is named).
        OSError: if the target, or the temporary file, cannot be written.
    """
    target = Path(target)
    write = writer_for(target)
    images = _in_order(images)
    if dtype not in get_args(StoredAs):
        raise ValueError(f"export: dtype must be one of {', '.join(get_args(StoredAs))}, got {dtype!r}.")
    if target.suffix == ".pkl" and len(images) > 1:
        raise ValueError(f"{target} can hold one split, there are {', '.join(images)}: give a target without a suffix")
    check_count("export: batch", batch)
    with folder_beside(target) as folder:
        with (folder / "features").open("xb") as file, _evaluating(extractor), torch.no_grad():
            width, done = 0, 0
            for split, dataset in images.items():
                for positions in dataset.blocks(batch):
                    shown = dataset.gather(positions, device=device)
                    if dataset.holds_floats:
                        check_unit_range(shown, f"export: {dataset}")
                    found = extractor(shown)
                    width = _check_shape(found, shown, width)
                    stored = found.to(getattr(torch, dtype)).cpu()
                    _check_finite(found, stored, dataset, split, int(positions[0]))
                    file.write(bytes_of(stored))
                    done += len(positions)
                    if progress is not None:
                        progress(done, sum(map(len, images.values())))
        parts = _parts(folder / "features", images, width, getattr(torch, dtype))
        if before_writing is not None:
            whole = join(list(parts.values()))
            assert whole is not None  # one file
            before_writing(features_digest(as_dataset(whole, name="features", split="")))
        write(target, parts, str(target))
    return target


def features_digest(features: Dataset) -> str:
    """A fingerprint of features: a hash of the classes' names and sizes, and of the first and last row of each.

    The rows are taken as they are stored, so that it is the same in every format; another network, layer, view or type
    gives another one. Few rows are read.

    Args:
        features: all classes of all splits, as :func:`~fewstep.data.embeddings` gives them for "all", not normalised.
    """
    ends = np.stack([features.offsets[:-1], features.offsets[1:] - 1], 1)
    digest = hashlib.sha256(json.dumps([features.class_names, features.sizes.tolist()]).encode())
    digest.update(features.gather(ends, dtype=torch.float64).numpy().tobytes())
    return digest.hexdigest()[:32]


BESIDE = ".extractor.safetensors"
"""What the file of a network has after the name of its features."""


def extractor_beside(features: str | Path) -> Path:
    """Where the network that made some features is kept: ``photos.extractor.safetensors`` beside ``photos.npz``."""
    path = Path(features)
    stem = path.stem if path.suffix in SUFFIXES else path.name
    return path.with_name(stem + BESIDE)


def _check_shape(found: Any, shown: Tensor, width: int) -> int:
    """The width of features, which must be that of the batches before, if there were any."""
    if not isinstance(found, Tensor):
        raise ValueError(f"export: the extractor must give a tensor, it gave a {type(found).__name__}.")
    fits = found.dim() == 2 and len(found) == len(shown) and found.shape[1] > 0
    if not fits or width not in (0, found.shape[1]):
        raise ValueError(
            f"export: the extractor must map {len(shown)} images {list(shown.shape)} to features "
            f"[{len(shown)}, {width or 'd'}], but gave {list(found.shape)}. Maps [rows, channels, height, width] are "
            "to be averaged over space."
        )
    if not found.is_floating_point():
        raise ValueError(f"export: features must be floating-point numbers, the extractor gave {found.dtype}.")
    return found.shape[1]


def _check_finite(found: Tensor, stored: Tensor, dataset: Dataset, split: str, start: int) -> None:
    if not (bad := np.flatnonzero(~torch.isfinite(stored).all(1).numpy())).size:
        return
    position, first = start + int(bad[0]), found[int(bad[0])]
    owner = int(np.searchsorted(dataset.offsets, position, side="right")) - 1
    which = f"image {position - int(dataset.offsets[owner]) + 1} of class {dataset.class_names[owner]!r} ({split})"
    if bool(first.isfinite().all()):
        reach = f"reach {float(first.abs().max()):.3g}, too large for {dtype_name(stored.dtype)}"
        raise ValueError(f"export: features of {which} {reach}: store as float32.")
    raise ValueError(f"export: features of {which} hold NaN or infinity: the extractor gives them.")


def _in_order(images: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The splits in the order train, val, test."""
    known = ("",) if list(images) == [""] else SPLITS
    if not images or (unknown := [split for split in images if split not in known]):
        named = ", ".join(map(repr, unknown)) if images else "none"
        raise ValueError(f"export: splits must be some of {', '.join(SPLITS)}, got {named}.")
    owner: dict[str, str] = {}
    for split, dataset in images.items():
        if not len(dataset) or not dataset.sizes.all():
            raise ValueError(f"export: {split} has classes without images, or no classes: leave them out.")
        for name in dataset.class_names:
            if (other := owner.setdefault(name, split)) != split:
                raise ValueError(
                    f"export: class {name!r} is in {other} and in {split}: classes of a test must not be trained on; "
                    "split by class."
                )
    return {split: images[split] for split in known if split in images}


def _parts(path: Path, images: Mapping[str, Dataset], width: int, dtype: torch.dtype) -> Parts:
    """The rows of a file of nothing else, with their classes."""
    labels = np.concatenate([np.repeat(np.array(d.class_names, np.str_), d.sizes) for d in images.values()])
    splits = None if "" in images else np.repeat(np.array(list(images)), [len(d) for d in images.values()])
    mapped = np.memmap(path, f"<f{dtype.itemsize}", "r", 0, (len(labels), width))
    return group(as_tensor(mapped), labels, path.name, splits=splits)


@contextmanager
def _evaluating(extractor: Extract) -> Iterator[None]:
    """Evaluation mode, where there are modes; afterwards each part is in its own again."""
    modes = [(part, part.training) for part in extractor.modules()] if isinstance(extractor, nn.Module) else []
    if isinstance(extractor, nn.Module):
        extractor.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
