"""Reading pickles of others: arrays and plain containers, and nothing that could run code.

A pickle is a program, and loading one runs it. Here the program gets nothing to work with. The names that it may ask
for, a dozen of NumPy's and Python's, stand for inert notes ("an array of this dtype, this shape and these bytes"); any
other name is refused when it is asked for. When the pickle has been read to its end, the notes are checked and arrays
made of them. NumPy's own reconstruction, which trusts what it is told, is never called.
"""

import codecs
import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

_DTYPE = re.compile(r"[<>=|]?(\?|b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,6})")
_BEYOND = frozenset({"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
# A wrong program fails in as many ways as there are instructions.
_DAMAGE = (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError)
_OBJECTS = "O"
_PLAIN = (str, bytes, int, float, bool, type(None))
_ADVICE = (
    "It may run code, so it is not loaded. Only plain containers and NumPy arrays of numbers or text are read: if you "
    "trust the file, load it yourself and save its arrays with numpy.savez"
)


def unpickle(path_or_bytes: str | Path | bytes, *, encoding: Literal["bytes", "latin1"] = "bytes") -> Any:
    """Read a pickle of plain containers and NumPy arrays, of any protocol, Python 2's included.

    No code of the file's choice is run, and no memory beyond a few times the file's size is used. It is no guard
    against a file made to take long.

    Args:
        path_or_bytes: a file, or its contents.
        encoding: what Python 2's ``str`` becomes: "bytes", or "latin1" for text.

    Returns:
        dict, list, tuple, set, frozenset, str, bytes, int, float, bool, None and arrays of booleans, numbers, bytes or
        text, or of any of these as objects, nested in any way. NumPy's scalars become Python's. Arrays are read-only:
        they are the file's own bytes, or of objects.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the pickle asks for anything else (named in the message, with the file), or is damaged, or is no
            pickle.
    """
    if isinstance(path_or_bytes, bytes):
        return _read(io.BytesIO(path_or_bytes), "the pickle", encoding)
    path = Path(path_or_bytes)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        return _read(file, str(path), encoding)


class _Refused(ValueError):
    """The pickle asks for what it may not have."""


def _read(file: io.BufferedIOBase, name: str, encoding: str) -> Any:
    try:
        _scan(file)
        file.seek(0)
        return _Finish()(_Unpickler(file, encoding=encoding).load())
    except _Refused as error:
        raise ValueError(f"{name} {error}. {_ADVICE}") from None
    except MemoryError as error:
        raise ValueError(f"{name} is damaged: it announces more bytes than there is memory. Fetch it again") from error
    except RecursionError as error:
        raise ValueError(f"{name} is nested too deeply to be read. {_ADVICE}") from error
    except _DAMAGE as error:
        raise ValueError(f"{name} is damaged or is no pickle ({error}): fetch it again") from error


def _scan(file: io.BufferedIOBase) -> None:
    """Read the program without running it, and refuse what the unpickler would do without asking for a name.

    Extension codes may be answered from a table of the process. A memo index of 2**31 makes the C unpickler fill as
    many entries; one that a pickler wrote counts the entries before it.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], file))):
        if opcode.name in _BEYOND:
            raise _Refused(f"refers to something outside of itself ({opcode.name} {argument!r:.80})")
        if opcode.name in _PUTS and not (isinstance(argument, int) and argument <= count):
            raise _Refused(f"numbers its {count}th part {argument}")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if (made := _GLOBALS.get((_NEWER.get(module_name, module_name), global_name))) is None:
            raise _Refused(f"asks for {f'{module_name}.{global_name}':.200}")
        return _Global(f"{module_name}.{global_name}", made)


@dataclass(frozen=True, slots=True, eq=False)
class _Global:
    """What a permitted name stands for: it can be called, and cannot be changed."""

    name: str
    made: Any

    def __call__(self, *arguments: Any) -> Any:
        return self.made(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused(f"tries to change {self.name}")


class _DType:
    """A note of a dtype: how NumPy would be told to make it, and in which byte order."""

    __slots__ = ("order", "spec")

    def __init__(self, spec: object, align: object = False, copy: object = False) -> None:
        text = _text(spec)
        if text in ("O", "|O", "O8", "|O8"):
            text = _OBJECTS
        elif _DTYPE.fullmatch(text) is None:
            raise _Refused(f"holds an array of dtype {text[:80]!r}")
        self.spec, self.order = text, ""

    def __setstate__(self, state: Any) -> None:
        _, order, subdtype, names, fields, *_ = state
        if subdtype is not None or names is not None or fields is not None:
            raise _Refused("holds an array of records")
        if (text := _text(order)) not in ("<", ">", "|", "="):
            raise _Refused(f"holds an array of byte order {text[:80]!r}")
        self.order = text

    @property
    def of_objects(self) -> bool:
        return self.spec == _OBJECTS

    def make(self) -> np.dtype[Any]:
        plain = np.dtype(self.spec)
        return plain.newbyteorder(">" if self.order == ">" else "<") if self.order in ("<", ">") else plain


@dataclass(slots=True, eq=False)
class _Array:
    """A note of an array."""

    dtype: object = None
    shape: object = None
    fortran: object = False
    data: object = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def make(self, finish: Callable[[Any], Any]) -> NDArray[Any]:
        if isinstance(self.dtype, _DType) and self.dtype.of_objects:
            return self._of_objects(finish)
        if isinstance(self.data, list):
            raise _Refused("holds Python objects in an array of something else")
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # as Python 2's bytes arrive
        shape = self._checked_shape()
        if not (isinstance(self.dtype, _DType) and isinstance(data, bytes | bytearray)):
            raise ValueError("an array without shape, dtype or data")
        dtype = self.dtype.make()
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"an array {list(shape)} of {dtype} with {len(data)} bytes")
        return np.ndarray(shape, dtype, bytes(data), order="F" if self.fortran else "C")

    def _of_objects(self, finish: Callable[[Any], Any]) -> NDArray[Any]:
        """An array of what a list holds, each of which is as harmless as in the list; never of bytes, as pointers."""
        shape = self._checked_shape()
        if not isinstance(self.data, list) or math.prod(shape) != len(self.data):
            raise _Refused("holds an array of Python objects without a list of as many")
        array = np.empty(len(self.data), object)
        for i, item in enumerate(self.data):
            array[i] = finish(item)
        array = array.reshape(shape)  # the list goes by the last axis first, whatever the order in memory was
        array.setflags(write=False)
        return array

    def _checked_shape(self) -> tuple[int, ...]:
        if not isinstance(self.shape, tuple) or not all(type(side) is int and side >= 0 for side in self.shape):
            raise ValueError("an array without shape, dtype or data")
        return self.shape


def _reconstruct(subtype: object, shape: object, kind: object) -> _Array:
    if not (isinstance(subtype, _Global) and subtype.made is _ndarray):
        raise _Refused(f"asks for an array of type {_brief(subtype)}")
    return _Array()


def _ndarray(*arguments: object) -> None:
    raise _Refused("calls numpy.ndarray")


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    return _Array(dtype, shape, _text(order) == "F", data)


class _Scalar:
    """A note of a number or a text of NumPy's."""

    __slots__ = ("array",)

    def __init__(self, dtype: object, data: object) -> None:
        self.array = _Array(dtype, (), False, data)

    def make(self, finish: Callable[[Any], Any]) -> Any:
        return self.array.make(finish).item()


def _encode(text: object, encoding: object) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise _Refused(f"asks for _codecs.encode with {_brief(encoding)}")
    return codecs.latin_1_encode(text)[0]


def _bytes(*arguments: object) -> bytes:
    """How Python 3 writes ``b""`` for Python 2; with a number it would make as many zeros."""
    if arguments:
        raise _Refused("asks for builtins.bytes with an argument")
    return b""


def _set(items: object = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise _Refused(f"makes a set of {_brief(items)}")
    return set(items)


def _frozenset(items: object = ()) -> frozenset[Any]:
    return frozenset(_set(items))


_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _DType,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _Scalar,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _bytes,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
}
# Modules before NumPy 2 and Python 3.
_NEWER = {f"numpy.core.{module}": f"numpy._core.{module}" for module in ("multiarray", "numeric")}
_NEWER["__builtin__"] = "builtins"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if isinstance(value, str):
        return value
    raise _Refused(f"names a dtype or an encoding by {_brief(value)}")


def _brief(value: object) -> str:
    if isinstance(value, _Global):
        return value.name
    return f"{value!r:.80}" if isinstance(value, _PLAIN) else str(type(value))


class _Finish:
    """Puts arrays in the place of notes, and lets nothing pass but what :func:`unpickle` promises."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[object, Any]] = {}  # what was finished, held so that no id is used again

    def __call__(self, value: Any) -> Any:
        if type(value) in _PLAIN:
            return value
        if (known := self.done.get(id(value))) is not None:
            if known[1] is self:
                raise _Refused("holds a container that contains itself")
            return known[1]
        self.done[id(value)] = (value, self)
        finished = self._finish(value)
        self.done[id(value)] = (value, finished)
        return finished

    def _finish(self, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            return {self._key(key): self(item) for key, item in value.items()}
        if kind in (set, frozenset):
            return kind(map(self._key, value))
        if kind in (list, tuple):
            return kind(map(self, value))
        if kind in (_Array, _Scalar):
            return value.make(self)
        what = value.name if kind is _Global else f"a {'numpy.dtype' if kind is _DType else kind.__name__}"
        raise _Refused(f"holds {what}")

    def _key(self, value: Any) -> Any:
        finished = self(value)
        try:
            hash(finished)
        except TypeError:
            raise _Refused(f"has a key of type {type(finished).__name__}") from None
        return finished
