"""Image files and folders, read the way Omniglot's are: grey, small, ink 1 and paper 0."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
"""Of the files that are taken for images."""


class ImageFolder(NamedTuple):
    """Images of a folder, ready for ``Dataset.from_labels(images, labels)``.

    Attributes:
        images: uint8 ``[n, channels, size, size]``.
        labels: class name of each image, or None for a folder without sub-folders.
        paths: file of each image.
    """

    images: UInt8[np.ndarray, "n channels size size"]
    labels: list[str] | None
    paths: list[Path]


def read_image(
    path: str | Path, size: int = 28, *, colour: bool = False, invert: bool | None = None
) -> Float[Tensor, "channels size size"]:
    """Read one image file, as a row of an image dataset.

    Args:
        path: any format that Pillow reads. A camera's orientation tag is obeyed, and transparent parts become white.
        size: side of the result in pixels. Other shapes than squares are squeezed.
        colour: three channels instead of one of grey.
        invert: swap light and dark. By default grey images are inverted, as dark ink on light paper must be for ink
            to be 1, and colour images are not.

    Returns:
        ``[channels, size, size]`` from 0 to 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no image.
    """
    return torch.from_numpy(pixels(Path(path), size, colour, invert)).to(torch.float32) / 255


def image_folder(path: str | Path, size: int = 28, *, colour: bool = False, invert: bool | None = None) -> ImageFolder:
    """Read every image in a folder: sub-folders are classes, a flat folder has none.

    A class is named after its folder's path below ``path`` ("Greek/character01"), so nested folders such as Omniglot's
    own work. Files are sorted by path; hidden files and files that are no images by their suffix are passed over.

    Args:
        path: the folder.
        size: as in :func:`read_image`.
        colour: as in :func:`read_image`.
        invert: as in :func:`read_image`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no images, holds images both beside and inside sub-folders, a sub-folder is empty, or a
            file is damaged (named in the message).
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    inside = [p for p in sorted(root.rglob("*")) if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    paths = [p for p in inside if p.is_file() and p.suffix.lower() in SUFFIXES]
    if not paths:
        raise ValueError(f"{root} holds no images (looked for {', '.join(sorted(SUFFIXES))})")
    loose = [p for p in paths if p.parent == root]
    if loose and len(loose) < len(paths):
        raise ValueError(
            f"{root} holds images ({loose[0].name}, ...) beside class folders: move them into a class folder"
        )
    filled = {ancestor for p in paths for ancestor in p.parents}
    empty = [] if loose else [p for p in inside if p.is_dir() and p not in filled]
    if empty:
        raise ValueError(f"the class folder {empty[0]} holds no images: fill or remove it")
    images = np.stack([pixels(p, size, colour, invert) for p in paths])
    return ImageFolder(images, None if loose else [p.parent.relative_to(root).as_posix() for p in paths], paths)


def pixels(path: Path, size: int, colour: bool, invert: bool | None) -> UInt8[np.ndarray, "channels size size"]:
    """What :func:`read_image` reads, as bytes."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file).convert("RGBA")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow reports damage in several ways, SyntaxError for a broken PNG among them.
        raise ValueError(f"{path} is damaged or is no image: {error}") from error
    paper = Image.new("RGBA", upright.size, "white")
    opaque = Image.alpha_composite(paper, upright).convert("RGB" if colour else "L")
    if invert is None:
        invert = not colour
    small = np.array(opaque.resize((size, size), Image.Resampling.LANCZOS))
    channels = np.moveaxis(small, -1, 0) if colour else small[None]
    return np.ascontiguousarray(255 - channels if invert else channels)
