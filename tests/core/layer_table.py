"""What becomes of a layer's meta-gradients in torch alone and in fewstep: ``python tests/core/layer_table.py``.

Prints the rows of the table in ``docs/networks.md``. "torch alone" is the same MAML with nothing replaced.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from own_networks import NETWORKS, made, tasks

from fewstep.algorithms import maml
from fewstep.core import Differentiate, Executor, Loop, Vmap, generator

HEAD = ("layer", "order", "torch alone, vmap", "torch alone, loop", "fewstep, vmap", "fewstep, loop")


@contextmanager
def nothing_replaced() -> Iterator[None]:
    """Networks run as they are."""
    places = ("fewstep.core.network.operations", "fewstep.core.learner", "fewstep.core.gradients")
    patches = [mock.patch(f"{place}.is_plain", return_value=True) for place in places]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def gradients(name: str, executor: Executor, first_order: bool) -> list[Tensor]:
    method = maml(made(name), rate=0.3, steps=2, first_order=first_order)
    torch.manual_seed(0)
    return Differentiate(method, executor)(tasks(), method.draws(tasks(), generator(0, 0, "noise"))).gradients


def off(found: list[Tensor], right: list[Tensor]) -> float:
    """The largest difference relative to the gradient's largest entry."""
    largest = max(gradient.abs().max().item() for gradient in right)
    return max((a - b).abs().max().item() for a, b in zip(found, right, strict=True)) / largest


def verdict(name: str, executor: Executor, first_order: bool, right: list[Tensor], alone: bool) -> str:
    """Right, wrong, or refused."""
    try:
        if alone:
            with nothing_replaced():
                found = gradients(name, executor, first_order)
        else:
            found = gradients(name, executor, first_order)
    except Exception as error:  # whatever torch raises is the verdict
        return f"refused: {type(error).__name__}"
    error = off(found, right)
    draws = any(word in name for word in ("Dropout", "RReLU", "LSTM", "MultiheadAttention", "Transformer"))
    if alone and draws and error > 1e-6:
        return "draws from torch's generator" if "more" not in name else f"**wrong**, {error:.0e}"
    return "right" if error < 1e-6 else f"**wrong**, {error:.0e}"


def rows() -> Iterator[tuple[str, ...]]:
    for name in NETWORKS:
        for order, first_order in (("first", True), ("second", False)):
            right = gradients(name, Loop(), first_order)  # test_own_networks.py holds it against finite differences
            cells = [
                verdict(name, executor, first_order, right, alone)
                for alone in (True, False)
                for executor in (Vmap(), Loop())
            ]
            yield (name, order, *cells)


def table() -> str:
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *(f"| {' | '.join(row)} |" for row in rows())]
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__.split('+')[0]}\n\n{table()}")
