"""Named tensors in a safetensors file, with words beside them and a digest of all of it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from fewstep.data.storage.files import write_atomically

_DIGEST = "digest"
_WORDS = "__metadata__"
"""Where safetensors has the words in its header."""
_SECOND = "2:"
"""Before a digest of names, types, shapes, numbers and words; the first digests were of names and numbers alone."""


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and words to a file, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(stored, {**metadata, _DIGEST: contents_digest(stored, metadata)}))


def read_tensors(path: str | Path, *, undigested: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and words that :func:`write_tensors` wrote.

    Args:
        path: of the file.
        undigested: the only word of older files that have no digest, which are then taken as they are.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of another kind.
    """
    # Read at once: a training may put another file in its place, and safetensors opens a path twice.
    with _understood():
        content = Path(path).read_bytes()
        tensors = load(content)
        metadata: dict[str, str] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get(_WORDS) or {}
    if undigested is not None and list(metadata) == [undigested]:
        return tensors, metadata
    words, digest = {name: word for name, word in metadata.items() if name != _DIGEST}, metadata.get(_DIGEST, "")
    if digest != (contents_digest(tensors, words) if digest.startswith(_SECOND) else _first_digest(tensors)):
        raise ValueError("its contents do not match its digest")
    return tensors, metadata


def read_metadata(path: str | Path) -> dict[str, str]:
    """The words of a file alone: its tensors are not read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    with _understood(), safe_open(path, "np") as file:
        return file.metadata() or {}


def digest_of(path: str | Path) -> str:
    """By which the contents of a file are known, as it says itself; empty where it says none."""
    return read_metadata(path).get(_DIGEST, "")


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from error


def contents_digest(tensors: Mapping[str, Tensor], words: Mapping[str, str]) -> str:
    """By which tensors and words are known: names, types, shapes, numbers.

    safetensors checks that the sizes fit the file, but neither numbers, nor words, nor which of two shapes it is.
    """
    digest = hashlib.sha256(json.dumps(sorted(words.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return _SECOND + digest.hexdigest()


def _first_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
