"""Image files and folders, read the way Omniglot's are: grey, small, ink 1 and paper 0; or in any other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from fewstep.data.checks import check_count

Fit: TypeAlias = Literal["squeeze", "crop"]
"""How an image becomes a square: its sides are scaled differently, or its middle is cut out."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
"""Of the files that are taken for images."""

_SPARE = 4  # times the size: as small a JPEG is let be decoded where most of it would be filtered away


class DamagedImage(ValueError):
    """A file holds no image, or one that cannot be decoded.

    Attributes:
        reason: what is wrong, without the file's name.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged or is no image: {reason}")
        self.reason = reason


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


@final
@dataclass(frozen=True)
class Reading:
    """How image files become what a network was trained on; by default, as Omniglot's drawings are read.

    Attributes:
        size: side of the images in pixels.
        grey: one channel instead of three of colour.
        invert: swap light and dark.
        fit: as in :func:`read_image`.
    """

    size: int = 28
    grey: bool = True
    invert: bool = True
    fit: Fit = "squeeze"

    def folder(self, path: str | Path) -> ImageFolder:
        """Every image of a folder, read so: see :func:`image_folder`."""
        return image_folder(path, self.size, colour=not self.grey, invert=self.invert, fit=self.fit)


def read_image(
    path: str | Path, size: int = 28, *, colour: bool = False, invert: bool | None = None, fit: Fit = "squeeze"
) -> Float[Tensor, "channels size size"]:
    """Read one image file, as a row of an image dataset.

    Args:
        path: any format that Pillow reads. A camera's orientation tag is obeyed, transparent parts become white, 16
            bits become 8, and of several images in a file the first is taken.
        size: side of the result in pixels.
        colour: three channels instead of one of grey.
        invert: swap light and dark. By default grey images are inverted, as dark ink on light paper must be for ink
            to be 1, and colour images are not.
        fit: "squeeze" another shape than a square into one; or "crop": scale it so that its short side is ``size``, and
            cut out the middle. A JPEG that is to be cropped is decoded at a half, a quarter or an eighth of its size
            where that leaves four times what is wanted, which takes a tenth of the time for a camera's photograph
            and changes a pixel by 2 of 255 at the most.

    Returns:
        ``[channels, size, size]`` from 0 to 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or no image.
    """
    return torch.from_numpy(pixels(Path(path), size, colour, invert, fit)).to(torch.float32) / 255


def image_folder(
    path: str | Path, size: int = 28, *, colour: bool = False, invert: bool | None = None, fit: Fit = "squeeze"
) -> ImageFolder:
    """Read every image in a folder: sub-folders are classes, a flat folder has none.

    A class is named after its folder's path below ``path`` ("Greek/character01"), so nested folders such as Omniglot's
    own work. Files are sorted by path; hidden files and files that are no images by their suffix are passed over.

    Args:
        path: the folder.
        size: as in :func:`read_image`.
        colour: as in :func:`read_image`.
        invert: as in :func:`read_image`.
        fit: as in :func:`read_image`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no images, holds images both beside and inside sub-folders, a sub-folder is empty, or a
            file is damaged (named in the message).
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    inside = [p for p in sorted(root.rglob("*")) if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    if not (paths := [p for p in inside if p.is_file() and p.suffix.lower() in SUFFIXES]):
        raise ValueError(f"{root} holds no images (looked for {', '.join(sorted(SUFFIXES))})")
    if (loose := [p for p in paths if p.parent == root]) and len(loose) < len(paths):
        raise ValueError(
            f"{root} holds images ({loose[0].name}, ...) beside class folders: move them into a class folder"
        )
    filled = {ancestor for p in paths for ancestor in p.parents}
    if not loose and (empty := [p for p in inside if p.is_dir() and p not in filled]):
        raise ValueError(f"the class folder {empty[0]} holds no images: fill or remove it")
    images = np.stack([pixels(p, size, colour, invert, fit) for p in paths])
    return ImageFolder(images, None if loose else [p.parent.relative_to(root).as_posix() for p in paths], paths)


def pixels(
    path: Path, size: int, colour: bool, invert: bool | None, fit: Fit = "squeeze"
) -> UInt8[np.ndarray, "channels size size"]:
    """What :func:`read_image` reads, as bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedImage: if it is damaged or no image.
        ValueError: if the system refuses to read it, which says nothing about the image.
    """
    check_count("size", size)
    upright = open_image(path, grey=not colour, least=_SPARE * size if fit == "crop" else None)
    side, lanczos = (size, size), Image.Resampling.LANCZOS
    small = np.array(ImageOps.fit(upright, side, lanczos) if fit == "crop" else upright.resize(side, lanczos))
    channels = np.moveaxis(small, -1, 0) if colour else small[None]
    return np.ascontiguousarray(255 - channels if (not colour if invert is None else invert) else channels)


def open_image(path: Path, *, grey: bool = False, least: int | None = None) -> Image.Image:
    """One image file, upright, on white paper, with 8 bits a channel.

    Args:
        path: any format that Pillow reads.
        grey: one channel instead of three of colour.
        least: a JPEG may be decoded at a half, a quarter or an eighth of its size, if both sides keep so many pixels.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedImage: if it is damaged or no image.
        ValueError: if the system refuses to read it, which says nothing about the image.
    """
    try:
        with Image.open(path) as file:
            if least is not None:
                file.draft("L" if grey else None, (least, least))
            return opaque(ImageOps.exif_transpose(file)).convert("L" if grey else "RGB")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {path}") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers report damage in many ways: SyntaxError, struct.error, IndexError ...
        if isinstance(error, OSError) and error.errno is not None:
            raise ValueError(f"{path} cannot be read ({error.strerror}): repair that, or move it away") from error
        # Pillow says "cannot identify image file" and then the path, which is known.
        raise DamagedImage(path, str(error).removesuffix(f" {str(path)!r}") or type(error).__name__) from error


def opaque(image: Image.Image) -> Image.Image:
    """The image on white paper, with 8 bits a channel."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        # Pillow would cut everything above 255, which makes nearly all of a 16-bit image white.
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError(f"its pixels reach from {values.min()} to {values.max()}: save it with 8 or 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in image.info:
        return image.convert("L" if image.mode in ("1", "L") else "RGB")
    upright = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
