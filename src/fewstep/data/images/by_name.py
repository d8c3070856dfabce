"""Image data by name: what a command line or a kept configuration says of it, readable without torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, final

from fewstep.core.ranges import Count, require_ranges

if TYPE_CHECKING:
    from fewstep.data.dataset import Dataset
    from fewstep.data.images.class_splits import Split
    from fewstep.data.storage.cache import Report

TITLES = {
    "cifar-fs": "CIFAR-FS",
    "fc100": "FC100",
    "omniglot": "Omniglot",
    "mini-imagenet": "miniImageNet",
    "tiered-imagenet": "tieredImageNet",
}
"""The datasets that have names, as papers write them."""

_TAKES = {
    "cifar-fs": {"path"},
    "fc100": {"path"},
    "omniglot": {"rotations"},
    "mini-imagenet": {"path", "size"},
    "tiered-imagenet": {"path", "size"},
    "": {"size", "split", "damaged", "grey", "fit"},
}
"""The options of each; of a folder under ""."""

_WHY = {
    "path": "the folder is its name",
    "size": "its images have one size",
    "split": "its classes have a published split",
    "damaged": "results on a part of its images could not be compared with published ones",
    "grey": "its images are taken as they are",
    "fit": "its images are taken as they are",
    "rotations": "only Omniglot's turned characters are classes of their own",
}
"""Why other data refuse an option."""


@final
@dataclass(frozen=True)
class ImageData:
    """Images in classes, all of whose splits one network can be trained on and shown."""

    name: str
    """cifar-fs, fc100, omniglot, mini-imagenet, tiered-imagenet, or a folder of one's own images. Of a folder with such
    a name: ./omniglot."""
    path: str | None = None
    """Where the images of mini-imagenet or tiered-imagenet are, or those of CIFAR-100 if they are not to be
    downloaded."""
    size: Count | None = None
    """Side in pixels of the images of ImageNet and of folders. None: 84."""
    split: str | None = None
    """For a folder: the file that says which class is in which split. None: split.csv or split.json in it, or folders
    train, val and test."""
    damaged: Literal["stop", "skip"] = "stop"
    """For a folder: whether images that cannot be read are an error, or left out and reported."""
    grey: bool = False
    """For a folder: one channel instead of three of colour."""
    fit: Literal["crop", "squeeze"] | None = None
    """For a folder: cut a square from the middle of each image, or squeeze it into one. None: crop."""
    rotations: bool = False
    """For omniglot: training characters turned by 90°, 180° and 270° are classes of their own."""
    cache: str | None = None
    """Folder for what is downloaded and decoded. None: $FEWSTEP_CACHE, or the user's cache folder."""
    copies: Literal["keep", "drop"] = "keep"
    """drop leaves images out that are the same as others, bit for bit: those of test classes are kept before those of
    validation before those of training."""

    def __post_init__(self) -> None:
        require_ranges(self, "images: ")

    @property
    def title(self) -> str:
        """The name for a protocol: as papers write it, or the folder's."""
        return TITLES.get(self.name) or Path(self.name).resolve().name

    def check(self) -> None:
        """Refuse what can be known to be wrong before any data is looked at.

        Not done at construction: a kept configuration can be read where its folder is not.

        Raises:
            ValueError: if the name is neither known nor a folder, or an option is given that makes no sense for it.
        """
        if self.name not in TITLES and not (self.name and Path(self.name).is_dir()):
            meant = " or ".join(self._suggestions())
            raise ValueError(
                f"there is no image data {self.name!r}{f'; did you mean {meant}?' if meant else '.'} "
                f"Give one of {', '.join(TITLES)}, or a folder that exists."
            )
        defaults = ImageData(self.name)
        for option, why in _WHY.items():
            value = getattr(self, option)
            if value != getattr(defaults, option) and option not in _TAKES.get(self.name, _TAKES[""]):
                raise ValueError(f"{self.title} takes no option {option} (got {value!r}): {why}. Leave it out.")
        if self.path is None and self.name in ("mini-imagenet", "tiered-imagenet"):
            shared = "train_images_png.pkl" if self.name == "tiered-imagenet" else "mini-imagenet-cache-train.pkl"
            raise ValueError(
                f"{self.title} cannot be downloaded freely: give the folder of its images as path, with a folder per "
                "class named by its WordNet number, or with the files that repositories share "
                f"({shared}, ...)."
            )

    def splits(self) -> tuple[str, ...]:
        """Those of train, val and test that there are; of a folder, the layout is checked.

        Raises:
            ValueError: as :meth:`check`, or if the folder's layout is not as :func:`photographs` wants it.
            FileNotFoundError: if there is no split file as named.
        """
        from fewstep.data.images.folders import photograph_splits

        self.check()
        if self.name in TITLES:
            return ("train", "val", "test")
        return photograph_splits(self.name, split_file=self.split)

    def examples(self, split: str, report: Report | None = None) -> Dataset:
        """The images of a split, uint8 ``[n, channels, size, size]``.

        Args:
            split: "train", "val" or "test", or "trainval" for the first two together.
            report: is told what takes time and what is left out; it is logged when omitted.

        Raises:
            ValueError: as :meth:`check` and the loader of the data; so are the others.
            FileNotFoundError: if there are no such files.
            ConnectionError: if data cannot be fetched.
            OSError: if the cache folder cannot be written.
        """
        from fewstep.data.images.characters import omniglot
        from fewstep.data.images.cifar import cifar_fs, fc100
        from fewstep.data.images.folders import photographs
        from fewstep.data.images.imagenet import mini_imagenet, tiered_imagenet

        self.check()
        part = cast("Split", split)  # loaders refuse others
        size = 84 if self.size is None else self.size
        kept: dict[str, Any] = {"copies": self.copies, "cache": self.cache, "report": report}
        match self.name:
            case "omniglot":
                return omniglot(part, rotations=self.rotations and split in ("train", "trainval"), **kept)
            case "cifar-fs" | "fc100":
                return (cifar_fs if self.name == "cifar-fs" else fc100)(part, path=self.path, **kept)
            case "mini-imagenet" | "tiered-imagenet":
                load = mini_imagenet if self.name == "mini-imagenet" else tiered_imagenet
                return load(part, cast(str, self.path), size=size, **kept)  # checked
        how: dict[str, Any] = {"grey": self.grey, "fit": self.fit or "crop", "damaged": self.damaged}
        return photographs(part, self.name, split_file=self.split, size=size, **how, **kept)

    def _suggestions(self) -> list[str]:
        """What may have been meant: a name, or a folder beside that one."""
        plain = self.name.casefold().replace("_", "-").replace(" ", "-")
        near = difflib.get_close_matches(plain, TITLES, n=3)
        parent, wanted = Path(self.name).parent, Path(self.name).name
        if parent.is_dir() and wanted:
            beside = [folder.name for folder in parent.iterdir() if folder.is_dir()]
            near += [str(parent / name) for name in difflib.get_close_matches(wanted, beside, n=3)]
        return near
