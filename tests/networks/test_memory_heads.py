"""Heads that look at the support, against numbers that a program in plain numpy made of the papers' equations."""

from collections.abc import Callable

import pytest
import torch
from cases import classification_tasks
from torch import Tensor, nn
from torch.func import functional_call

from fewstep import FewShotClassifier, matching, relation, snail, tadam, tpn
from fewstep.core import (
    Backprop,
    Batch,
    Conditioning,
    Learner,
    Memory,
    MemoryHead,
    Method,
    Task,
    conditioned_layers,
    generator,
)
from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation import evaluate
from fewstep.networks import BatchNorm, Distances, Generated, Matching, Propagating, Relating, ResNet12, Snail, mlp
from fewstep.networks.conditioning import Modulator
from fewstep.networks.matching import Context
from fewstep.networks.relating import encoder, of_maps, of_vectors
from fewstep.networks.snail import Attention, Dense, Layer


def tensor(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def close(found: Tensor, *expected: list[float], atol: float = 5.01e-7) -> None:
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


@pytest.mark.parametrize(
    ("reduce", "scores", "error"),
    [
        ("sum", ([0.750260, 0.524979], [0.832018, 0.645656]), 0.288947),
        ("mean", ([0.750260, 0.645656], [0.832018, 0.750260]), 0.308467),
    ],
)
def test_pairs_are_scored(reduce: str, scores: tuple[list[float], ...], error: float) -> None:
    pair = nn.Conv1d(4, 1, 1).double()
    support, queries = tensor([1, 0], [3, 2], [0, 1], [2, 1]), tensor([1, 1], [0, 2])
    head = Relating(pair, reduce).double()  # type: ignore[arg-type]
    pair.bias.data.fill_(0.1)  # type: ignore[union-attr]
    pair.weight.data.copy_(tensor([0.5], [-1], [0.25], [0.75]))
    found = asked(head, support, [0, 0, 1, 1], queries)
    close(found.sigmoid(), *scores)
    loss = relation(nn.Identity(), pair).learner.loss
    assert loss.rows(found, torch.eye(2, dtype=torch.float64)).mean().item() == pytest.approx(error, abs=5.01e-7)


@pytest.mark.parametrize(
    ("module", "row"),
    [
        (of_vectors(3, 4), [3]),
        (of_maps(3, 10, hidden=4), [3, 10, 10]),
        (of_maps(3, 4), [3, 4, 4]),
        # without a norm, for which a bias is nothing
        (nn.Sequential(nn.Conv3d(6, 2, (1, 4, 4), (1, 2, 2), (0, 1, 1)), nn.Tanh()), [3, 4, 4]),
    ],
)
def test_pairs_go_through_their_first_layer_as_if_they_were_made(module: nn.Sequential, row: list[int]) -> None:
    source = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data.normal_(generator=source)
    x = torch.randn(10, *row, dtype=torch.float64, generator=source)
    labels, after = [0, 1, 1, 0, 0, 1], nn.Sequential(nn.Identity(), module)  # which is asked for the pairs themselves
    found, expected = (asked(Relating(g), x[:6], labels, x[6:]) for g in (module, after))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.std() > 1e-3


def test_layers_that_are_more_than_themselves_are_asked_as_they_are() -> None:
    class Doubled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain = of_vectors(3, 4)
    expected = 2 * asked(Relating(plain), x[:4], [0, 1, 1, 0], x[4:])
    torch.testing.assert_close(asked(Relating(Doubled(*plain)), x[:4], [0, 1, 1, 0], x[4:]), expected)
    plain[0].register_forward_hook(lambda layer, given, made: 0 * made)
    assert asked(Relating(plain), x[:4], [0, 1, 1, 0], x[4:]).unique().numel() == 1


def test_relation_networks_have_the_published_sizes() -> None:
    for side, inputs, maps, parameters in ((84, 3, 19, [113_088, 115_601]), (28, 1, 5, [111_936, 111_505])):
        embedding, scored = encoder(inputs), of_maps(64, maps)
        found = embedding(torch.zeros(2, inputs, side, side))
        assert found.shape == (2, 64, maps, maps)
        pairs = torch.cat([found, found], 1).unsqueeze(2).expand(-1, -1, 5, -1, -1)
        assert scored(pairs).flatten(1).shape == (2, 5)
        assert [sum(p.numel() for p in part.parameters()) for part in (embedding, scored)] == parameters
    with pytest.raises(ValueError, match="leave nothing of so small maps"):
        of_maps(4, side=3)


POINTS = tensor([0, 0], [2, 0], [0.5, 0.5], [1.5, 0.5], [0, 1], [2, 1])
REACHED = (
    *([16.822519, 13.437881], [13.437881, 17.278648], [17.169367, 15.869307]),
    *([16.229732, 18.483410], [16.170341, 13.858124], [13.460438, 16.176740]),
)
"""What labels of the first two of these points reach, at neighbourhoods of the widths in :class:`Widths`."""


class Widths(nn.Module):
    """Those of the points, by looking them up."""

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] == POINTS).all(2).double() @ tensor([1, 1.1, 0.55, 0.8, 1.2, 0.9]).T


