"""LEO for whole networks: against a restatement with explicit loops, and what becomes of generated parameters."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import NETWORK, images, network, regression_tasks
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from fewstep import leo_network, maml
from fewstep.core import (
    L2,
    PAPER,
    Backprop,
    Batch,
    Loop,
    Loss,
    Method,
    Mixture,
    NetworkGenerator,
    Point,
    Slot,
    Task,
    Vmap,
    classification,
    generator,
    slots,
)
from fewstep.networks import Conv4, mlp

WEIGHTS = {"kl_weight": 0.2, "l2_weight": 0.01, "orthogonality_weight": 0.3, "encoder_penalty_weight": 0.5}
STEPS = {"latent_steps": 3, "finetuning_steps": 2, "latent_rate": 0.05, "finetuning_rate": 0.02}


def built(**options: Any) -> Method:
    torch.manual_seed(0)
    method = network(**options)
    method.learner.double()
    return method


def noise_of(method: Method, tasks: Task, step: int = 0) -> Any:
    return method.noise(tasks, generator(0, step, "noise"))


def padded_tasks() -> Task:
    tasks = regression_tasks()
    tasks.support.weight[1, 2] = 0
    return tasks


def apply(matrices: list[Tensor], x: Tensor) -> Tensor:
    for matrix in matrices[:-1]:
        x = (matrix @ x).clamp(min=0)
    return matrices[-1] @ x


def restated(method: Method, tasks: Task, noise: Any, spread: float) -> Tensor:
    """The objective of an ``mlp((1, 5, 1))``, one task, row and pair at a time."""
    learner, sigmoid = method.learner, torch.sigmoid
    named = dict(learner.named_parameters())
    encoder, relation, decoder = (
        [p for n, p in named.items() if n.startswith(f"start.{part}")] for part in ("encoder", "relation", "decoder")
    )
    latents = len(encoder[-1])
    scale: Tensor = learner.start.scale  # type: ignore[assignment]  # √(2/6), rounded to float32

    def decoded(z: Tensor, epsilon: Tensor) -> list[Tensor]:
        m, v = apply(decoder, z)[:16], apply(decoder, z)[16:]
        theta = scale * m + scale * spread * 2 * sigmoid(v) * epsilon
        return [theta[:5].reshape(5, 1), theta[5:10], theta[10:15].reshape(1, 5), theta[15:]]

    def loss(theta: list[Tensor], rows: Batch) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for x, y, weight in zip(*rows, strict=True):
            hidden = (theta[0] @ x + theta[1]).clamp(min=0)
            total = total + weight * (theta[2] @ hidden + theta[3] - y).square().mean()
        return total / rows.weight.sum()

    objective = torch.zeros((), dtype=torch.float64)
    for t in range(len(tasks.support.x)):
        support, query = (Batch(*(tensor[t] for tensor in batch)) for batch in tasks)
        own = tree_map(lambda tensor, t=t: tensor[t], noise)
        codes = [apply(encoder, torch.cat([x, y])) for x, y in zip(support.x, support.y, strict=True)]
        moments, pairs = torch.zeros(2 * latents, dtype=torch.float64), 0.0
        for a, wa in zip(codes, support.weight, strict=True):
            for b, wb in zip(codes, support.weight, strict=True):
                if wa and wb:
                    moments, pairs = moments + apply(relation, torch.cat([a, b])), pairs + 1
        mean, u = (moments / pairs).chunk(2)
        deviation = 2 * sigmoid(u)
        begun = z = mean + deviation * own["begin"]["start"]["code"]
        for entry in own["stages"][0]:
            slope = torch.autograd.grad(loss(decoded(z, entry["decode"]["parameters"]), support), z, create_graph=True)
            z = z - learner.stages[0].rule["code"] * slope[0]
        theta = decoded(z, own["stages"][1]["decode"]["parameters"])
        for _ in own["stages"][2]:
            slopes = torch.autograd.grad(loss(theta, support), theta, create_graph=True)
            rates = [learner.stages[2].rule[n] for n in ("0.weight", "0.bias", "2.weight", "2.bias")]
            theta = [w - rate * g for w, rate, g in zip(theta, rates, slopes, strict=True)]
        kl = (0.5 * (deviation**2 + mean**2 - 1) - deviation.log()).sum()
        penalty = (begun - z.detach()).square().sum()
        objective = objective + (loss(theta, query) + 0.2 * kl + 0.5 * penalty) / len(tasks.support.x)
    l2 = sum(matrix.square().sum() for matrix in (*encoder, *relation, *decoder))
    correlations = [_cosines(matrix) for matrix in decoder]
    excess = sum((c - torch.eye(len(c), dtype=torch.float64)).square().sum() for c in correlations)
    return objective + 0.01 * l2 + 0.3 * excess


def _cosines(matrix: Tensor) -> Tensor:
    columns = matrix.T
    return torch.stack([torch.stack([torch.cosine_similarity(a, b, 0) for b in columns]) for a in columns])


def gradients(objective: Tensor, method: Method) -> list[Tensor]:
    return list(torch.autograd.grad(objective, list(method.learner.parameters())))


def test_the_composition_is_a_plain_loop_over_tasks_rows_pairs_and_steps() -> None:
    method, tasks = built(**WEIGHTS, **STEPS), padded_tasks()
    noise = noise_of(method, tasks)
    expected = restated(method, tasks, noise, NETWORK["spread"])
    found = method.objective(tasks, noise).objective
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(found, method), gradients(expected, method), rtol=1e-9, atol=1e-11)


def test_entries_of_the_meta_gradient_of_the_papers_architecture_are_finite_differences() -> None:
    torch.manual_seed(0)
    method = leo_network(mlp((1, 40, 40, 1)), 1, 1, finetuning_steps=1, encoder_penalty_weight=0.0, spread=0.1)
    method.learner.double()
    tasks = regression_tasks(2)
    noise = noise_of(method, tasks)
    method.objective(tasks, noise).objective.backward()
    for name, parameter in method.learner.named_parameters():
        assert parameter.grad is not None
        slopes, entries = parameter.grad.flatten(), parameter.data.view(-1)
        i, h, values = int(slopes.abs().argmax()), 1e-5, []
        with torch.no_grad():
            for sign in (1, -2, 1):
                entries[i] += sign * h
                values.append(method.objective(tasks, noise).objective.item())
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(slopes[i].item(), rel=1e-5, abs=1e-9), name


def test_the_preset_decodes_1761_numbers_and_nothing_generated_is_a_parameter() -> None:
    own = mlp((1, 40, 40, 1))
    names = [name for name, _ in own.named_parameters()]
    method = leo_network(own, 1, 1)
    start = method.learner.start
    assert isinstance(start, NetworkGenerator)
    assert sum(start.sizes) == 1761
    assert [tuple(matrix.shape) for matrix in start.decoder.parameters()] == [(32, 16), (32, 32), (2 * 1761, 32)]
    assert [tuple(matrix.shape) for matrix in start.encoder.parameters()] == [(32, 2), (32, 32), (16, 32)]
    assert [tuple(matrix.shape) for matrix in start.relation.parameters()] == [(32, 32)] * 3
    assert list(own.parameters()) == []
    learned = {name for name, _ in method.learner.named_parameters()}
    assert {name.split(".")[0] for name in learned} == {"start", "stages"}
    assert set(method.learner.state_dict()) == learned
    tasks = regression_tasks()
    point = method.adapt(Batch(*(tensor.float() for tensor in tasks.support)))
    assert list(point.value) == names
    assert point.value["2.weight"].shape == (4, 40, 40)


def test_one_part_is_generated_and_the_other_is_shared_by_all_tasks() -> None:
    own = mlp((1, 5, 1))
    method = leo_network(own, 1, 1, generated=lambda name: name.startswith("2."), **NETWORK)
    method.learner.double()
    assert {n for n, _ in method.learner.named_parameters() if n.startswith("network")} == {
        "network.0.weight",
        "network.0.bias",
    }
    tasks = regression_tasks()
    point = method.adapt(tasks.support)
    assert set(point.value) == {"2.weight", "2.bias"}
    expected = [
        functional_call(own, {name: tensor[t] for name, tensor in point.value.items()}, (tasks.query.x[t],))
        for t in range(4)
    ]
    torch.testing.assert_close(method.predict(point, tasks.query), torch.stack(expected))


def test_slots_survive_copies_conversions_and_files(tmp_path: Path) -> None:
    method, tasks = built(generated=["2.weight"]), regression_tasks()
    expected = method.predict(method.adapt(tasks.support), tasks.query)
    twin = copy.deepcopy(method)
    assert torch.equal(twin.predict(twin.adapt(tasks.support), tasks.query), expected)
    save_file(method.learner.state_dict(), tmp_path / "learner.safetensors")
    torch.manual_seed(1)
    other = network(generated=["2.weight"])
    other.learner.double()
    assert not torch.equal(other.predict(other.adapt(tasks.support), tasks.query), expected)
    other.learner.load_state_dict(load_file(tmp_path / "learner.safetensors"))
    assert torch.equal(other.predict(other.adapt(tasks.support), tasks.query), expected)
    other.learner.to(torch.float32)
    assert other.adapt(Batch(*(tensor.float() for tensor in tasks.support))).value["2.weight"].dtype == torch.float32


def test_scales_are_glorots_and_norms_stay_near_what_they_were() -> None:
    made = slots(Conv4(3, channels=(4, 6), inputs=2, scale=True))
    assert made["blocks.0.weight"] == Slot(torch.Size((4, 2, 3, 3)), 0.0, math.sqrt(2 / (6 * 9)))
    assert made["blocks.0.bias"].deviation == made["blocks.0.weight"].deviation
    assert made["blocks.1.weight"] == Slot(torch.Size((4,)), 1.0, 0.1)
    assert made["blocks.1.bias"] == Slot(torch.Size((4,)), 0.0, 0.1)
    assert made["head.bias"].deviation == made["head.weight"].deviation
    # A single random bias is not a constant.
    assert slots(mlp((1, 5, 1)))["2.bias"] == Slot(torch.Size((1,)), 0.0, math.sqrt(2 / 6))


def test_means_of_a_fresh_generator_are_as_large_as_the_slots_say() -> None:
    torch.manual_seed(0)
    start = NetworkGenerator(slots(mlp((20, 60, 60, 3), norm=True)), 20, 3, 64, hidden=256)
    points = [start.decode(start_point(64), None).value for _ in range(50)]
    for name, deviation in (("0.weight", math.sqrt(2 / 80)), ("3.weight", math.sqrt(2 / 120)), ("1.weight", 0.1)):
        values = torch.stack([point[name] for point in points])
        assert values.mean().item() == pytest.approx(float(name == "1.weight"), abs=0.1 * deviation + 0.02)
        assert (values - values.mean()).square().mean().sqrt().item() == pytest.approx(deviation, rel=0.2), name


def start_point(latents: int) -> Any:
    from fewstep.core import Point

    return Point({"code": torch.randn(latents)}, {})


class Recurrent(nn.Module):
    """An Elman network: ``h ← tanh(W [x_t, h])``, read out at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.out = nn.Linear(1 + 3, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 3)
        for column in x.split(1, dim=1):
            h = torch.tanh(self.step(torch.cat([column, h], dim=1)))
        return self.out(h)


