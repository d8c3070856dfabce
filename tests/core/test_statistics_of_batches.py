"""What batch normalisation of a query takes its statistics from, against torch's own ``batch_norm`` row by row."""

import re
from collections.abc import Callable
from inspect import unwrap

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from test_witnesses import build
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import fomaml, leo, maml, meta_lstm, protonet
from fewstep.core import (
    SGD,
    Backprop,
    Batch,
    Decode,
    Descend,
    Generator,
    Learner,
    Loop,
    Method,
    Params,
    Task,
    Vmap,
    regression,
)
from fewstep.evaluation import evaluate
from fewstep.networks import Generated, mlp
from fewstep.networks.norms import BatchNorm

CLOSE = {"rtol": 1e-10, "atol": 1e-12}
Norm = Callable[[str, Tensor, Tensor, Tensor, float], Tensor]
OPTIONS = ("query", "support", "joined", "running")


# -- witnesses ---------------------------------------------------------------------------------------------------------


def mlp_with(norm: Norm, p: Params, x: Tensor) -> Tensor:
    for i in (0, 3):
        x = F.linear(x, p[f"{i}.weight"], p[f"{i}.bias"])
        x = F.relu(norm(f"{i + 1}", x, p[f"{i + 1}.weight"], p[f"{i + 1}.bias"], 1e-5))
    return F.linear(x, p["6.weight"], p["6.bias"])


def conv_with(norm: Norm, p: Params, x: Tensor) -> Tensor:
    for i in (0, 3):
        x = F.conv2d(x, p[f"blocks.{i}.weight"], p[f"blocks.{i}.bias"], stride=2, padding=1)
        name = f"blocks.{i + 1}"
        x = F.relu(norm(name, x, p[f"{name}.weight"], p[f"{name}.bias"], 1e-3))
    return F.linear(x.mean((2, 3)), p["head.weight"], p["head.bias"])


WITH = {"mlp": mlp_with, "conv": conv_with}
kinds = pytest.mark.parametrize("kind", WITH)


def by_batch(_: str, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)


def joined_by_hand(kind: str, p: Params, support: Tensor, query: Tensor) -> Tensor:
    """One query row at a time, at the end of the support."""
    return torch.stack([WITH[kind](by_batch, p, torch.cat([support, row[None]]))[-1] for row in query])