def test_labels_spread() -> None:
    head, weight = Propagating(Widths(), neighbours=3), torch.ones(4, dtype=torch.float64)
    y = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1, 0, 1]]
    slots = {"rows": POINTS[:2], "labels": y[:2], "weights": weight[:2], "row_weight": weight}
    close(functional_call(head, slots, POINTS[2:]), *REACHED[2:])
    close(functional_call(head, slots | {"whole": weight}, POINTS[2:]), *REACHED)
    task = Task(
        Batch(POINTS[None, :2], y[None, :2], weight[None, :2]), Batch(POINTS[None, 2:], y[None, 2:], weight[None])
    )
    for support_rows, loss in ((True, 0.092316), (False, 0.124829)):
        method = tpn(nn.Identity(), Widths(), neighbours=3, support_rows=support_rows)
        assert method.objective(task, None).objective.item() == pytest.approx(loss, abs=5.01e-7)


def test_padded_queries_are_no_part_of_a_graph() -> None:
    tasks, method = classification_tasks(6), tpn(nn.Linear(6, 4).double(), neighbours=4)
    points, query = method.adapt(tasks.support), tasks.query
    query.weight[:, [1, -1]] = 0
    found = method.predict(points, query)
    kept = [row for row in range(9) if row not in (1, 8)]
    fewer = Batch(query.x[:, kept], query.y[:, kept], query.weight[:, kept])
    torch.testing.assert_close(found[:, kept], method.predict(points, fewer), rtol=1e-10, atol=1e-11)
    assert not found[:, [1, 8]].any()


def test_a_graph_is_transductive_and_says_so() -> None:
    tasks, method = classification_tasks(6), tpn(nn.Linear(6, 4).double(), neighbours=4)
    points = method.adapt(tasks.support)
    one = Batch(*(part[:, :1] for part in tasks.query))
    together, alone = method.predict(points, tasks.query)[:, :1], method.predict(points, one)
    assert (together - alone).abs().max() > 0.1
    for statistics in ("support", "joined", "running"):
        with pytest.raises(ValueError, match=r"answers queries together.*use statistics=\"query\", got"):
            method.predict(points, tasks.query, tasks.support, statistics=statistics)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="answers queries together"):
        method.adapt(tasks.support, statistics="running")
    with pytest.raises(ValueError, match="must end with one JointHead, but found none"):
        Method(matching(nn.Linear(6, 4)).learner, Backprop(support_rows=True))

    rows = tasks.support.x[1].numpy(), tasks.support.y[1].argmax(1).numpy()
    with pytest.warns(UserWarning, match=r"\(transductive\): the method answers rows together by design"):
        FewShotClassifier(method).fit(*rows)
    with pytest.raises(ValueError, match="answers queries together"):
        FewShotClassifier(method, statistics="support").fit(*rows)

    x = torch.randn(60, 6, dtype=torch.float64)
    source = EpisodeSampler(
        Dataset.from_sorted(x, range(0, 61, 10)), ways=3, shots=1, queries=None, tasks=2, seed=0, dtype=torch.float64
    )
    assert evaluate(method, source, 2).transductive
    assert not evaluate(matching(nn.Linear(6, 4).double()), source, 2).transductive


COLUMNS = tensor([1, 0], [0, 1], [1, 1], [2, -1])


def new_channels(layer: Layer, columns: Tensor = COLUMNS) -> Tensor:
    """What a layer adds to a support of all columns but the last, and to a query that is the last."""
    s, q, there = columns[:-1], columns[-1:], torch.ones(len(columns) - 1, dtype=torch.bool)
    return torch.cat([layer.support(s, there), layer.queries(q, s, there)])[:, columns.shape[1] :]


