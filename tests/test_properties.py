"""Laws of rows, for all algorithms and any shape of problem.

Objectives and meta-gradients are compared as they are in evaluation mode, without noise: a learner draws a number for
every row of a tensor, padding included, so rows that are added or moved come with other draws. Mini-batches obey
neither weights as counts nor another order of rows: a shuffle deals rows by their places, each once a pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import (
    anil,
    fomaml,
    imaml,
    leo,
    maml,
    meta_curvature,
    meta_lstm,
    meta_sgd,
    protomaml,
    protonet,
    reptile,
)
from fewstep.core import Batch, Method, Task, generator
from fewstep.evaluation.inner_loop import inner_steps
from fewstep.networks import mlp

FEATURES = 4
CLOSE = {"rtol": 1e-7, "atol": 1e-9}
few = settings(max_examples=5, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Problem:
    """Of any shape. The weights are integers, and every class has a row that counts."""

    ways: int
    steps: int
    hidden: int
    norm: bool
    task: Task
    seed: int

    def network(self) -> nn.Module:
        return mlp((FEATURES, self.hidden, self.ways), norm=self.norm)

    def embedding(self) -> nn.Module:
        return mlp((FEATURES, self.hidden, None), norm=self.norm)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    ways, seed = draw(st.integers(2, 4), label="ways"), draw(st.integers(0, 2**31), label="seed")
    source = torch.Generator().manual_seed(seed)

    def batch(name: str) -> Batch:
        shots = draw(st.lists(st.integers(1, 3), min_size=ways, max_size=ways), label=f"{name} shots")
        classes = torch.arange(ways).repeat_interleave(torch.tensor(shots))
        weight = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=len(classes), max_size=len(classes))))
        for n in range(ways):
            first = (classes == n).nonzero()[0]
            weight[first] = weight[first].clamp(min=1)
        order = torch.randperm(len(classes), generator=source)
        x = torch.randn(len(classes), FEATURES, generator=source, dtype=torch.float64)
        y = torch.eye(ways, dtype=torch.float64)[classes]
        return Batch(x, y[order], weight[order].double())

    task = Task(batch("support"), batch("query"))
    return Problem(ways, draw(st.integers(1, 3)), draw(st.integers(2, 6)), draw(st.booleans()), task, seed)


ALGORITHMS: dict[str, Callable[[Problem], Method]] = {
    "maml": lambda p: maml(p.network(), rate=0.2, steps=p.steps),
    "fomaml": lambda p: fomaml(p.network(), rate=0.2, steps=p.steps),
    "anil": lambda p: anil(p.network(), rate=0.2, steps=p.steps),
    "meta_sgd": lambda p: meta_sgd(p.network(), steps=p.steps),
    "meta_curvature": lambda p: meta_curvature(p.network(), rate=0.2, steps=p.steps),
    "meta_lstm": lambda p: meta_lstm(p.network(), steps=p.steps, hidden=3),
    "reptile": lambda p: reptile(p.network(), rate=0.1, steps=p.steps, rule="sgd"),
    "reptile with adam": lambda p: reptile(p.network(), rate=0.01, steps=p.steps),
    "imaml": lambda p: imaml(p.network(), rate=0.2, steps=p.steps, prox=2.0),
    "imaml of its authors": lambda p: imaml(p.network(), rate=0.2, steps=p.steps, prox=2.0, variant="authors"),
    "protonet": lambda p: protonet(p.embedding()),
    "protomaml": lambda p: protomaml(p.embedding(), rate=0.05, steps=p.steps),
    "leo": lambda p: leo(
        FEATURES, normalise=False, latents=p.hidden, latent_steps=p.steps, finetuning_steps=1, latent_rate=0.2
    ),
    "leo of its paper": lambda p: leo(
        FEATURES,
        normalise=False,
        latents=p.hidden,
        latent_steps=p.steps,
        finetuning_steps=2,
        latent_rate=0.2,
        formulation="paper",
    ),
}
algorithms = pytest.mark.parametrize("name", ALGORITHMS)


def built(name: str, problem: Problem) -> Method:
    torch.manual_seed(problem.seed)
    method = ALGORITHMS[name](problem)
    method.learner.double()
    with torch.no_grad():
        for p in method.learner.parameters():  # away from zero biases and from identities
            p += 0.05 * torch.randn_like(p)
    return method


def outcome(method: Method, task: Task) -> dict[str, Tensor]:
    """Objective, meta-gradients, and what the adapted point predicts for the query."""
    method.learner.zero_grad()
    tasks = tree_map(lambda t: t.unsqueeze(0), task)
    objective = method.objective(tasks, None).objective
    objective.backward()
    found = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in method.learner.named_parameters()}
    prediction = method.predict(method.adapt(tasks.support), tasks.query)[0]
    return {"the objective": objective.detach(), "a prediction": prediction, **{n: g.clone() for n, g in found.items()}}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, **CLOSE)


def repeated(batch: Batch) -> Batch:
    """Every row as often as its weight says."""
    times = batch.weight.long()
    x, y = (t.repeat_interleave(times, 0) for t in (batch.x, batch.y))
    return Batch(x, y, torch.ones(len(x), dtype=torch.float64))


def padded(task: Task, rows: int, content: float) -> Task:
    """With rows of weight zero at the end of support and query."""

    def longer(batch: Batch) -> Batch:
        more = batch.x.new_full((rows, FEATURES), content), batch.y[:1].expand(rows, -1), batch.weight.new_zeros(rows)
        return Batch(*(torch.cat(pair) for pair in zip(batch, more, strict=True)))

    return Task(*map(longer, task))


def shortened(found: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Without what is predicted for the last rows."""
    prediction = found["a prediction"]
    return {**found, "a prediction": prediction[: len(prediction) - rows]}


