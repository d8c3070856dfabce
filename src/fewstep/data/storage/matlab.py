"""Reading MATLAB's files of versions 5 to 7: arrays of numbers, text, and cells of these.

SciPy reads them too, and ends the process with a segmentation fault where some bytes are wrong. Here nothing is trusted
that a file says of its sizes, and what is no array of these kinds is left out.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Of how numbers are stored, which may be shorter than what they are."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHARACTERS = 1, 4
_TEXT = {1: "latin1", 2: "latin1", 16: "utf-8", 4: "utf-16", 17: "utf-16", 18: "utf-32"}
_COMPLEX = 0x800


class OfVersion73(ValueError):
    """The file is of version 7.3, which is HDF5."""


def read_mat(path: Path, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any] | None]:
    """The arrays of a file by name.

    Args:
        path: the file.
        wanted: names whose arrays are read; of others there is None, as there is for what is no array of numbers, text
            or cells.

    Raises:
        OfVersion73: if it is of that version.
        ValueError: if it is damaged, or of another kind.
    """
    content = path.read_bytes()
    if len(content) < 128 or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no MATLAB file of version 5 to 7.3: save it by save(name, ..., '-v7')")
    order = "<" if content[126:128] == b"IM" else ">"
    (version,) = struct.unpack(f"{order}H", content[124:126])
    if version == 0x0200:
        raise OfVersion73
    found: dict[str, NDArray[Any] | None] = {}
    try:
        for kind, data in _elements(memoryview(content)[128:], order):
            if kind == _COMPRESSED:
                ((kind, data),) = _elements(memoryview(zlib.decompress(data)), order)
            if kind == _MATRIX:
                name, array = _matrix(data, order, wanted)
                found[name] = array
    except (struct.error, zlib.error, UnicodeDecodeError, StopIteration) as error:
        raise ValueError(str(error) or "it ends too early") from error
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element."""
    start = 0
    while start < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, start)
        if kind >> 16:  # up to four bytes, in the place of the size
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, start + 4, 8
            if size > 4:
                raise ValueError(f"a short part of {size} bytes")
        else:
            begin, step = start + 8, 8 + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if begin + size > len(data):
            raise ValueError(f"a part of {size} bytes where {len(data) - begin} are left")
        yield kind, data[begin : begin + size]
        start += step


def _matrix(data: memoryview, order: str, wanted: Callable[[str], bool]) -> tuple[str, NDArray[Any] | None]:
    """Its name, and the array where it is one."""
    parts = _elements(data, order)
    flags = struct.unpack_from(f"{order}I", next(parts)[1])[0]
    sizes = next(parts)[1]
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    name = bytes(next(parts)[1]).decode("latin1")
    kind = flags & 0xFF
    if not wanted(name) or flags & _COMPLEX or len(shape) < 2 or min(shape) < 0:
        return name, None
    if kind in _CLASSES:
        stored, content = next(parts)
        if stored not in _NUMBERS:
            raise ValueError(f"{name} holds numbers of type {stored}")
        numbers = np.frombuffer(content, f"{order}{_NUMBERS[stored]}")
        if math.prod(shape) != numbers.size:
            raise ValueError(f"{name} is {list(shape)}, but has {numbers.size} numbers")
        return name, numbers.astype(_CLASSES[kind]).reshape(shape, order="F")
    if kind == _CHARACTERS:
        return name, _lines(*next(parts), shape, order)
    if kind == _CELL:
        cells = [_matrix(content, order, lambda _: True)[1] for of, content in parts if of == _MATRIX]
        if math.prod(shape) != len(cells):
            raise ValueError(f"{name} is {list(shape)}, but has {len(cells)} cells")
        array = np.empty(len(cells), object)
        for i, cell in enumerate(cells):
            array[i] = cell
        return name, array.reshape(shape, order="F")
    return name, None


def _lines(kind: int, content: memoryview, shape: tuple[int, ...], order: str) -> NDArray[np.character]:
    """Text, one for each row of characters, which spaces have made of one length."""
    if kind not in _TEXT:
        raise ValueError(f"text of type {kind}")
    end = "" if _TEXT[kind] in ("latin1", "utf-8") else "-le" if order == "<" else "-be"
    text = bytes(content).decode(_TEXT[kind] + end)
    if shape[0] == 1:
        return np.array([text.rstrip(" ")])
    if math.prod(shape) != len(text) or len(shape) != 2:
        raise ValueError(f"text is {list(shape)}, but has {len(text)} characters")
    return np.array([text[row :: shape[0]].rstrip(" ") for row in range(shape[0])])