def test_a_recurrent_network_is_generated_and_executors_agree() -> None:
    torch.manual_seed(0)
    method = leo_network(Recurrent(), 4, 1, **(NETWORK | STEPS))
    method.learner.double()
    source = torch.Generator().manual_seed(0)

    def batch() -> Batch:
        x = torch.randn(3, 5, 4, generator=source, dtype=torch.float64)
        return Batch(x, x[..., -1:], torch.ones(3, 5, dtype=torch.float64))

    tasks = Task(batch(), batch())
    noise = noise_of(method, tasks)
    assert list(method.learner.network.parameters()) == []
    found = [gradients(method.objective(tasks, noise, executor).objective, method) for executor in (Vmap(), Loop())]
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_sampled_evaluation_is_one_adaptation_for_each_sample_and_means_need_no_noise() -> None:
    method, tasks, samples = built(**STEPS), regression_tasks(), 3
    many = Task(*(Batch(*(tensor.repeat_interleave(samples, 0) for tensor in batch)) for batch in tasks))
    noise = method.learner.noise(many, generator(7, 0, "sample"))
    points = method.adapt(many.support, noise=noise)
    drawn = method.predict(points, many.query).unflatten(0, (-1, samples))
    assert drawn.shape == (4, samples, 5, 1)
    assert (drawn.std(1) > 1e-4).all()
    for t, m in ((0, 0), (2, 1)):
        task = tree_map(lambda tensor, t=t: tensor[t], tasks)
        own = tree_map(lambda tensor, i=t * samples + m: tensor[i], noise)
        point, penalties = method.learner.adapt(task.support, noise=own)
        torch.testing.assert_close(method.learner.predict(point, task.query), drawn[t, m])
        assert penalties["kl"] > 0
    means = method.predict(method.adapt(tasks.support), tasks.query)
    assert torch.equal(means, method.predict(method.adapt(tasks.support, noise=None), tasks.query))
    assert (means - drawn[:, 0]).abs().max() > 1e-4