def support_by_hand(kind: str, p: Params, support: Tensor, query: Tensor) -> Tensor:
    """The support's own statistics at every layer, layer by layer kept while the support passes."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        axes = [0, *range(2, x.dim())]
        kept[name] = (x.mean(axes), x.var(axes, unbiased=False))
        return by_batch(name, x, weight, bias, eps)

    WITH[kind](keep, p, support)
    return WITH[kind](lambda n, x, w, b, eps: F.batch_norm(x, *kept[n], w, b, training=False, eps=eps), p, query)


def running_by_hand(kind: str, path: list[Params], support: Tensor, query: Tensor, momentum: float) -> Tensor:
    """Statistics that begin at 0 and 1 and see the support at every weight of the path but the last."""
    running: dict[str, tuple[Tensor, Tensor]] = {}

    def follow(name: str, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        axes, count = [0, *range(2, x.dim())], x.shape[1]
        mean, variance = running.get(name, (torch.zeros(count), torch.ones(count)))
        running[name] = (
            (1 - momentum) * mean.double() + momentum * x.mean(axes),
            (1 - momentum) * variance.double() + momentum * x.var(axes, unbiased=False),
        )
        return by_batch(name, x, weight, bias, eps)

    for p in path[:-1] or path:
        WITH[kind](follow, p, support)
    return WITH[kind](
        lambda n, x, w, b, eps: F.batch_norm(x, *running[n], w, b, training=False, eps=eps), path[-1], query
    )


def path_by_hand(kind: str, theta: Params, support: Batch, rate: float, steps: int, loss: Callable) -> list[Params]:
    path = [{n: p.detach().requires_grad_() for n, p in theta.items()}]
    for _ in range(steps):
        value = loss(WITH[kind](by_batch, path[-1], support.x), support.y)
        slope = torch.autograd.grad(value, list(path[-1].values()))
        path.append(
            {n: (p - rate * s).detach().requires_grad_() for (n, p), s in zip(path[-1].items(), slope, strict=True)}
        )
    return [{n: p.detach() for n, p in point.items()} for point in path]


def real(batch: Batch, i: int) -> Batch:
    return Batch(*(t[i][batch.weight[i] > 0] for t in batch))


def by_hand(kind: str, option: str, path: list[Params], support: Tensor, query: Tensor, momentum: float) -> Tensor:
    if option == "query":
        return WITH[kind](by_batch, path[-1], query)
    if option == "running":
        return running_by_hand(kind, path, support, query, momentum)
    return {"support": support_by_hand, "joined": joined_by_hand}[option](kind, path[-1], support, query)


def crossed(prediction: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(prediction, y.argmax(1))


# -- what is witnessed -------------------------------------------------------------------------------------------------


def set_momentum(network: nn.Module, momentum: float) -> None:
    for part in network.modules():
        if isinstance(part, BatchNorm):
            part.momentum = momentum


@kinds
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("executor", [Vmap(), Vmap(chunk=2), Loop()], ids=["vmap", "chunks", "loop"])
def test_predictions_of_adapted_points(kind: str, option: str, executor: Vmap | Loop) -> None:
    network, theta, _, tasks = build(kind)
    set_momentum(network, 0.7)
    tasks.support.x[0, -1] = 9.0  # of weight zero
    method = maml(network, rate=0.3, steps=3)
    point = method.adapt(tasks.support, executor, statistics=option)
    support = tasks.support if option in ("support", "joined") else None
    found = method.predict(point, tasks.query, support, executor, statistics=option)
    for i in range(len(found)):
        rows = real(tasks.support, i)
        path = path_by_hand(kind, theta, rows, 0.3, 3, crossed)
        expected = by_hand(kind, option, path, rows.x, tasks.query.x[i], 0.7)
        torch.testing.assert_close(found[i], expected, **CLOSE)


def test_the_four_differ_and_one_query_row_sees_the_others_in_one_of_them_only() -> None:
    network, _, _, tasks = build("mlp")
    method = maml(network, rate=0.3, steps=2)

    def predict(option: str, query: Batch) -> Tensor:
        point = method.adapt(tasks.support, statistics=option)
        support = tasks.support if option in ("support", "joined") else None
        return method.predict(point, query, support, statistics=option)

    found = {option: predict(option, tasks.query) for option in OPTIONS}
    changed = tasks.query.x.clone()
    changed[:, 1:] = 3 - 2 * changed[:, 1:]
    for i, option in enumerate(OPTIONS):
        for other in OPTIONS[:i]:
            assert (found[option] - found[other]).abs().max() > 1e-2
        kept = predict(option, tasks.query._replace(x=changed))[:, 0]
        assert torch.allclose(kept, found[option][:, 0], rtol=1e-9, atol=1e-11) == (option != "query")


def test_weights_of_rows_weigh_in_the_running_statistics() -> None:
    """A row of weight 2 is that row twice."""
    network, _, _, tasks = build("mlp")
    method, one = maml(network, rate=0.3, steps=2), tree_map(lambda t: t[1:2], tasks)
    twice = Batch(*(torch.cat([t, t[:, :1]], 1) for t in one.support))
    heavy = one.support._replace(weight=one.support.weight.clone())
    heavy.weight[0, 0] = 2
    a, b = (method.adapt(s, statistics="running") for s in (twice, heavy))
    torch.testing.assert_close(a, b, **CLOSE)
    for option in OPTIONS:
        torch.testing.assert_close(
            method.predict(a, one.query, twice, statistics=option),
            method.predict(b, one.query, heavy, statistics=option),
            **CLOSE,
        )


def test_a_prediction_has_the_statistics_that_it_asks_for() -> None:
    """Also at a point that was adapted with running ones; and what they cannot be made of is refused."""
    network, _, _, tasks = build("mlp")
    method = maml(network, rate=0.3, steps=2)
    plain, running = (method.adapt(tasks.support, statistics=option) for option in ("query", "running"))
    for option in ("query", "support", "joined"):
        found = (method.predict(point, tasks.query, tasks.support, statistics=option) for point in (plain, running))
        torch.testing.assert_close(*found, rtol=0, atol=0)
    with pytest.raises(ValueError, match='adapt with statistics="running" too'):
        method.predict(plain, tasks.query, statistics="running")
    with pytest.raises(ValueError, match="'joined' statistics are made of the support; give its rows too"):
        method.predict(plain, tasks.query, statistics="joined")


class Source:
    def __init__(self, tasks: Task, ways: int | None) -> None:
        self.all, self.ways, self.tasks = tasks, ways, len(tasks.support.weight)

    def batch(self, step: int, slice_: slice | None = None) -> Task:
        return tree_map(lambda t: t[slice_ or slice(None)], self.all)


@pytest.mark.parametrize("option", OPTIONS)
def test_evaluation_scores_what_was_predicted_by_hand(option: str) -> None:
    network, theta, _, tasks = build("mlp")
    tasks.support.x[0, -1] = 9.0
    tasks.query.weight[1, 0] = 0
    tasks.query.x[1, 0] = 5.0
    method = maml(network, rate=0.1, steps=2, loss=regression())
    result = evaluate(method, Source(tasks, None), 4, statistics=option, steps=(1,), batch=3)
    assert result.transductive == (option == "query")
    assert result.protocol["batch statistics"] == option
    for name, steps in (("adapted", 2), ("unadapted", 0), ("after 1 step", 1)):
        for i in range(4):
            support, query = real(tasks.support, i), real(tasks.query, i)
            path = path_by_hand("mlp", theta, support, 0.1, steps, F.mse_loss)
            expected = F.mse_loss(by_hand("mlp", option, path, support.x, query.x, 0.9), query.y)
            assert result.scores[name][i] == pytest.approx(expected.item(), rel=1e-9), (name, i)


def test_evaluation_normalises_as_in_meta_training_when_not_told() -> None:
    network, _, _, tasks = build("mlp")
    by_support = Method(maml(network, rate=0.1, loss=regression()).learner, Backprop("support"))
    for method, option in ((maml(network, rate=0.1, loss=regression()), "query"), (by_support, "support")):
        silent, told = (evaluate(method, Source(tasks, None), 4, statistics=s) for s in (None, option))
        assert silent.scores["adapted"].tolist() == told.scores["adapted"].tolist()
        assert silent.transductive == told.transductive == (option == "query")


@pytest.mark.parametrize(
    "make",
    [
        lambda: maml(mlp((6, 5, 3)), rate=0.3, steps=2),
        lambda: fomaml(mlp((6, 5, 3)), rate=0.3, steps=2),
        lambda: meta_lstm(mlp((6, 5, 3)), steps=2),
        lambda: leo(6, latents=3, latent_steps=1, finetuning_steps=1),
        lambda: protonet(mlp((6, 5, None))),
    ],
    ids=["maml", "fomaml", "meta-lstm", "leo", "protonet"],
)
def test_without_batch_normalisation_all_options_agree_and_none_is_transductive(make: Callable[[], Method]) -> None:
    method = make()
    method.learner.double()
    tasks = classification_tasks(6)
    results = [evaluate(method, Source(tasks, 3), 4, statistics=option) for option in OPTIONS]
    assert all("batch statistics" not in result.protocol for result in results)
    for result in results:
        assert result.scores["adapted"].tolist() == results[0].scores["adapted"].tolist()
        assert not result.transductive
    point = method.adapt(tasks.support)
    expected = method.predict(point, tasks.query)
    for option in OPTIONS:
        found = method.predict(point, tasks.query, tasks.support, statistics=option)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        method.predict(method.adapt(tasks.support, statistics="running"), tasks.query), expected, **CLOSE
    )


def test_a_method_without_inner_steps_has_running_statistics_too() -> None:
    """Of its support at the only weights there are: once they were missing, and queries normalised themselves."""
    method = protonet(mlp((6, 5, 4, None), norm=True))
    method.learner.double()
    tasks = classification_tasks(6)
    point = method.adapt(tasks.support, statistics="running")
    p = {name: tensor.detach() for name, tensor in method.learner.network.named_parameters()}
    found = method.predict(point, tasks.query, statistics="running")
    for i in range(4):
        support = real(tasks.support, i)
        head = {"6.weight": torch.eye(4, dtype=torch.float64), "6.bias": torch.zeros(4, dtype=torch.float64)}
        features = mlp_with(by_batch, p | head, support.x)
        means = torch.stack([features[support.y[:, n] > 0].mean(0) for n in range(3)])
        queried = running_by_hand("mlp", [p | head], support.x, tasks.query.x[i], 0.9)
        expected = 2 * queried @ means.T - means.square().sum(1)
        torch.testing.assert_close(found[i], expected, **CLOSE)


def test_running_statistics_where_codes_are_decoded() -> None:
    """A normalised body before a generated head: its weights do not adapt, so every point has the same statistics."""
    body = nn.Sequential(nn.Linear(6, 6), BatchNorm(6, momentum=1.0), Generated())
    stages = [Descend(SGD(0.1), 2), Decode(), Descend(SGD(0.1), 2)]
    learner = Learner(body, Generator(6, 3, head="2."), stages).double()
    tasks = classification_tasks(6)
    point = Method(learner, Backprop()).adapt(tasks.support, statistics="running")
    for i in range(4):
        x = body[0](real(tasks.support, i).x)
        expected = x.mean(0), x.var(0, unbiased=False)
        torch.testing.assert_close((point.context["1.mean"][i], point.context["1.variance"][i]), expected, **CLOSE)


def test_a_query_is_joined_to_a_support_or_not_at_all() -> None:
    network, _, _, tasks = build("mlp")
    method = maml(network, rate=0.1, loss=regression())
    with pytest.raises(ValueError, match="give its rows too"):
        method.predict(method.adapt(tasks.support), tasks.query, statistics="joined")


def test_statistics_that_there_are_not_are_refused_wherever_they_are_chosen() -> None:
    network, _, _, tasks = build("mlp")
    method = maml(network, rate=0.1)
    point, task = method.adapt(tasks.support), tree_map(lambda tensor: tensor[0], tasks)
    one = tree_map(lambda tensor: tensor[0], point)
    choices: dict[str, Callable[[], object]] = {
        "Learner.predict": lambda: unwrap(Learner.predict)(method.learner, one, task.query, statistics="batch"),
        "Method.adapt": lambda: unwrap(Method.adapt)(method, tasks.support, statistics="batch"),
        "Backprop": lambda: unwrap(Backprop.__init__)(Backprop(), "batch"),
    }
    for name, choose in choices.items():
        said = f"{name}: statistics is one of 'query', 'support', 'joined', 'running', got 'batch'."
        with pytest.raises(ValueError, match=re.escape(said)):
            choose()
    with pytest.raises(ValueError, match="running statistics are of testing"):
        Backprop("running")