@pytest.mark.parametrize(
    ("lag", "expected"),
    [
        (2, ([0.173058, -0.168060], [-0.259192, 0.174864], [0.190171, 0.008222], [0.173905, -0.422497])),
        (1, ([0.173058, -0.168060], [-0.035105, 0.163815], [-0.173261, -0.119300], [0.213767, -0.315036])),
    ],
)
def test_convolutions_are_causal(lag: int, expected: tuple[list[float], ...]) -> None:
    layer = Dense(2, 2, lag).double()
    assert layer.past is not None
    layer.past.weight.data.copy_(torch.cat([matrix(2, 2, 0), matrix(2, 2, 2)]))
    layer.now.weight.data.copy_(torch.cat([matrix(2, 2, 1), matrix(2, 2, 3)]))
    nn.init.zeros_(layer.now.bias)
    close(new_channels(layer), *expected)


def test_attention_is_causal() -> None:
    layer = Attention(2, 3, 2).double()
    for linear, weight in (
        (layer.query, matrix(3, 2, 10)),
        (layer.key, matrix(3, 2, 11)),
        (layer.value, matrix(2, 2, 12)),
    ):
        linear.weight.data.copy_(weight)
        nn.init.zeros_(linear.bias)
    close(
        new_channels(layer), *([0.210084, 0.325144], [0.015128, -0.060673], [0.046763, -0.028292], [0.315294, 0.518743])
    )


def test_a_sequence_is_as_wide_as_the_paper_says_and_for_its_ways_alone() -> None:
    widths = [layer.query.in_features for layer in Snail(384, 5, shots=1).layers if isinstance(layer, Attention)]
    assert (widths, Snail(384, 5, shots=1).last.in_features) == ([389, 805, 1317], 1573)
    assert Snail(384, 5, shots=5).last.in_features == 2085
    lags = [[d.lag for d in Snail(4, 5, k, first=f).layers if isinstance(d, Dense)] for k, f in ((1, 2), (5, 1))]
    assert lags == [2 * [2, 4, 8], 2 * [1, 2, 4, 8, 16]]
    method = snail(nn.Linear(6, 4), 4, ways=5, filters=4)
    rows = torch.randn(6, 6).numpy()
    with pytest.raises(ValueError, match="made for 5 ways, and cannot answer for 3"):
        FewShotClassifier(method).fit(rows, [0, 1, 2, 0, 1, 2])


def test_columns_of_the_support_are_computed_once_for_all_queries() -> None:
    """As whole sequences, one for each query, give them; padding in between is as if it were not there."""
    torch.manual_seed(0)
    head, rows, queries = (
        Snail(3, 2, shots=3, filters=4).double(),
        torch.randn(7, 3).double(),
        torch.randn(2, 3).double(),
    )
    y, weights = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1, 1, 0, 1]], tensor([1, 1, 0, 1, 0, 1, 1])[0]
    found = functional_call(head, {"rows": rows, "labels": y, "weights": weights}, queries)
    kept = weights > 0
    for query, logits in zip(queries, found, strict=True):
        columns = torch.cat([torch.cat([rows[kept], query[None]]), torch.cat([y[kept], torch.zeros(1, 2)])], 1)
        for layer in head.layers:
            columns = layer.support(columns, torch.ones(6, dtype=torch.bool))  # type: ignore[operator]
        torch.testing.assert_close(head.last(columns)[-1], logits, rtol=1e-12, atol=1e-12)


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


def modulator() -> Modulator:
    """Of two channels, from tasks of three features, with the numbers of the witness."""
    module = Modulator(3, 2).double()
    for gated, gate, shift in ((module.gain, 0.3, 0), (module.shift, -0.2, 3)):
        for i, layer in enumerate((gated.first, gated.second, gated.third)):
            layer.weight.data = matrix(2, 2 if i else 3, shift + i)
        gated.gate.data.fill_(gate)
    return module


def test_a_task_scales_and_shifts_channels() -> None:
    """From its class means [0, 0, 2] and [1, 1, 0]."""
    rows = tensor([0, 0, 1], [0, 0, 3], [1, 1, 0])
    labels, weights = torch.eye(2, dtype=torch.float64)[[0, 0, 1]], torch.ones(3, dtype=torch.float64)
    close(modulator()(tensor([0.5, 0.5, 1])[0]), [1.044894, 0.990013], [0.011769, 0.010975])
    for layer, x in ((BatchNorm(2), None), (nn.Linear(2, 2), None), (nn.Conv2d(2, 2, 1), 0)):
        network = nn.Sequential(layer.double())
        for parameter in network.parameters():
            parameter.data.add_(torch.rand_like(parameter))
        given = torch.randn(5, 2, *(() if x is None else (3, 3)), dtype=torch.float64)
        own = Conditioning({"0": modulator()})(network, rows, labels, weights)
        before, after = network(given), functional_call(network, own, given)
        gain, shift = (v.view(-1, *(1,) * (given.dim() - 2)) for v in modulator()(tensor([0.5, 0.5, 1])[0]))
        torch.testing.assert_close(after, gain * before + shift)
    normed = tensor([1, -1], [0.5, 2])  # what batch normalisation gave
    own = Conditioning({"0": modulator()})(nn.Sequential(BatchNorm(2).double()), rows, labels, weights)
    close(own["0.weight"] * normed + own["0.bias"], [1.056663, -0.979038], [0.534216, 1.991001])


