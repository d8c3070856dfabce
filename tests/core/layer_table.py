"""What becomes of a layer's meta-gradients in torch alone and in fewstep: ``python tests/core/layer_table.py``.

Prints the rows of the table in ``docs/networks.md``. "torch alone" is the same MAML with nothing replaced.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does
from own_networks import NETWORKS, made, tasks

from fewstep.algorithms import maml
from fewstep.core import Differentiate, Executor, Loop, Vmap, generator

HEAD = ("layer", "vmap, first order", "vmap, second", "loop, first", "loop, second", "fewstep, all four")
"""Four columns of torch alone, and one of fewstep."""


@contextmanager
def nothing_replaced() -> Iterator[None]:
    """Networks run as they are."""
    places = ("fewstep.core.network.operations", "fewstep.core.learner")
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
        with nothing_replaced() if alone else nullcontext():
            error = off(gradients(name, executor, first_order), right)
    except Exception:  # whatever torch raises is the verdict
        return "refused"
    if error < 1e-6:
        return "right"
    draws = alone and any(isinstance(part, DRAWING) for part in made(name).modules())
    return "draws by torch" if draws else "**wrong**"


DRAWING = (nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.RReLU, nn.LSTM, nn.MultiheadAttention)


def row(name: str) -> str:
    """The table's line of a layer; what is right, test_own_networks.py holds against finite differences."""
    right = {first: gradients(name, Loop(), first) for first in (True, False)}
    ways = [(executor, first) for executor in (Vmap(), Loop()) for first in (True, False)]
    torchs, ours = ([verdict(name, *way, right[way[1]], alone) for way in ways] for alone in (True, False))
    return f"| {' | '.join([name, *torchs, ', '.join(dict.fromkeys(ours))])} |"


def table() -> str:
    """The whole of it."""
    return "\n".join([f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}", *map(row, NETWORKS)])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__.split('+')[0]}\n\n{table()}")