def test_without_spread_parameters_are_their_means_and_nothing_draws_them() -> None:
    method, tasks = built(spread=0.0), regression_tasks()
    start = method.learner.start
    assert isinstance(start, NetworkGenerator)
    assert start.decode_sites(tasks.support) == {}
    assert start.decoder[-1].weight.shape[0] == 16
    method.objective(tasks, noise_of(method, tasks)).objective.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.learner.parameters())


def test_every_layer_of_the_decoder_has_its_own_orthogonality_constraint_and_all_weights_their_l2() -> None:
    method = built()
    names = [regulariser.name for regulariser in method.regularisers]
    assert names == ["l2", "orthogonality_0", "orthogonality_1", "orthogonality_2"]
    l2 = method.regularisers[0]
    assert isinstance(l2, L2)
    assert set(l2.parameters) == {n for n, _ in method.learner.named_parameters() if n.startswith("start.")}
    with torch.no_grad():
        decoder = list(method.learner.start.decoder.parameters())  # type: ignore[union-attr,operator]
        decoder[1].copy_(2 * torch.eye(4))
    assert method.penalties()["orthogonality_1"].item() == pytest.approx(0, abs=1e-20)
    with torch.no_grad():
        decoder[1].fill_(1.0)
    # All twelve off-diagonal correlations are 1: the paper's squared norm sums them.
    assert method.penalties()["orthogonality_1"].item() == pytest.approx(0.1 * 12)


