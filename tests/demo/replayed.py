"""Omniglot's drawings as strokes of a pen, to be drawn again.

The files of strokes of Lake et al. are not packaged: strokes are the thinned ink (Zhang and Suen 1984), followed from
end to end. They have no order of a hand, and where lines cross they may go on along the other.
"""

from typing import Any

import numpy as np

from fewstep.data.images.characters import omniglot_originals
from fewstep.demo.drawing import SIDE

Pixel = tuple[int, int]

NEIGHBOURS = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
"""Shifts that bring each neighbour of a pixel to its place: of that above, and on clockwise."""


def thinned(ink: np.ndarray) -> np.ndarray:
    """The centre lines of ink ``[side, side]``, one pixel wide."""
    left = np.pad(ink, 1).astype(np.int8)
    while True:
        before = left.sum()
        for half in (0, 1):
            around = [np.roll(left, shift, (0, 1)) for shift in NEIGHBOURS]
            above, right, below, beside = around[::2]
            turns = sum((a == 0) & (b == 1) for a, b in zip(around, around[1:] + around[:1], strict=True))
            kept = [right * below * (above | beside), above * beside * (right | below)][half]
            count = sum(around)
            left[(left == 1) & (count >= 2) & (count <= 6) & (turns == 1) & (kept == 0)] = 0
        if left.sum() == before:
            return left[1:-1, 1:-1].astype(bool)


def followed(lines: np.ndarray) -> list[list[Pixel]]:
    """Pixels (right, down) of centre lines in strokes: from an end on, as straight as it goes."""
    pixels = {(int(x), int(y)) for y, x in np.argwhere(lines)}
    near: dict[Pixel, set[Pixel]] = {pixel: set() for pixel in pixels}
    for x, y in pixels:
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            corner = dx and dy and {(x + dx, y), (x, y + dy)} & pixels
            if (there := (x + dx, y + dy)) in pixels and not corner:
                near[x, y].add(there)
                near[there].add((x, y))
    strokes = [[pixel] for pixel in sorted(pixels) if not near[pixel]]
    while any(near.values()):
        path = [min((pixel for pixel in near if near[pixel]), key=lambda pixel: (len(near[pixel]) % 2 == 0, pixel))]
        while near[here := path[-1]]:
            ahead = np.subtract(here, path[-2]) if len(path) > 1 else np.zeros(2)
            there = min(near[here], key=lambda pixel: (np.abs(np.subtract(pixel, here) - ahead).sum(), pixel))
            near[here].discard(there)
            near[there].discard(here)
            path.append(there)
        strokes.append(path)
    return strokes


def straightened(path: list[Pixel]) -> list[Pixel]:
    """The fewest of a path's points between which lines are never further from it than a pixel (Douglas, Peucker)."""
    begin, *_, end = points = np.array(path + path[-1:], float)
    along = end - begin
    share = np.clip((points - begin) @ along / max(along @ along, 1), 0, 1)
    far = np.hypot(*(points - begin - share[:, None] * along).T)
    if far.max() <= 1:
        return [path[0], path[-1]]
    corner = int(far.argmax())
    return straightened(path[: corner + 1])[:-1] + straightened(path[corner:])


def strokes(ink: np.ndarray) -> list[list[list[float]]]:
    """A drawing as a page sends it."""
    down, right = (slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(ink))
    paths = map(straightened, followed(thinned(ink[down, right])))
    return [[[(right.start + x + 0.5) / SIDE, (down.start + y + 0.5) / SIDE] for x, y in path] for path in paths]


def tasks(count: int, names: list[str], ways: int = 5) -> list[np.ndarray]:
    """Ink ``[ways, 2, side, side]`` of characters of these names: an example and a query of each, by other drawers."""
    bits, every = omniglot_originals()
    among, source = [every.index(name) for name in names], np.random.default_rng(0)
    return [
        np.stack([bits[c, source.choice(20, 2, replace=False)] for c in source.choice(among, ways, replace=False)])
        for _ in range(count)
    ]


def draw(page: Any, pad: Any, drawing: list[list[list[float]]]) -> None:
    """Draw with the mouse."""
    box = pad.bounding_box()
    for stroke in drawing:
        for i, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            if i == 0:
                page.mouse.down()
        page.mouse.up()
