"""Writing pickles that every Python and NumPy can read."""

import pickle
import pickletools
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

_MODULE = b"numpy._core."
_OLDER = b"numpy.core."  # which NumPy 2 keeps for pickles


def pickled_arrays(record: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays by name as a pickle of protocol 2, which asks for no name that NumPy before 2 lacks.

    NumPy 2 writes ``numpy._core.multiarray._reconstruct``, where releases before it stop with "No module named
    'numpy._core'"; ``numpy.core.multiarray`` is known to all of them.
    """
    content = pickle.dumps(dict(record), 2)
    asked = [
        position
        for opcode, argument, position in pickletools.genops(content)
        if position is not None and opcode.name == "GLOBAL" and str(argument).startswith(_MODULE.decode())
    ]
    pieces, end = [], 0
    for position in asked:  # protocol 2 has no frames, and nothing in it counts the bytes of a name
        pieces += [content[end : position + 1], _OLDER]
        end = position + 1 + len(_MODULE)
    return b"".join([*pieces, content[end:]])
