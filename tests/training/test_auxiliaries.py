"""Auxiliary losses beside tasks: against loops by hand, on resumption, in several processes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewstep.algorithms import deml, protonet
from fewstep.core import Auxiliary, Batch, Learner, Method
from fewstep.core.loss import cross_entropy
from fewstep.core.noise import generator
from fewstep.core.ranks import Ranks
from fewstep.data import Dataset, EpisodeSampler, RandomRows
from fewstep.networks import mlp
from fewstep.training import Trainer, Training
from fewstep.training.auxiliaries import Aside

DATA = Dataset.from_sorted(torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), range(0, 61, 10))
SOURCE = EpisodeSampler(DATA, ways=3, shots=2, queries=2, tasks=2, seed=0)
OPTIONS = Training(steps=8, rate=0.01, decay="linear", clip_norm=0.3, log_every=4, checkpoint_every=1, compile="off")


def build(weight: float | None, chance: Callable[[float], float]) -> tuple[Method, nn.Linear]:
    """ProtoNet whose features are to name the classes too, by a classifier that only this loss has."""
    torch.manual_seed(0)
    named, method = nn.Linear(4, 6), protonet(mlp((6, 5, 4, None)))

    def loss(learner: Learner, batch: Batch) -> Tensor:
        return cross_entropy(named(learner.network(batch.x)), batch.y).mean()

    beside = Auxiliary(loss, RandomRows(DATA, 7), weight, chance, named, "naming")
    return replace(method, auxiliaries=[beside]), named


def trainer(method: Method, folder: Path, options: Training = OPTIONS) -> Trainer:
    return Trainer(method, SOURCE, options, lambda _: 0.0, folder=folder, seed=3)


def often(done: float) -> float:
    return 0.8 - 0.5 * done


@pytest.mark.parametrize("weight", [None, 0.5])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_it_is_a_step_of_its_own_or_a_term_as_in_a_loop_by_hand(
    weight: float | None, optimiser: str, tmp_path: Path
) -> None:
    ours, (theirs, named) = build(weight, often)[0], build(weight, often)
    momentum = 0.9 if optimiser == "sgd" else 0.0
    options = replace(OPTIONS, optimiser=optimiser, momentum=momentum)
    run, taken, losses = trainer(ours, tmp_path, options), [], []
    shared, own = list(theirs.learner.parameters()), list(named.parameters())
    kind = torch.optim.Adam if optimiser == "adam" else partial(torch.optim.SGD, momentum=momentum)
    whole, apart = kind([*shared, *own], lr=0.01), kind([*shared, *own], lr=0.01)  # moments of two steps are apart
    (beside,) = theirs.auxiliaries
    for step in range(8):
        run.advance()
        rows, rate = beside.rows(3, step, step / 8), 0.01 * (1 - step / 8)
        taken.append(rows is not None)

        def move(moving: torch.optim.Optimizer, objective: Tensor, rate: float = rate) -> None:
            moving.zero_grad()
            objective.backward()
            for parameter in (*shared, *own):
                if parameter.grad is not None:
                    nn.utils.clip_grad_norm_(parameter, 0.3)
            moving.param_groups[0]["lr"] = rate
            moving.step()

        if rows is not None and weight is None:
            loss = beside.loss(theirs.learner, rows)
            losses.append(loss.item())
            move(apart, loss)
        objective = theirs.objective(SOURCE.batch(step), None).objective
        if rows is not None and weight is not None:
            loss = beside.loss(theirs.learner, rows)
            losses.append(loss.item())
            objective = objective + weight * loss
        move(whole, objective)
    assert 2 < sum(taken) < 8, "of no interest"
    (aside,) = run.asides
    for a, b in zip([*ours.learner.parameters(), *aside.own], [*shared, *own], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)
    logged = [value for _, split, name, value in run.metrics.rows if (split, name) == ("train", "naming")]
    expected = [np.mean(losses[: sum(taken[:4])]), np.mean(losses[sum(taken[:4]) :])]
    np.testing.assert_allclose(logged, expected, rtol=1e-5)  # over the steps that it took part in


@pytest.mark.parametrize("weight", [None, 0.5])
def test_a_training_that_goes_on_has_the_same_bits(weight: float | None, tmp_path: Path) -> None:
    """What only the loss has is in the checkpoint too; a real kill: tests/training/test_resume.py."""
    whole = trainer(build(weight, often)[0], tmp_path / "whole")
    for _ in range(8):
        whole.advance()
    for _ in range(4):
        part = trainer(build(weight, often)[0], tmp_path / "parts")
        part.advance()
        part.advance()
    expected, found = whole.asides[0].tensors(), part.asides[0].tensors()
    assert expected.keys() == found.keys()
    assert any("own/" in name for name in found)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for a, b in zip(whole.parameters, part.parameters, strict=True):
        assert torch.equal(a, b)
    assert whole.metrics.rows == part.metrics.rows


def test_one_process_computes_it_and_all_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat: None)
    method, _ = build(None, lambda done: 1.0)
    (beside,) = method.auxiliaries
    alone, first, second = (Aside(beside, method.learner, OPTIONS).at(2, 3, Ranks(*of)) for of in ((), (0, 2), (1, 2)))
    assert alone is not None
    assert first is not None
    assert second is not None
    for one, of_first, of_second in zip(alone.gradients, first.gradients, second.gradients, strict=True):
        assert torch.equal(one, of_first)
        assert not of_second.any()


def test_one_that_is_not_finite_takes_no_step_and_is_counted(tmp_path: Path) -> None:
    method, _ = build(None, lambda done: 1.0)
    (beside,) = method.auxiliaries
    lost = replace(beside, loss=lambda learner, batch: beside.loss(learner, batch) * float("nan"))
    run, plain = trainer(replace(method, auxiliaries=[lost]), tmp_path / "lost"), build(None, lambda done: 0.0)[0]
    run.advance()
    trainer(plain, tmp_path / "plain").advance()
    assert run.state.nonfinite == 1
    for a, b in zip(run.parameters, plain.learner.parameters(), strict=True):
        assert torch.equal(a, b)
    stopping = trainer(replace(method, auxiliaries=[lost]), tmp_path / "stop", replace(OPTIONS, nonfinite="stop"))
    with pytest.raises(FloatingPointError, match=r"meta-step 0: naming \(nan\) or its gradient is not finite"):
        stopping.advance()


def test_what_cannot_be_is_refused() -> None:
    method, _ = build(None, often)
    (beside,) = method.auxiliaries
    with pytest.raises(ValueError, match=r"told apart by name, but there are loss, accuracy, naming, naming"):
        replace(method, auxiliaries=[beside, beside])
    with pytest.raises(ValueError, match="the weight must be finite, or None for a step of its own; got nan"):
        replace(beside, weight=float("nan"))


def test_rows_carry_the_names_of_their_classes() -> None:
    batch = RandomRows(DATA, 500)(torch.Generator().manual_seed(0))
    where = (batch.x[:, None] == DATA.gather(np.arange(60))).all(2).int().argmax(1)
    assert torch.equal(where // 10, batch.y.argmax(1))
    assert len(where.unique()) == 60, "some rows are never drawn"


def test_concepts_follow_both_losses_and_what_is_adapted_the_tasks_alone(tmp_path: Path) -> None:
    """DEML: a step of gradient descent by hand, in which G has the gradient of ``L_T + λ ℓ``."""
    torch.manual_seed(0)
    concepts, base, options = nn.Linear(6, 4), RandomRows(DATA, 7), replace(OPTIONS, optimiser="sgd", clip_norm=None)
    method = deml(mlp((4, 5, 3)), concepts, 4, weight=0.5, base=base)
    learner, (beside,) = method.learner, method.auxiliaries
    parts = dict(learner.named_parameters())
    torch.rand((), generator=(source := generator(3, 0, "auxiliary/auxiliary")), dtype=torch.float64)
    rows = base(source)  # after the draw that says whether it takes part
    assert isinstance(beside.own, nn.Linear)
    naming = torch.nn.functional.cross_entropy(beside.own(concepts(rows.x)), rows.y.argmax(1))
    tasks = method.objective(SOURCE.batch(0), None).objective
    of_tasks = torch.autograd.grad(tasks, list(parts.values()))
    of_names = torch.autograd.grad(naming, [*concepts.parameters(), *beside.own.parameters()])
    expected = {name: (p - 0.01 * g).detach() for (name, p), g in zip(parts.items(), of_tasks, strict=True)}
    for name, g in zip(("weight", "bias"), of_names, strict=False):
        expected[f"embedding.{name}"] -= 0.01 * 0.5 * g
    named = [(p - 0.01 * 0.5 * g).detach() for p, g in zip(beside.own.parameters(), of_names[2:], strict=True)]
    run = trainer(method, tmp_path, options)
    run.advance()
    torch.testing.assert_close({name: p.detach() for name, p in learner.named_parameters()}, expected)
    torch.testing.assert_close([p.detach() for p in run.asides[0].own], named)
