"""The laws of inner mini-batches, read from the noise that a learner draws."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fewstep.core import SGD, Batch, Descend, Difference, Learner, Method, Shared, Task, generator, regression
from fewstep.core.mini_batches import mini_batches, shuffle_site

few = settings(max_examples=60, deadline=None, derandomize=True)


def numbered(weight: Tensor) -> Batch:
    """Rows that say which row they are."""
    rows = torch.arange(len(weight), dtype=torch.float64)
    return Batch(rows.unsqueeze(1), 10 * rows.unsqueeze(1), weight)


def stream(batch: Batch) -> list[int]:
    """The rows that were dealt, in order; x, y and weight stay together."""
    x = batch.x.flatten()
    assert torch.equal(batch.y.flatten(), 10 * x)
    return x.int().tolist()


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Tensor, int, int, int]:
    rows = draw(st.integers(1, 9), label="rows")
    weight = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0]), min_size=rows, max_size=rows)))
    if not weight.any():
        weight[draw(st.integers(0, rows - 1))] = 1.0
    return (
        weight.double(),
        draw(st.integers(1, 6), label="steps"),
        draw(st.integers(1, 7), label="size"),
        draw(st.integers(0, 9)),
    )


@few
@given(schedules(), st.booleans())
def test_each_pass_is_a_permutation_of_the_real_rows(problem: tuple[Tensor, int, int, int], drawn: bool) -> None:
    weight, steps, size, seed = problem
    keys = torch.randn(shuffle_site(len(weight), steps, size).shape, generator=torch.Generator().manual_seed(seed))
    batch = mini_batches(numbered(weight), steps, size, keys.double() if drawn else None)
    assert batch.x.shape == (steps, size, 1)
    assert batch.weight.shape == (steps, size)
    order, real = stream(batch), [i for i in range(len(weight)) if weight[i] > 0]
    assert torch.equal(batch.weight.flatten(), weight[order])
    for first in range(0, len(order), len(real)):
        part = order[first : first + len(real)]
        assert len(set(part)) == len(part)
        assert set(part) <= set(real)
        assert len(part) < len(real) or sorted(part) == real


def learner_of(steps: int, size: int) -> Learner:
    return Learner(nn.Linear(1, 1).double(), Shared(), [Descend(SGD(0.1), steps, batch=size)], loss=regression())


def tasks_of(weight: Tensor, tasks: int) -> Task:
    one = numbered(weight)
    batch = Batch(*(t.expand(tasks, *t.shape).clone() for t in one))
    return Task(batch, batch)


def test_passes_and_tasks_and_steps_are_shuffled_differently() -> None:
    tasks, learner = tasks_of(torch.ones(8, dtype=torch.float64), 3), learner_of(8, 4)
    orders = []
    for step in (0, 1):
        keys = learner.noise(tasks, generator(0, step, "noise"))["shuffles"][0]["keys"]
        for i in range(3):
            whole = stream(mini_batches(Batch(*(t[i] for t in tasks.support)), 8, 4, keys[i]))
            orders += [tuple(whole[p : p + 8]) for p in range(0, 32, 8)]
    assert len(set(orders)) == len(orders) == 24


def test_a_batch_may_straddle_two_passes() -> None:
    keys = torch.tensor([[0.0, 1, 2], [2, 1, 0]], dtype=torch.float64)
    batch = mini_batches(numbered(torch.ones(3, dtype=torch.float64)), 3, 2, keys)
    assert batch.x.squeeze(-1).tolist() == [[0, 1], [2, 2], [1, 0]]


def test_first_rows_are_uniform() -> None:
    """Over many drawn shuffles every row is as often first as any other, and pairs are in either order equally."""
    tasks, learner = tasks_of(torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64), 4000), learner_of(2, 2)
    keys = learner.noise(tasks, generator(0, 0, "noise"))["shuffles"][0]["keys"]
    dealt = torch.vmap(lambda s, k: mini_batches(s, 2, 2, k))(tasks.support, keys).x.flatten(1)
    for place in range(4):
        counts = torch.stack([(dealt[:, place] == row).sum() for row in range(5)])
        assert counts[2] == 0
        assert ((counts[[0, 1, 3, 4]] - 1000).abs() < 120).all(), counts  # 4.4 standard deviations


def test_in_evaluation_the_shuffle_is_fixed_and_padding_at_the_end_is_not_seen() -> None:
    weight = torch.ones(5, dtype=torch.float64)
    fixed = mini_batches(numbered(weight), 4, 3, None)
    assert stream(fixed) == stream(mini_batches(numbered(weight), 4, 3, None))
    assert stream(fixed)[:5] != stream(fixed)[5:10], "each pass has its own shuffle"
    padded = mini_batches(numbered(torch.cat([weight, weight.new_zeros(7)])), 4, 3, None)
    assert stream(padded) == stream(fixed)


def test_vmap_is_a_loop() -> None:
    weight = torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    x = torch.arange(4, dtype=torch.float64).expand(3, 4).unsqueeze(-1)
    supports = Batch(x, 10 * x, weight)
    keys = torch.randn(3, *shuffle_site(4, 3, 2).shape, dtype=torch.float64)
    mapped = torch.vmap(lambda s, k: mini_batches(s, 3, 2, k))(supports, keys)
    for i in range(3):
        one = mini_batches(Batch(*(t[i] for t in supports)), 3, 2, keys[i])
        torch.testing.assert_close([t[i] for t in mapped], list(one), rtol=0, atol=0)


def test_a_step_sees_its_own_mini_batch_and_weighs_its_rows() -> None:
    """One linear parameter, by hand: the mean over the rows of each batch, by their weights."""
    weight = torch.tensor([1.0, 2, 0, 0.5, 1], dtype=torch.float64)
    learner, tasks = learner_of(3, 2), tasks_of(weight, 1)
    network = learner.network
    with torch.no_grad():
        network.weight.fill_(0.3)
        network.bias.fill_(-0.2)
    tasks.support.x.mul_(0.3)
    method = Method(learner, Difference())
    noise = learner.noise(tasks, generator(0, 0, "noise"))
    keys = noise["shuffles"][0]["keys"][0]
    w, b, place = 0.3, -0.2, 0
    passes = [[i for i in k.argsort().tolist() if weight[i] > 0] for k in keys]
    order = [row for one in passes for row in one]
    for _ in range(3):
        rows = order[place : place + 2] if place + 2 <= len(order) else None
        assert rows is not None
        place += 2
        total = sum(weight[r].item() for r in rows)
        errors = [(w * 0.3 * r + b - 10 * r, 0.3 * r, weight[r].item()) for r in rows]
        w, b = (
            w - 0.1 * sum(2 * e * x * v for e, x, v in errors) / total,
            b - 0.1 * sum(2 * e * v for e, _, v in errors) / total,
        )
    method.objective(tasks, noise).objective.backward()
    torch.testing.assert_close(network.weight.grad.item(), 0.3 - w, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(network.bias.grad.item(), -0.2 - b, rtol=1e-10, atol=1e-12)
