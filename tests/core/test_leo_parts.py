"""LEO's parts against plain evaluations of the same equations: the pairs, the dropout, the copies, the penalties."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases import classification_tasks
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fewstep.algorithms import leo
from fewstep.core import (
    BOUNDED,
    OFFICIAL,
    PAPER,
    Batch,
    Executor,
    Formulation,
    Generator,
    Loop,
    Method,
    Task,
    Vmap,
    generator,
)
from fewstep.core.noise import dropout
from fewstep.core.start import Relation, pairs

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
FEATURES, LATENTS, STEPS = 6, 4, 3
WEIGHTS = {"kl_weight": 0.2, "encoder_penalty_weight": 0.4, "l2_weight": 0.01, "orthogonality_weight": 0.3}
RATES = {"latent_rate": 0.1, "finetuning_rate": 0.1}


def build(dropout: float = 0.3, **options: Any) -> Method:
    torch.manual_seed(0)
    arguments = {**WEIGHTS, **RATES, "latents": LATENTS, "latent_steps": STEPS, "finetuning_steps": STEPS}
    method = leo(FEATURES, normalise=False, latent_clip=None, dropout=dropout, **{**arguments, **options})
    method.learner.double()
    with torch.no_grad():  # rates that differ by dimension
        for name, p in method.learner.named_parameters():
            if "rule" in name:
                p *= torch.linspace(0.5, 1.5, len(p), dtype=torch.float64)
    return method


def tasks(ways: int = 3, shots: int = 2, count: int = 2) -> Task:
    made = classification_tasks(FEATURES, ways=ways, shots=shots, tasks=count)
    made.support.weight.fill_(1)
    return made


def draws(method: Method, of: Task, step: int = 2) -> Any:
    return method.learner.noise(of, generator(0, step, "noise"))


def gradients(method: Method, of: Task, noise: Any) -> dict[str, Tensor]:
    """The objective and every meta-gradient, by name."""
    objective, named = method.objective(of, noise).objective, dict(method.learner.named_parameters())
    found = torch.autograd.grad(objective, list(named.values()))
    return {"objective": objective.detach(), **dict(zip(named, found, strict=True))}


# -- the relation network ----------------------------------------------------------------------------------------------


def every_pair(relation: Relation, h: Tensor) -> Tensor:
    """Eq. 3 as it is written: the network on all concatenated ordered pairs, then plain means."""
    ways, shots, width = h.shape
    left = h[:, :, None, None].expand(ways, shots, ways, shots, width)
    right = h[None, None].expand(ways, shots, ways, shots, width)
    first, second, last = (layer.weight for layer in relation.layers)
    pairs = torch.cat([left, right], -1)
    return (F.relu(F.relu(pairs @ first.T) @ second.T) @ last.T).mean((2, 3)).mean(1)


@pytest.fixture(params=["whole", "in blocks"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of a task as a whole, as of few; or as of many, in blocks of five rows of twelve and seven units."""
    if request.param == "in blocks":
        monkeypatch.setattr(sys.modules[Generator.__module__], "WHOLE", 0)
        monkeypatch.setattr(pairs, "BLOCK", 5 * 12 * 7)


def test_factorised_relation_is_the_network_on_every_pair(kept: None) -> None:
    relation, ways, shots = Relation(5, 8, 7).double(), 3, 4
    h = torch.randn(ways, shots, 5, dtype=torch.float64, requires_grad=True)
    by_class = torch.eye(ways, dtype=torch.float64).repeat_interleave(shots, 1) / shots
    ours = relation(h.flatten(0, 1), by_class, torch.ones(ways * shots, dtype=torch.float64))
    naive = every_pair(relation, h)
    towards, inputs = torch.randn_like(naive), [h, *relation.parameters()]
    torch.testing.assert_close(ours, naive, **CLOSE)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, towards), torch.autograd.grad(naive, inputs, towards), **CLOSE
    )


