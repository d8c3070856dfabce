"""Heads that look at the support, against numbers that a program in plain numpy made of the papers' equations."""

from collections.abc import Callable

import pytest
import torch
from cases import classification_tasks
from torch import Tensor, nn
from torch.func import functional_call

from fewstep import matching
from fewstep.core import Batch, Learner, Memory, MemoryHead, generator
from fewstep.networks import Generated, Matching
from fewstep.networks.matching import Context


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(found: Tensor, *expected: list[float], atol: float = 6e-7) -> None:
    """To the last of six printed digits."""
    torch.testing.assert_close(found.detach(), tensor(*expected), rtol=0, atol=atol)


def matrix(rows: int, columns: int, shift: int) -> Tensor:
    """``½ sin(1 + 2i + 3j + s)``."""
    i, j = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(columns, dtype=torch.float64)
    return 0.5 * torch.sin(1 + 2 * i + 3 * j + shift)


def asked(head: MemoryHead, support: Tensor, labels: list[int], query: Tensor) -> Tensor:
    """Logits of a head for a task of two ways."""
    y = torch.eye(2, dtype=torch.float64)[labels]
    slots = {"rows": support, "labels": y, "weights": torch.ones(len(y), dtype=torch.float64)}
    found: Tensor = functional_call(head.double(), slots, query)
    return found


@pytest.mark.parametrize(
    ("vote", "scale", "expected"),
    [
        ("attention", None, [0.692107, 0.307893]),
        ("attention", 10.0, [0.959824, 0.040176]),
        ("sum", None, [0.693435, 0.306565]),
    ],
)
def test_cosines_vote(vote: str, scale: float | None, expected: list[float]) -> None:
    support, query = tensor([1, 2, 0], [2, 0, 1], [0, 1, 1]), tensor([1, 1, 0])
    found = asked(Matching(vote, scale), support, [0, 1, 0], query)  # type: ignore[arg-type]
    close(found.softmax(1), expected)
    if vote == "attention":
        torch.testing.assert_close(found.exp(), found.softmax(1))  # they are logarithms of probabilities


CONTEXTS: dict[str, tuple[Tensor, list[float]]] = {
    "input": (torch.cat([matrix(8, 4, 4), matrix(8, 2, 5)], 1), [1.097857, 0.525627]),
    "hidden": (torch.cat([matrix(8, 2, 7), matrix(8, 4, 6)], 1), [1.007887, 0.357016]),
}


@pytest.mark.parametrize("form", CONTEXTS)
def test_rows_are_seen_in_context(form: str) -> None:
    context = Context(2, reads=2, form=form).double()  # type: ignore[arg-type]
    attending, expected = CONTEXTS[form]
    both = (torch.cat([matrix(8, 2, shift), matrix(8, 2, shift + 1)], 1) for shift in (0, 2))
    for gates, weight in zip((context.forwards, context.backwards, context.attending), (*both, attending), strict=True):
        gates.weight.data.copy_(weight)
        nn.init.zeros_(gates.bias)
    support, query = tensor([1, 0], [0, 1], [1, 1]), tensor([1, 0.5])
    f, g = context(query, support, torch.ones(3, dtype=torch.float64))
    close(g, [0.998353, -0.114723], [0.058907, 0.980594], [0.971976, 1.037452])
    close(f, expected)
    if form == "input":
        found = asked(Matching("attention", context=context), support, [0, 1, 0], query)
        close(found.exp(), [0.749921, 0.250079])


def test_the_order_of_the_support_is_drawn_for_training_and_fixed_for_evaluation() -> None:
    given = classification_tasks(6, shots=4).support
    support = Batch(*(part[0] for part in given))
    start, head = Memory(shuffled=True), Matching()
    orders = []
    for draw in (None, None, torch.randn(12, generator=generator(0, 0, "order")), torch.arange(12.0)):
        point, _ = start.begin(head, support, None if draw is None else {"network": [], "order": draw})
        order = (point.context["rows"][:, None] == support.x).all(2).double().argmax(1)
        assert torch.equal(support.y[order], point.context["labels"])
        assert torch.equal(support.weight[order], point.context["weights"])
        orders.append(order.tolist())
    assert orders[0] == orders[1] != orders[2] != orders[3] == list(range(12))
    classes = support.y.argmax(1)[orders[0]]
    assert len(classes[:4].unique()) == 3, "the first rows are of one class"


def test_a_memory_needs_one_head_that_reads_it() -> None:
    for network in (nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2), Generated())):
        with pytest.raises(ValueError, match=r"must end with one MemoryHead, but found none .*Matching\(\)"):
            Learner(network, Memory(), [])
    with pytest.raises(ValueError, match="must end with one MemoryHead, but 0, 1 are such heads"):
        Learner(nn.Sequential(Matching(), Matching()), Memory(), [])


def test_arguments_that_a_head_cannot_do_without() -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: matching(nn.Linear(3, 2), reads=1), "states as wide as a row; give the network's number of features")
    ]
    for make, why in refused:
        with pytest.raises(ValueError, match=why):
            make()
