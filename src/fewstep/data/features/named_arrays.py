"""What arrays say by their names: features, labels, splits, names of classes, keys."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewstep.data.dataset import as_tensor
from fewstep.data.features.keys import class_of
from fewstep.data.features.store import FEATURES, SPLITS, Parts, group, plain_labels

NAMES = {
    "features": FEATURES,
    "labels": ("labels", "y", "all_labels"),
    "split": ("split",),
    "class_names": ("class_names",),
    "keys": ("keys",),
}
_ENTRIES = {name for names in NAMES.values() for name in names}


def array_of(entries: Mapping[str, Any], what: str) -> Any:
    """The array of a kind by any of its names, in small letters or capitals; None where there is none."""
    lower = {name.lower(): value for name, value in reversed(list(entries.items())) if value is not None}
    named = {name: entries[name] for name in NAMES[what] if entries.get(name) is not None}
    return next((found[name] for found in (named, lower) for name in NAMES[what] if name in found), None)


def known(name: str) -> bool:
    """Whether a name is one that arrays of features have, in small letters or capitals."""
    return name.lower() in _ENTRIES


def parts_of_arrays(entries: Mapping[str, Any], where: str) -> Parts:
    """Arrays by the names that all formats share."""
    given = {what: array_of(entries, what) for what in NAMES}
    if given["features"] is None:
        raise ValueError(f"{where} holds {sorted(entries)}, but no array of {' or '.join(FEATURES)}")
    features = _features(given["features"], where)
    names = (
        None
        if given["class_names"] is None
        else _text(plain_labels(given["class_names"], where, "class_names"), "class_names", where)
    )
    keys = None if given["keys"] is None else _text(plain_labels(np.ravel(given["keys"]), where, "keys"), "keys", where)
    if names is not None and len(set(names.tolist())) < len(names):
        raise ValueError(f"{where}: class_names must be distinct")
    if features.ndim == 3:
        classes, images, _ = features.shape
        if given["labels"] is not None:
            raise ValueError(f"{where}: features [classes, images, d] need no labels, their place is their class")
        names = np.arange(classes).astype(np.str_) if names is None else names
        if len(names) != classes:
            raise ValueError(f"{where}: {classes} classes of features but {len(names)} class_names")
        labels = np.repeat(names, images)
        which = np.repeat(np.arange(classes), images)
        features = features.reshape(-1, features.shape[-1])
    else:
        if given["labels"] is None:
            raise ValueError(
                f"{where} has no labels: give an array of {' or '.join(NAMES['labels'])}, one label for each row"
                + (" (as NAME_labels.npy beside NAME.npy)" if where.endswith(".npy") else "")
            )
        labels = which = plain_labels(given["labels"], where)
        if names is not None:
            if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0 or labels.max() >= len(names):
                raise ValueError(f"{where}: with class_names, labels must be whole numbers from 0 to {len(names) - 1}")
            labels = names[labels]
    splits = None if given["split"] is None else _splits(given["split"], where)
    if splits is not None and len(splits) != len(features) and (features.shape[0] == len(which)):
        if names is None or len(splits) != len(names):
            raise ValueError(
                f"{where}: {len(features)} rows of features but {len(splits)} entries of split: give one for each row, "
                "or one for each class of class_names"
            )
        splits = splits[which]
    return group(features, labels, where, splits=splits, keys=keys)


def vectors_by_class(entries: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Vectors ``[images, d]`` of each class, where a file holds nothing but these; else nothing."""
    found: dict[str, NDArray[Any]] = {}
    for name, value in entries.items():
        try:
            vectors = np.asarray(value)
            vectors = np.stack(list(vectors)) if vectors.dtype == object and vectors.ndim == 1 else vectors
        except ValueError:  # of unequal lengths
            return {}
        if known(name) or vectors.dtype.kind != "f" or vectors.ndim != 2 or not vectors.size:
            return {}
        found[name] = vectors
    return found if len({vectors.shape[1] for vectors in found.values()}) == 1 else {}