@pytest.mark.parametrize("executor", [Vmap(), Vmap(chunk=2), Loop()], ids=str)
@pytest.mark.parametrize("recompute", [False, True], ids=["stored", "recomputed"])
def test_blocks_of_pairs_give_the_same_meta_gradient(
    executor: Executor, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, of = build(formulation=BOUNDED), tasks(count=3)
    noise = draws(method, of)
    expected = gradients(method, of, noise)
    monkeypatch.setattr(sys.modules[Generator.__module__], "WHOLE", 0)
    monkeypatch.setattr(pairs, "BLOCK", 4 * 6 * 8)  # rows of six, and eight units
    method.learner.recompute = recompute
    named = dict(method.learner.named_parameters())
    objective = method.objective(of, noise, executor).objective
    found = dict(zip(named, torch.autograd.grad(objective, list(named.values())), strict=True))
    torch.testing.assert_close({"objective": objective.detach(), **found}, expected, **CLOSE)


def test_many_pairs_are_made_in_blocks() -> None:
    """A support of 400 rows: no tensor has all of its pairs, in a step that is differentiated."""
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = function(*args, **(kwargs or {}))
            largest.extend(tensor.numel() for tensor in tree_leaves(found) if isinstance(tensor, Tensor))
            return found

    h = torch.randn(400, 8, requires_grad=True)
    by_class, weight = torch.eye(20).repeat_interleave(20, 1) / 20, torch.ones(400)
    relation = Relation(8, 4, 16)
    with Watch():
        relation(h, by_class, weight).sum().backward()
    assert 400 * 16 < max(largest) <= max(pairs.BLOCK, 400 * 20)


# -- the whole of it, by hand ------------------------------------------------------------------------------------------


def by_hand(method: Method, task: Task, noise: Any, paper: bool = False) -> tuple[Tensor, Tensor]:
    """One task's objective and query logits: LEO step by step, in the authors' layout ``[ways, shots, width]``.

    A code a support row (authors) or a class (paper, one "shot" of codes). Noise None is evaluation.
    """
    p = {name: tensor for name, tensor in method.learner.named_parameters()}
    encoder, decoder = p["start.encoder.weight"], p["start.decoder.weight"]
    alpha, alpha_ft = p["stages.0.rule.rates.code"], p["stages.2.rule.rates.weight"]
    ways = task.support.y.shape[1]
    labels, query_labels = task.support.y.argmax(1), task.query.y.argmax(1)
    glorot = (2 / (ways + FEATURES)) ** 0.5

    def dropped(batch: Batch, entry: Any) -> Tensor:
        return batch.x if noise is None else batch.x * mask(entry)

    def deviation(raw: Tensor, at_zero: float) -> Tensor:
        if paper:
            return (at_zero or 1.0) * raw.exp()
        return torch.maximum(raw.exp() - 1 + at_zero, torch.tensor(1e-10, dtype=torch.float64))

    def decode(code: Tensor, entry: Any) -> Tensor:
        mean, raw = (code @ decoder.T).split(FEATURES, -1)
        return mean if noise is None else mean + deviation(raw, glorot) * entry["decode"]["weight"].view_as(mean)

    def logits(x: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("rd,nkd->rnk", x, weight).mean(2)

    def support_loss(weight: Tensor, entry: Any) -> Tensor:
        return F.cross_entropy(logits(dropped(task.support, entry), weight), labels, reduction="sum")

    empty: dict[str, Any] = {
        "begin": None,
        "stages": [[None] * STEPS, None, [None] * STEPS],
        "shuffles": [None] * 3,
        "query": None,
    }
    at = noise or empty
    h = (dropped(task.support, at["begin"]) @ encoder.T).view(ways, -1, LATENTS)
    codes = 1 if paper else h.shape[1]
    mean, raw = every_pair(method.learner.start.relation, h)[:, None].expand(-1, codes, -1).split(LATENTS, -1)
    sigma, z = deviation(raw, 0.0), mean
    if noise is not None:
        epsilon = at["begin"]["start"]["code"].view_as(mean)
        z = mean + sigma * epsilon

    code = z
    for entry in at["stages"][0]:
        (slope,) = torch.autograd.grad(support_loss(decode(code, entry), entry), code, create_graph=True)
        code = code - alpha * slope
    weight = decode(code, at["stages"][1])
    for entry in at["stages"][2]:
        (slope,) = torch.autograd.grad(support_loss(weight, entry), weight, create_graph=True)
        weight = weight - alpha_ft * slope
    query_logits = logits(dropped(task.query, at["query"]), weight)
    objective = F.cross_entropy(query_logits, query_labels)

    if noise is not None:
        prior = Normal(torch.zeros((), dtype=torch.float64), 1.0)
        if paper:
            kl = kl_divergence(Normal(mean, sigma), prior).sum()
        else:  # log q(z) by the change of variables z = μ + σε
            kl = (prior.log_prob(epsilon) - sigma.log() - prior.log_prob(z)).mean()
        distance = (code.detach() - z).square()
        objective = objective + WEIGHTS["kl_weight"] * kl
        objective = objective + WEIGHTS["encoder_penalty_weight"] * (distance.sum() if paper else distance.mean())
    squares = sum(w.square().sum() for name, w in p.items() if name.startswith("start."))
    cosines = F.normalize(decoder.T, dim=1) @ F.normalize(decoder.T, dim=1).T
    excess = (cosines - torch.eye(LATENTS, dtype=torch.float64)).square()
    objective = objective + WEIGHTS["l2_weight"] * (squares if paper else squares / 2)
    return objective + WEIGHTS["orthogonality_weight"] * (excess.sum() if paper else excess.mean()), query_logits


def mask(entry: Any) -> Tensor:
    """A share of 0.3, to 1/65536, is dropped; what is kept is scaled up."""
    return entry["dropout"]["kept"].double() * 65536 / (65536 - 19661)


def one(tree: Any, i: int) -> Any:
    return tree_map(lambda leaf: leaf[i], tree)


@pytest.mark.parametrize("formulation", ["official", "paper"])
def test_meta_gradient_of_every_parameter_with_dropout(formulation: str) -> None:
    method, batch = build(formulation=formulation), tasks()
    noise = draws(method, batch)
    objectives = [by_hand(method, one(batch, i), one(noise, i), formulation == "paper")[0] for i in range(2)]
    objective, named = torch.stack(objectives).mean(), dict(method.learner.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(objective, list(named.values())), strict=True))
    torch.testing.assert_close(gradients(method, batch, noise), {"objective": objective.detach(), **expected}, **CLOSE)


@pytest.mark.parametrize("formulation", ["official", "paper"])
@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (3, 2), (6, 4)])
def test_evaluation_at_any_ways_and_shots(formulation: str, ways: int, shots: int) -> None:
    method, batch = build(formulation=formulation), tasks(ways, shots)
    predictions = method.predict(method.adapt(batch.support), batch.query)
    for i in range(2):
        _, expected = by_hand(method, one(batch, i), None, formulation == "paper")
        torch.testing.assert_close(predictions[i], expected.detach(), **CLOSE)


