"""What every method must satisfy, in float64."""

from pathlib import Path

import pytest
import torch
from cases import CASES, Case, algorithm, images
from safetensors.torch import load_file, save_file
from torch.utils._pytree import tree_map

from fewstep import algorithms
from fewstep.core import Differentiate, Executor, Loop, Method, Task, Vmap, generator

contract = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def once(case: Case) -> object:
    """A case whose images are for the long contract, because its algorithm has others on vectors."""
    others = any(algorithm(other.name) == algorithm(case.name) and other.tasks is not images for other in CASES)
    return pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.tasks is images and others else [])


contract_of_algorithms = pytest.mark.parametrize("case", [once(case) for case in CASES])
"""For what depends on the parts of a method and not on the network."""


def noise_of(method: Method, tasks: Task, step: int = 0) -> object:
    return method.noise(tasks, generator(0, step, "noise"))


def gradients(
    method: Method, tasks: Task, noise: object, executor: Executor, granularity: str | None = None
) -> torch.Tensor:
    """The objective and all meta-gradients in one vector."""
    estimate = method.objective(tasks, noise, executor, granularity)  # type: ignore[arg-type]
    parameters = list(method.learner.parameters())
    found = torch.autograd.grad(estimate.objective, parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([estimate.objective.reshape(1), *(g.reshape(-1) for g in filled)]).detach()


@pytest.mark.parametrize("name", algorithms.__all__)
def test_every_algorithm_has_a_row_on_vectors_and_on_images_with_batch_normalisation(name: str) -> None:
    rows = [case for case in CASES if algorithm(case.name) == name.replace("_", "-")]
    found = {tasks.support.x.dim() > 3 for _, tasks in (case.build() for case in rows)}
    assert found == {False, True}
    normalised = [case for case in rows if case.build()[0].learner.batch_normalised]
    assert normalised or name == "leo"


@contract
def test_finite_differences_of_every_meta_parameter(case: Case) -> None:
    if not case.differentiable:
        pytest.skip("stops gradients on purpose: see test_witnesses.py")
    method, tasks = case.build()
    noise = noise_of(method, tasks)
    method.objective(tasks, noise).objective.backward()
    source = torch.Generator().manual_seed(3)
    for name, parameter in method.learner.named_parameters():
        assert parameter.grad is not None, f"{name} is untrained"
        direction = torch.randn(parameter.shape, generator=source, dtype=torch.float64)
        direction /= direction.norm()
        values, h = [], 1e-5
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter += sign * h * direction
                values.append(method.objective(tasks, noise).objective.item())
        measured = (values[0] - values[1]) / (2 * h)
        expected = (parameter.grad * direction).sum().item()
        assert measured == pytest.approx(expected, rel=1e-5, abs=1e-8), name


@contract
def test_executors_agree(case: Case) -> None:
    method, tasks = case.build()
    noise = noise_of(method, tasks)
    reference = gradients(method, tasks, noise, Loop())
    for executor in (Vmap(), Vmap(chunk=2)):
        torch.testing.assert_close(gradients(method, tasks, noise, executor), reference, rtol=1e-9, atol=1e-11)
    for executor in (Vmap(), Loop()):
        mapped = gradients(method, tasks, noise, executor, "step")
        torch.testing.assert_close(mapped, reference, rtol=1e-9, atol=1e-11)


@contract_of_algorithms
def test_recomputed_steps_give_the_same_gradients(case: Case) -> None:
    method, tasks = case.build()
    noise = noise_of(method, tasks)
    reference = gradients(method, tasks, noise, Vmap())
    method.learner.recompute = True
    for executor in (Vmap(), Loop()):
        torch.testing.assert_close(gradients(method, tasks, noise, executor), reference, rtol=1e-9, atol=1e-11)


@contract
def test_gradients_of_groups_of_tasks_add_up(case: Case) -> None:
    method, tasks = case.build()
    reference = method.objective(tasks, noise_of(method, tasks))
    expected = torch.autograd.grad(reference.objective, list(method.learner.parameters()))
    draws = method.draws(tasks, generator(0, 0, "noise"))
    for executor in (Vmap(chunk=3), Loop()):  # three tasks and one; one after another
        objective, found, metrics = Differentiate(method, executor)(tasks, draws)
        torch.testing.assert_close([objective, *found], [reference.objective.detach(), *expected])
        torch.testing.assert_close(metrics, {name: v.mean() for name, v in reference.metrics.items()})


@contract
def test_order_of_tasks_does_not_matter(case: Case) -> None:
    method, tasks = case.build()
    noise = noise_of(method, tasks)
    order = torch.tensor([2, 0, 1, 3][: len(tasks.support.weight)])
    shuffled = tree_map(lambda t: t[order], (tasks, noise))
    torch.testing.assert_close(
        gradients(method, *shuffled, Vmap()), gradients(method, tasks, noise, Vmap()), rtol=1e-10, atol=1e-12
    )


@contract
def test_renaming_classes_renames_predictions(case: Case) -> None:
    if not case.equivariant:
        pytest.skip("the head's rows are meta-learned one by one")
    method, tasks = case.build()
    order = torch.tensor([2, 0, 1])
    renamed = tasks.support._replace(y=tasks.support.y[..., order])
    before = method.predict(method.adapt(tasks.support), tasks.query)
    after = method.predict(method.adapt(renamed), tasks.query)
    torch.testing.assert_close(after, before[..., order], rtol=1e-10, atol=1e-12)


@contract
def test_padded_rows_count_for_nothing(case: Case) -> None:
    method, tasks = case.build()
    # Remove the padded row of the first task for real, and compare with giving it weight zero and absurd contents.
    first = tree_map(lambda t: t[:1], tasks)
    if bool(first.support.weight.all()):
        first.support.weight[0, -1] = 0
    first.support.x[0, -1] = 7.0
    padded = method.predict(method.adapt(first.support), first.query)
    without = tree_map(lambda t: t[:, :-1], first.support)
    if not bool(without.y.sum(1).all()):
        pytest.skip("the class would be empty without its only row")
    torch.testing.assert_close(method.predict(method.adapt(without), first.query), padded, rtol=1e-10, atol=1e-12)


@contract
def test_same_seed_same_bits(case: Case) -> None:
    runs = []
    for _ in range(2):
        method, tasks = case.build()
        runs.append(gradients(method, tasks, noise_of(method, tasks, step=5), Vmap()))
    assert torch.equal(*runs)


@contract
def test_checkpoint_round_trip(case: Case, tmp_path: Path) -> None:
    method, tasks = case.build()
    save_file(method.learner.state_dict(), tmp_path / "learner.safetensors")
    other, _ = case.build()
    with torch.no_grad():
        for parameter in other.learner.parameters():
            parameter.fill_(0.1)
    other.learner.load_state_dict(load_file(tmp_path / "learner.safetensors"))
    noise = noise_of(method, tasks)
    assert torch.equal(gradients(method, tasks, noise, Vmap()), gradients(other, tasks, noise, Vmap()))


@contract_of_algorithms
def test_meta_training_lowers_the_query_loss(case: Case) -> None:
    method, tasks = case.build()
    optimiser = torch.optim.Adam(method.learner.parameters(), lr=0.02)

    def judged() -> torch.Tensor:
        found = method.objective(tasks, None)  # a log determinant may outweigh the loss that it is added to
        return (found.objective if "log_det" in found.metrics else found.metrics["loss"].mean()).detach()

    before = judged()
    for step in range(30):
        optimiser.zero_grad()
        method.objective(tasks, noise_of(method, tasks, step)).objective.backward()
        optimiser.step()
    after = judged()
    assert after < before - 0.1 * abs(before), (before, after)