@pytest.mark.parametrize(
    ("squared", "logits", "shares"),
    [(False, [-11.25, -8.385255], [0.053924, 0.946076]), (True, [-16.875, -9.375], [0.000553, 0.999447])],
)
def test_distances_to_class_means(squared: bool, logits: list[float], shares: list[float]) -> None:
    support, query = tensor([0, 0, 1], [0, 0, 3], [1, 1, 0]), tensor([1, 0.5, 1])
    found = asked(Distances(7.5, squared=squared), support, [0, 0, 1], query)
    close(found, logits)
    close(found.softmax(1), shares)
    torch.testing.assert_close(
        asked(Distances(7.5, True, squared), support, [0, 0, 1], query), found, rtol=1e-6, atol=0
    )
    at = support[2:].clone().requires_grad_()
    asked(Distances(7.5), support, [0, 0, 1], at).sum().backward()
    assert at.grad is not None
    assert at.grad.isfinite().all(), "a norm has no slope at zero"


def test_the_support_passes_a_conditioned_embedding_twice_and_queries_once() -> None:
    """Written out for a network of one layer."""
    tasks, network = classification_tasks(6, tasks=1), mlp((6, 4, None))
    method = tadam(network, 4, scale=2.0, l2_weight=0.0, gate_weight=0.0)
    method.learner.double()
    for name, parameter in method.learner.named_parameters():
        if name.endswith("gate"):
            parameter.data.fill_(0.7)
    (made,) = method.learner.start.conditioning.layers  # type: ignore[union-attr]
    (x, y, weight), (queries, _, _) = (Batch(*(part[0] for part in batch)) for batch in tasks)
    members = y.T * weight / (y.T * weight).sum(1, keepdim=True)
    gain, shift = made((members @ network(x)).mean(0))
    conditioned = [torch.relu(gain * network[0](rows) + shift) for rows in (x, queries)]
    expected = -2.0 * torch.cdist(conditioned[1], members @ conditioned[0])
    found = method.predict(method.adapt(tasks.support), tasks.query)[0]
    torch.testing.assert_close(found, expected.detach())
    plain = tadam(network, 4, scale=2.0, conditioned=False)
    plain.learner.double()
    unconditioned = -2.0 * torch.cdist(network(queries), members @ network(x))
    torch.testing.assert_close(plain.predict(plain.adapt(tasks.support), tasks.query)[0], unconditioned.detach())


def test_tadam_has_the_published_size_probabilities_and_penalties() -> None:
    """On a network with widths of its authors: 12 layers are conditioned, its shortcuts are not."""
    batches = [Batch(torch.randn(6, 6), torch.eye(3)[[0, 1, 2, 0, 1, 2]], torch.ones(6))]
    method = tadam(mlp((6, 5, 4), norm=True), 4, base=lambda source: batches[0])
    (beside,) = method.auxiliaries
    chances = [beside.probability(done) for done in (0.0, 0.05, 0.5, 0.999)]
    assert chances == pytest.approx([0.9, 0.81, 0.313811, 0.121577], abs=5e-7)
    (first, _, _, second) = method.learner.network[0]  # type: ignore[index,misc]
    features = method.learner.network[0](batches[0].x)  # type: ignore[index]
    named = nn.functional.cross_entropy(beside.own(features), batches[0].y.argmax(1))  # type: ignore[misc]
    squares = first.weight.square().sum() + second.weight.square().sum()
    torch.testing.assert_close(beside.loss(method.learner, batches[0]), named + 5e-4 * squares / 2)
    with torch.device("meta"):
        layers = conditioned_layers(ResNet12(None, widths=(64, 128, 256, 512)), lambda name: "shortcut" not in name)
        size = sum(p.numel() for channels in layers.values() for p in Modulator(512, channels).parameters())
    assert (len(layers), round(size / 1e6, 2)) == (12, 7.14)
    for refused, why in (
        (mlp((6, 5, 4), norm=True, scale=False), "its norms shift without a scale: make them with scale=True"),
        (nn.Linear(6, 4, bias=False), "it has no layer with a bias"),
    ):
        with pytest.raises(ValueError, match=why):
            tadam(refused, 4)


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
