"""Photographs for tests: JPEG files of classes that have a colour of their own, in several shapes."""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = {
    "train": ["apple", "banana", "cucumber", "date", "elderberry", "fig"],
    "val": ["grape", "honeydew", "iceberg"],
    "test": ["jackfruit", "kiwi", "lemon"],
}
"""Of :func:`photographs_in`."""


def photograph(path: Path, colour: int, number: int) -> None:
    """One picture of the colour: noise around it, wide or high."""
    random = np.random.default_rng([colour, number])
    width, height = ((40, 30), (24, 36), (32, 32))[number % 3]
    hue = colour * 5 % 12 / 12  # neighbours are far apart
    pixels = 255 * np.array(colorsys.hsv_to_rgb(hue, 1, 1)) + random.normal(scale=25, size=(height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def photographs_in(folder: Path, each: int = 8) -> Path:
    """A folder of twelve classes in train, val and test."""
    for colour, (split, name) in enumerate((split, name) for split, names in CLASSES.items() for name in names):
        for number in range(each):
            photograph(folder / split / name / f"{number}.jpg", colour, number)
    return folder