def parts_of_classes(by_class: Mapping[str, NDArray[Any]], where: str) -> Parts:
    """Class → vectors."""
    labels = np.repeat(np.array(list(by_class), np.str_), [len(vectors) for vectors in by_class.values()])
    return group(_features(np.concatenate(list(by_class.values())), where), labels, where)


def parts_of_pickle(content: Any, where: str) -> Parts:
    """DeepMind's record: "embeddings" and "keys", from which the classes come."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds a {type(content).__name__}, expected a dict with 'embeddings' and 'keys'")
    entries = named(content)
    if not isinstance(entries.get("embeddings"), np.ndarray):
        if isinstance(array_of(entries, "features"), np.ndarray):
            return parts_of_arrays(entries, where)
        if by_class := vectors_by_class(entries):
            return parts_of_classes(by_class, where)
        if images := [n for n, value in entries.items() if isinstance(value, np.ndarray) and value.ndim == 4]:
            raise ValueError(
                f"{where} holds images ({images[0]} {list(entries[images[0]].shape)}) and no features: give it to "
                "`fewstep pretrain mini-imagenet --path` if it is miniImageNet's, and `fewstep embed` makes features"
            )
        raise ValueError(
            f"{where} must hold an array 'embeddings', it holds {_shown(entries)}. Read are DeepMind's "
            "'embeddings' and 'keys', 'features' and 'labels', or vectors [images, d] of each class by its name"
        )
    features = _features(entries["embeddings"], where)
    if features.ndim != 2:
        raise ValueError(f"{where}: embeddings must be [rows, d], they are {list(features.shape)}")
    if "keys" not in entries:
        if "labels" not in entries:
            raise ValueError(f"{where} must hold 'keys' or 'labels', one for each row; it holds {_shown(entries)}")
        return parts_of_arrays(entries, where)
    keys = _text(plain_labels(entries["keys"], where, "keys"), "keys", where)
    return group(features, [class_of(key, where) for key in keys.tolist()], where, keys=keys)


def named(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries of a dict under text; numbers are names of classes."""
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _features(features: Any, where: str) -> Tensor:
    if not isinstance(features, Tensor) and features.dtype == object and features.ndim == 1:
        with contextlib.suppress(ValueError, TypeError):  # vectors one by one
            features = np.stack([np.asarray(row) for row in features])
    kind = features.dtype
    if not isinstance(features, Tensor) and (kind.kind != "f" or kind.itemsize > 8):
        raise ValueError(f"{where}: features must be floating-point numbers of 16, 32 or 64 bits, they are {kind}")
    tensor = as_tensor(features)
    if tensor.ndim not in (2, 3) or not tensor.numel():
        shape = list(tensor.shape)
        raise ValueError(
            f"{where}: features must be [rows, d] or [classes, images, d], none of them 0, they are {shape}"
        )
    return tensor


def _splits(values: Any, where: str) -> NDArray[np.character]:
    """Names of splits, from names or from 0, 1, 2."""
    values = plain_labels(values, where, "split")
    if values.dtype.kind in "iu" and values.ndim == 1 and (not values.size or 0 <= values.min() <= values.max() <= 2):
        named: NDArray[np.character] = np.array(SPLITS)[values]
        return named
    if values.dtype.kind in "US" and values.ndim == 1:
        texts = _text(values, "split", where)
        if np.isin(texts, SPLITS).all():
            return texts
    raise ValueError(
        f"{where}: split must hold 0 (train), 1 (val) and 2 (test), or these names; it holds "
        f"{np.unique(values)[:5].tolist()}"
    )


def _text(values: Any, what: str, where: str) -> NDArray[np.character]:
    try:
        array: NDArray[Any] = np.asarray(values)
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
    except ValueError as error:
        raise ValueError(f"{where}: {what} must be text ({error})") from error
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ValueError(f"{where}: {what} must be a list of text, it is {array.dtype} {list(array.shape)}")
    return array


def _shown(entries: Mapping[str, Any]) -> str:
    """The first few names."""
    names = sorted(entries)
    return f"{names[:8]}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")