def gaussian(deviation: float) -> Loss:
    def nll(prediction: Tensor, y: Tensor) -> Tensor:
        return -torch.distributions.Normal(prediction, deviation).log_prob(y).sum(-1)

    def mse(prediction: Tensor, y: Tensor) -> Tensor:
        return (prediction - y).square().mean(-1)

    return Loss(nll, score=mse, score_name="mse")


def test_a_mixture_of_one_sample_is_back_propagation() -> None:
    tasks = padded_tasks()
    tasks.query.weight[0, 1] = 0
    one = built(**WEIGHTS, loss=gaussian(0.5), meta_gradient=Mixture(1, noise=0.5))
    own = built(**WEIGHTS, loss=gaussian(0.5))
    found, expected = (m.objective(tasks, noise_of(m, tasks)) for m in (one, own))
    torch.testing.assert_close(found.objective, expected.objective, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(found.objective, one), gradients(expected.objective, own), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(found.metrics["kl"], expected.metrics["kl"])
    torch.testing.assert_close(found.metrics["effective_samples"], torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("granularity", ["task", "step"])
def test_a_mixture_is_the_log_of_a_mean_of_likelihoods(granularity: Any, weighted: bool) -> None:
    method, tasks = built(**STEPS, meta_gradient=Mixture(3, noise=0.4, weighted=weighted)), padded_tasks()
    tasks.query.weight[0, 1] = 0
    noise = noise_of(method, tasks)
    found = method.objective(tasks, noise, Vmap(), granularity)
    objectives = []
    for t in range(4):
        task = tree_map(lambda tensor, t=t: tensor[t], tasks)
        likelihoods, weights, penalties = [], [], []
        for m in range(3):
            own = tree_map(lambda tensor, t=t, m=m: tensor[t, m], noise["copies"])
            point, of_sample = method.learner.adapt(task.support, noise=own)
            for rows, of in (task.query, likelihoods), (task.support, weights):
                density = torch.distributions.Normal(method.learner.predict(point, rows), 0.4)
                of.append(density.log_prob(rows.y).squeeze(-1)[rows.weight > 0].sum().exp())
            penalties.append(sum(of_sample.values()))
        shares = [weight / sum(weights) if weighted else 1 / 3 for weight in weights]
        together = sum(share * likelihood for share, likelihood in zip(shares, likelihoods, strict=True))
        bound = together.log() / task.query.weight.sum()
        objectives.append(sum(penalties) / 3 - bound)
    expected = sum(objectives) / 4 + sum(method.penalties().values())
    torch.testing.assert_close(found.objective, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients(found.objective, method), gradients(expected, method), rtol=1e-9, atol=1e-11)
    assert (found.metrics["effective_samples"] > 1).all()


def test_without_a_deviation_the_likelihood_is_that_of_the_learners_loss() -> None:
    def conv(meta_gradient: Any) -> Method:
        torch.manual_seed(0)
        own = Conv4(3, channels=(4, 4), downsample="stride", scale=True)
        method = leo_network(
            own, 64, 3, generated=["head.weight"], loss=classification(), meta_gradient=meta_gradient, **NETWORK
        )
        method.learner.double()
        return method

    tasks = images()
    one, own = conv(Mixture(1)), conv(Backprop())
    found, expected = (m.objective(tasks, noise_of(m, tasks)).objective for m in (one, own))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_samples_of_a_mixture_run_one_by_one_too() -> None:
    tasks = regression_tasks()
    found = []
    for executor in (Vmap(), Loop()):
        method = built(meta_gradient=Mixture(3, noise=0.4, executor=executor))
        found.append(gradients(method.objective(tasks, noise_of(method, tasks), Loop()).objective, method))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_other_methods_draw_what_their_learners_draw() -> None:
    method, tasks = maml(mlp((1, 5, 1)), rate=0.1), regression_tasks()
    assert method.sites(tasks) == method.learner.sites(tasks)
    for of in (built(), built(meta_gradient=Mixture(1, noise=1.0))):
        own, plain = (m.draws(tasks, generator(0, 0, "noise"))[:].normal for m in (of, of.learner))
        assert torch.equal(own, plain)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"selects none of the network's parameters \(0.weight, 0.bias"):
        slots(mlp((1, 5, 1)), lambda name: False)
    with pytest.raises(ValueError, match=r"no parameters named 4.weight, head; it has 0.weight"):
        slots(mlp((1, 5, 1)), ["0.weight", "head", "4.weight"])
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match=r"0.weight and 1.weight are one parameter"):
        slots(tied)
    made = slots(mlp((1, 5, 1)))
    with pytest.raises(ValueError, match="nothing to generate"):
        NetworkGenerator({}, 1, 1)
    with pytest.raises(ValueError, match="decoder_depth 0"):
        NetworkGenerator(made, 1, 1, decoder_depth=0)
    with pytest.raises(ValueError, match="spread is a deviation"):
        NetworkGenerator(made, 1, 1, spread=-1.0)
    from fewstep.core import Learner, regression

    with pytest.raises(ValueError, match=r"generates 0.weight, which is no slot"):
        Learner(mlp((1, 5, 1)), NetworkGenerator(made, 1, 1), [], loss=regression())
    method, tasks = built(), regression_tasks()
    with pytest.raises(ValueError, match="a row has 2 inputs and 1 outputs, but the encoder was made for 1 and 1"):
        method.adapt(tasks.support._replace(x=tasks.support.x.expand(-1, -1, 2)))
    with pytest.raises(ValueError, match="at least one sample"):
        Mixture(0)
    with pytest.raises(ValueError, match="σ > 0"):
        Mixture(2, noise=0.0)
    mixture = built(meta_gradient=Mixture(2, noise=1.0))
    with pytest.raises(ValueError, match=r"take Method.noise"):
        mixture.objective(tasks, mixture.learner.noise(tasks, generator(0, 0, "noise")))
    with pytest.raises(ValueError, match="told apart by name"):
        Method(mixture.learner, Backprop(), [L2(0.1, []), L2(0.2, [])])


def test_the_papers_deviation_is_one_of_the_formulations() -> None:
    u = torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)
    for form, expected in ((PAPER, 0.5 * u.exp()), (network().learner.start.formulation, 1 / (1 + (-u).exp()))):
        torch.testing.assert_close(form.spread(u, 0.5), expected)  # type: ignore[union-attr]


def test_the_zero_code_decodes_to_the_average_network() -> None:
    network = mlp((1, 4, 1))
    method = leo_network(network, 1, 1, average=True, spread=0.0)
    start = method.learner.start
    decoded = start.decode(Point({"code": torch.zeros(start.latents)}, {}), None).value
    found = torch.cat([tensor.flatten() for tensor in decoded.values()])
    torch.testing.assert_close(found, start.centre + start.scale * start.average)
    assert start.average.abs().mean() > 0.3, "a fresh network, not nothing"
    assert "start.average" in dict(method.learner.named_parameters())
    without = leo_network(mlp((1, 4, 1)), 1, 1, spread=0.0).learner.start
    empty = without.decode(Point({"code": torch.zeros(without.latents)}, {}), None).value
    assert not any(tensor.any() for tensor in empty.values())
