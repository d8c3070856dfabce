"""By what a dataset is known again, whatever its file is called."""

import hashlib
import json

import numpy as np
import torch

from fewstep.data.dataset import Dataset, as_tensor

LOOKED_AT = 2**28
"""Bytes of images that are looked at; of features all are."""


def fingerprint(dataset: Dataset) -> str:
    """A hash of a dataset's classes, sizes and rows, as they are stored, in 32 digits.

    Of floating-point rows (features) it is of every byte. Of bytes (images) it is of a quarter of a gigabyte: where
    there are more, of rows at equal distances, the first and the last among them. So images that were replaced are
    found, and a few changed ones among many may not be.
    """
    rows, order = len(dataset), dataset.order
    facts = [dataset.class_names, dataset.sizes.tolist(), list(dataset.feature_shape), str(dataset.store.dtype)]
    facts[-1] = facts[-1].removeprefix("torch.").lstrip("<|=")
    digest = hashlib.sha256(json.dumps(facts).encode())
    one = int(np.prod(dataset.feature_shape)) * dataset.store.dtype.itemsize
    looked_at = rows if dataset.holds_floats else min(rows, max(2, LOOKED_AT // max(1, one)))
    positions = np.arange(rows) if looked_at == rows else np.linspace(0, rows - 1, looked_at).astype(np.int64)
    together = max(1, 2**24 // max(1, one))
    for some in (positions[start : start + together] for start in range(0, looked_at, together)):
        at = some if order is None else order[some]
        consecutive = at[-1] - at[0] == len(at) - 1 and bool((np.diff(at) == 1).all())
        block = dataset.store[int(at[0]) : int(at[-1]) + 1] if consecutive else dataset.store[at]
        digest.update(as_tensor(block).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