# -- dropout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.307651, 0.5])
def test_masks_are_zero_or_the_inverse_of_the_keeping_rate(rate: float) -> None:
    method = build(dropout=rate)
    kept = draws(method, tasks(ways=5, shots=10, count=200))["query"]["dropout"]["kept"]
    mask = dropout(torch.ones(kept.shape, dtype=torch.float64), kept, rate)
    dropped = (mask == 0).double()
    values = mask.unique()
    assert len(values) == 2
    assert values[1].item() == pytest.approx(1 / (1 - rate), rel=2**-16)  # the rate is rounded to 1/65536
    bound = 4 * (rate * (1 - rate) / mask.numel()) ** 0.5
    assert abs(dropped.mean().item() - rate) < bound
    assert abs(mask.mean().item() - 1) < bound / (1 - rate)
    # Neighbours in every direction are independent: the bits of one 64-bit draw are four masks.
    for shift in range(1, 5):
        flat = dropped.flatten() - rate
        correlation = (flat[shift:] * flat[:-shift]).mean().item() / (rate * (1 - rate))
        assert abs(correlation) < 5 / mask.numel() ** 0.5


def test_every_site_and_step_draws_its_own_numbers_and_uses_them() -> None:
    method, batch = build(), tasks()
    noise = draws(method, batch)
    leaves = tree_leaves(noise)
    # begin: code and mask; a decode and a mask each latent step; a decode; a mask each fine-tuning step; the query.
    assert len(leaves) == 2 + 2 * STEPS + 1 + STEPS + 1
    drawn = [leaf[task].flatten() for leaf in leaves for task in range(2)]
    for i, a in enumerate(drawn):
        assert not any(torch.equal(a[: len(b)], b[: len(a)]) for b in drawn[:i])
    assert not any(torch.equal(a, b) for a, b in zip(leaves, tree_leaves(draws(method, batch, step=3)), strict=True))

    objective = method.objective(batch, noise).objective
    for leaf in leaves:
        kept = leaf.clone()
        leaf.copy_(leaf.flip(1))
        assert (method.objective(batch, noise).objective - objective).abs() > 1e-8
        leaf.copy_(kept)


# -- copies and unequal shots ------------------------------------------------------------------------------------------


def test_in_evaluation_k_copies_are_one_code_with_rates_divided_by_k() -> None:
    shots = 4
    copies, single = build(), build(formulation=Formulation(codes="class"))
    single.learner.load_state_dict(copies.learner.state_dict())
    batch = tasks(shots=shots)
    expected = copies.predict(copies.adapt(batch.support), batch.query)
    unequal = single.predict(single.adapt(batch.support), batch.query)
    with torch.no_grad():
        for stage in (0, 2):
            for rate in single.learner.stages[stage].parameters():
                rate /= shots
    torch.testing.assert_close(single.predict(single.adapt(batch.support), batch.query), expected, **CLOSE)
    assert (unequal - expected).abs().max() > 0.01


