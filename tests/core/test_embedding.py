"""An embedding in front of a learner: trained by the same meta-gradient, never adapted, passed once."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from cases import LEO, classification_tasks, conv, images
from torch import nn

from fewstep import leo
from fewstep.core import (
    SGD,
    Backprop,
    Batch,
    Descend,
    Difference,
    FirstOrder,
    Implicit,
    Learner,
    Loop,
    MetaGradient,
    Method,
    Shared,
    Task,
    Vmap,
    generator,
)
from fewstep.networks import Conv4, mlp


def split(network: Conv4) -> tuple[nn.Module, nn.Linear]:
    """The same parameters as an embedding and a linear head."""
    body = conv(None).double()
    body.load_state_dict({name: tensor for name, tensor in network.state_dict().items() if "head" not in name})
    head = nn.Linear(4, 3).double()
    head.load_state_dict(network.head.state_dict())
    return body, head


@pytest.mark.parametrize("estimator", [Backprop, FirstOrder, lambda: Implicit(6), lambda: Backprop("support")])
def test_an_embedding_is_the_part_of_a_network_that_is_not_adapted(estimator: Callable[[], MetaGradient]) -> None:
    """ANIL as one network whose head alone is moved, and as an embedding before a head: the same numbers."""
    torch.manual_seed(0)
    whole, tasks = conv().double(), images()
    body, head = split(whole)
    prox = {"prox": 2.0} if isinstance(estimator(), Implicit) else {}
    stage = [Descend(SGD(0.2), 3, **prox)]
    one = Method(Learner(whole, Shared(lambda name: "head" in name), stage), estimator())
    two = Method(Learner(head, Shared(), stage, embedding=body), estimator())
    of_one, of_two = (method.objective(tasks, None) for method in (one, two))
    torch.testing.assert_close(of_one.objective, of_two.objective, rtol=1e-12, atol=1e-12)
    names = [name for name, _ in whole.named_parameters()]
    wanted = torch.autograd.grad(of_one.objective, list(whole.parameters()))
    own = dict(body.named_parameters()) | {f"head.{name}": p for name, p in head.named_parameters()}
    found = torch.autograd.grad(of_two.objective, [own[name] for name in names])
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("manner", ["query", "support", "joined"])
def test_queries_are_normalised_alike_by_an_embedding_and_by_a_network(manner: str) -> None:
    torch.manual_seed(0)
    whole, tasks = conv().double(), images()
    body, head = split(whole)
    stage = [Descend(SGD(0.2), 3)]
    one = Method(Learner(whole, Shared(lambda name: "head" in name), stage), Backprop())
    two = Method(Learner(head, Shared(), stage, embedding=body), Backprop())
    assert two.learner.batch_normalised
    predictions = []
    for method in (one, two):
        point = method.adapt(tasks.support)
        support = None if manner == "query" else tasks.support
        predictions.append(method.predict(point, tasks.query, support, statistics=manner))
    torch.testing.assert_close(*predictions, rtol=1e-10, atol=1e-12)


def test_leo_on_an_embedding_is_leo_on_the_embedded_rows() -> None:
    """Noise and dropout have the shapes of the features, and one pass a row is all there is."""
    torch.manual_seed(0)
    body, tasks = conv(None).double(), classification_tasks(1, 8, 8, tasks=2)
    passed: list[int] = []
    body.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    joint = leo(4, **LEO).on(body)
    joint.learner.double()
    fixed = leo(4, **LEO)
    fixed.learner.double()
    fixed.learner.load_state_dict({n: t for n, t in joint.learner.state_dict().items() if not n.startswith("embed")})

    noise = joint.noise(tasks, generator(0, 0, "noise"))
    passed.clear()
    found = joint.objective(tasks, noise, Loop())
    assert passed == [6, 9] * 2  # the support once and the query once for each task, whatever the steps

    def rows(batch: Batch) -> Batch:
        return Loop()(joint.learner.embed)(batch)

    wanted = fixed.objective(Task(*map(rows, tasks)), noise)
    torch.testing.assert_close(found.objective, wanted.objective, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(found.objective, list(body.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_an_embedding_of_what_is_embedded_already_comes_first() -> None:
    torch.manual_seed(0)
    first, then, tasks = nn.Linear(6, 5), nn.Linear(5, 4), classification_tasks(6)
    method = leo(4, **LEO).on(then).on(first)
    method.learner.double()
    wanted = then(first(tasks.support.x))
    torch.testing.assert_close(method.learner.embed(tasks.support).x, wanted)


def test_recomputed_steps_pass_the_gradient_on_to_the_embedding() -> None:
    torch.manual_seed(0)
    method = leo(4, **LEO).on(conv(None))
    method.learner.double()
    tasks = classification_tasks(1, 8, 8, tasks=2)
    noise = method.noise(tasks, generator(0, 0, "noise"))
    parameters = list(method.learner.parameters())
    stored = torch.autograd.grad(method.objective(tasks, noise).objective, parameters)
    method.learner.recompute = True
    for executor in (Vmap(), Loop()):
        recomputed = torch.autograd.grad(method.objective(tasks, noise, executor).objective, parameters)
        torch.testing.assert_close(recomputed, stored, rtol=1e-9, atol=1e-11)


def test_inputs_of_an_embedding_may_be_integers() -> None:
    torch.manual_seed(0)
    words = nn.Embedding(10, 4)
    method, tasks = leo(12, **LEO).on(nn.Sequential(words, nn.Flatten())), classification_tasks(3)
    tasks = Task(*(Batch((b.x * 9).abs().long() % 10, b.y.float(), b.weight.float()) for b in tasks))
    noise = method.noise(tasks, generator(0, 0, "noise"))
    assert method.learner.noise(tasks, generator(0, 0, "noise"))["begin"]["start"]["code"].is_floating_point()
    method.objective(tasks, noise, Loop()).objective.backward()
    assert words.weight.grad is not None
    assert words.weight.grad.abs().max() > 0


def test_asking_an_embedding_for_its_shape_leaves_no_trace() -> None:
    """A user's own module may have statistics that run, and draw from the global generator."""
    torch.manual_seed(0)
    own = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).double()
    method, before, state = leo(4, **LEO).on(own), copy.deepcopy(own.state_dict()), torch.get_rng_state()
    method.learner.sites(classification_tasks(6))
    torch.testing.assert_close(own.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert own.training


@pytest.mark.parametrize("rate", [-0.1, 1.0, 0.999999])
def test_a_rate_of_dropout_that_drops_everything_is_refused(rate: float) -> None:
    """Rates are rounded to 1/65536, and the last of these to 1."""
    with pytest.raises(ValueError, match=r"dropout (is the rate of dropping,|must be) in \[0, 1\)"):
        leo(4, dropout=rate)


def test_what_an_embedding_cannot_have_is_refused() -> None:
    body = nn.Linear(6, 6)
    with pytest.raises(ValueError, match="the embedding has parameters of the network"):
        Learner(nn.Sequential(body, nn.Linear(6, 3)), Shared(), [], embedding=body)
    stage = [Descend(SGD(0.2), 3)]
    learner = Learner(nn.Linear(4, 3), Shared(), stage, embedding=conv(None))
    with pytest.raises(ValueError, match=r"Difference leaves embedding\.blocks.* untrained"):
        Method(learner, Difference())
    method = Method(learner, Backprop())
    with pytest.raises(ValueError, match=r"Conv4 does not take rows of the shape \[6\]"):
        method.learner.sites(classification_tasks(6))
    method.learner.double()
    with pytest.raises(ValueError, match="embedding normalises by batch statistics"):
        method.adapt(images().support, statistics="running")


def test_running_statistics_of_a_network_behind_an_embedding() -> None:
    """An embedding without norms changes nothing about the running statistics of the network after it."""
    torch.manual_seed(0)
    network, flat = mlp((4, 5, 3), norm=True), nn.Linear(6, 4)
    method = Method(Learner(network, Shared(), [Descend(SGD(0.2), 3)], embedding=flat), Backprop())
    method.learner.double()
    tasks = classification_tasks(6)
    bare = replace(method, learner=Learner(network, Shared(), [Descend(SGD(0.2), 3)]))
    point = method.adapt(tasks.support, statistics="running")
    support = tasks.support._replace(x=flat(tasks.support.x).detach())
    wanted = bare.adapt(support, statistics="running")
    torch.testing.assert_close(point.context, wanted.context)