@algorithms
@few
@given(problems())
def test_a_row_of_weight_two_is_that_row_twice(name: str, problem: Problem) -> None:
    if name == "leo":
        pytest.skip(
            "each row owns a code, and a class of K codes moves at 1/K of the rate: rows are counted, not weighed"
        )
    method, task = built(name, problem), problem.task
    several, heavy = outcome(method, Task(*map(repeated, task))), outcome(method, task)
    rows = task.query.weight.long()
    heavy["a prediction"] = heavy["a prediction"].repeat_interleave(rows, 0)
    agree(heavy, several)


@algorithms
@few
@given(problems())
def test_the_order_of_rows_does_not_matter(name: str, problem: Problem) -> None:
    method, task = built(name, problem), problem.task
    source = torch.Generator().manual_seed(problem.seed + 1)
    orders = [torch.randperm(len(batch.weight), generator=source) for batch in task]
    moved = Task(*(Batch(*(t[order] for t in batch)) for batch, order in zip(task, orders, strict=True)))
    before = outcome(method, task)
    before["a prediction"] = before["a prediction"][orders[1]]
    agree(outcome(method, moved), before)


@algorithms
@few
@given(problems(), st.integers(1, 4), st.sampled_from([1e3, -7.0, 0.0]))
def test_rows_of_weight_zero_are_no_rows(name: str, problem: Problem, rows: int, content: float) -> None:
    method, task = built(name, problem), problem.task

    agree(shortened(outcome(method, padded(task, rows, content)), rows), outcome(method, task))


@algorithms
@few
@given(problems())
def test_without_inner_steps_the_start_predicts(name: str, problem: Problem) -> None:
    """The start's own point, decoded. Nothing else of the support is read, unless the start is made of it."""
    method = built(name, problem)
    support, query = problem.task
    with inner_steps(method.learner, 0):
        point = method.adapt(tree_map(lambda t: t.unsqueeze(0), support))
    learner = method.learner
    begun, _ = learner.start.begin(learner.network, support, None)
    decoded = learner.start.decode(begun, None)
    torch.testing.assert_close({n: v[0] for n, v in point.value.items()}, dict(decoded.value), rtol=1e-12, atol=1e-14)
    if name not in ("protonet", "protomaml", "leo", "leo of its paper"):
        parameters = dict(learner.network.named_parameters())
        assert all(torch.equal(value[0], parameters[n]) for n, value in point.value.items())
        plain = learner.network  # unadapted, and on its own
        for part in plain.modules():
            if hasattr(part, "row_weight"):
                part.row_weight = query.weight
        expected = plain(query.x)
        torch.testing.assert_close(learner.predict(decoded, query), expected, rtol=1e-12, atol=1e-14)


@few
@given(problems())
def test_mini_batches_of_evaluation_skip_padding_that_follows(problem: Problem) -> None:
    """The one law of rows that holds for mini-batches, whose shuffle deals rows by their places, each once a pass."""
    torch.manual_seed(problem.seed)
    method = reptile(problem.network(), rate=0.1, steps=problem.steps, batch=2, rule="sgd")
    method.learner.double()
    agree(shortened(outcome(method, padded(problem.task, 2, 1e3)), 2), outcome(method, problem.task))


@pytest.mark.parametrize("formulation", ["official", "paper"])
@few
@given(problems(), st.integers(1, 3))
def test_rows_of_weight_zero_are_no_rows_in_leos_meta_training(formulation: str, problem: Problem, rows: int) -> None:
    """With all its noise, its dropout and its penalties: the draws of rows that count are the same."""
    task = problem.task
    if len(task.support.weight) == problem.ways:
        return  # one shot has codes by class, in another order
    task = Task(*(batch._replace(weight=batch.weight.clamp(max=1)) for batch in task))
    torch.manual_seed(problem.seed)
    weights = {"kl_weight": 0.3, "encoder_penalty_weight": 0.2, "orthogonality_weight": 0.1}
    steps = {"latent_steps": problem.steps, "finetuning_steps": 2, "latent_rate": 0.2, "finetuning_rate": 0.1}
    method = leo(
        FEATURES, normalise=False, latents=problem.hidden, dropout=0.3, formulation=formulation, **weights, **steps
    )
    method.learner.double()
    several, longer = (tree_map(lambda t: t.unsqueeze(0), t) for t in (task, padded(task, rows, 1e3)))
    drawn = method.learner.noise(longer, generator(problem.seed, 0, "noise"))
    same = tree_map(
        lambda own, all_: all_[:, : own.shape[1]], method.learner.noise(several, generator(0, 0, "")), drawn
    )
    found = []
    for tasks, noise in ((several, same), (longer, drawn)):
        method.learner.zero_grad()
        objective = method.objective(tasks, noise).objective
        objective.backward()
        gradients = {name: p.grad.clone() for name, p in method.learner.named_parameters()}
        found.append({"the objective": objective.detach(), **gradients})
    agree(found[1], found[0])