@pytest.mark.parametrize("formulation", ["official", "paper"])
def test_unequal_shots_by_row_weights_are_dropped_rows(formulation: str) -> None:
    """Values, noise and all meta-gradients, whatever stands in the padding."""
    method, batch = build(formulation=formulation), tasks(shots=3, count=1)
    noise, keep = draws(method, batch), [0, 3, 4, 6, 7, 8]  # one, two and three shots
    short = Task(Batch(*(t[:, keep] for t in batch.support)), batch.query)
    rows = len(batch.support.weight[0])
    short_noise = tree_map(lambda leaf: leaf[:, keep] if leaf.shape[1] == rows else leaf, noise)
    short_noise["query"] = noise["query"]
    for padded in set(range(rows)) - set(keep):
        batch.support.weight[0, padded] = 0
        batch.support.x[0, padded] = 50.0
    ours, expected = gradients(method, batch, noise), gradients(method, short, short_noise)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        method.predict(method.adapt(batch.support), batch.query),
        method.predict(method.adapt(short.support), batch.query),
        **CLOSE,
    )


# -- the KL divergence -------------------------------------------------------------------------------------------------


class Given(nn.Module):
    """In the relation network's place: chosen means and raw scales."""

    def __init__(self, mean: Tensor, u: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.cat([mean, u], -1))

    def forward(self, h: Tensor, by_class: Tensor, weight: Tensor) -> Tensor:
        return self.output


def kl_of(formulation: Formulation, mean: Tensor, u: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
    """The KL of one shot a class, in the inputs' dtype, and its gradient in mean and raw scale."""
    ways, latents = mean.shape
    start = Generator(FEATURES, latents, kl_weight=1.0, formulation=formulation).to(mean.dtype)
    start.relation = Given(mean, u)  # type: ignore[assignment]
    support = Batch(torch.zeros(ways, FEATURES), torch.eye(ways), torch.ones(ways))
    support = Batch(*(t.to(mean.dtype) for t in support))
    _, penalties = start.begin(nn.Identity(), support, {"code": epsilon})
    return penalties["kl"].detach(), torch.autograd.grad(penalties["kl"], start.relation.output)[0]


RAW = torch.tensor([-3.0, -1e-3, 0.0, 1e-12, 1e-7, 1e-3, 0.5, 2.0]).double()


def test_analytic_kl_is_that_of_torch_summed() -> None:
    source = torch.Generator().manual_seed(0)
    mean, epsilon = (torch.randn(3, 8, generator=source, dtype=torch.float64) for _ in range(2))
    u = RAW.expand(3, 8).clone().requires_grad_()
    divergences = kl_divergence(Normal(mean, u.exp()), Normal(torch.zeros_like(mean), 1.0))
    found, gradient = kl_of(PAPER, mean, u.detach(), epsilon)
    torch.testing.assert_close(found, divergences.sum().detach(), **CLOSE)
    torch.testing.assert_close(gradient[:, 8:], torch.autograd.grad(divergences.sum(), u)[0], **CLOSE)
    averaged, _ = kl_of(Formulation(codes="class", deviation="exp", kl="analytic"), mean, u.detach(), epsilon)
    torch.testing.assert_close(averaged, divergences.mean().detach(), **CLOSE)


@pytest.mark.parametrize("formulation", [OFFICIAL, PAPER], ids=["official", "paper"])
def test_kl_in_float32_is_accurate_where_the_deviation_is_at_its_floor(formulation: Formulation) -> None:
    source = torch.Generator().manual_seed(0)
    mean, epsilon = (torch.randn(3, 8, generator=source) for _ in range(2))
    u = RAW.float().expand(3, 8).clone()
    kl, gradient = kl_of(formulation, mean, u, epsilon)
    exact, exact_gradient = kl_of(formulation, mean.double(), u.double(), epsilon.double())
    assert gradient.isfinite().all()
    assert kl.item() == pytest.approx(exact.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-5, atol=1e-5)
    if formulation is OFFICIAL:
        clamped = u <= 0
        assert (gradient[:, 8:][clamped] == 0).all()
        # What the textbook form would give: (z − μ)/σ has lost every digit of ε at the floor.
        sigma = u.expm1().clamp(min=1e-10)
        z = mean + sigma * epsilon
        textbook = -0.5 * ((z - mean) / sigma).square() - sigma.log() + 0.5 * z.square()
        assert abs(textbook.mean().item() / exact.item() - 1) > 1e-4


def test_kl_of_the_paper_survives_a_deviation_that_underflows() -> None:
    """In float32 e^-104 is zero and its logarithm is not finite; u is."""
    zeros = torch.zeros(2, 3)
    kl, gradient = kl_of(PAPER, zeros, torch.full((2, 3), -104.0), zeros)
    assert kl.item() == pytest.approx(6 * (104 - 0.5))
    assert gradient[:, 3:].unique().tolist() == [-1.0]
