"""Curvature, reach and codes of an adaptation, beside Hessians by autograd, by hand, and numbers found elsewhere."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from test_examples import failures
from torch import Tensor, nn

from fewstep import leo, leo_network, meta_sgd
from fewstep.core import SGD, Backprop, Batch, Descend, Learner, Method, Point, Start, Task, classification
from fewstep.data import Dataset, EpisodeSampler, Sinusoids
from fewstep.evaluation import analysis
from fewstep.networks import Generated, mlp

FEATURES, WAYS, SHOTS = 6, 3, 2


class Given(Start):
    """Codes that are given, and a linear decoder."""

    def __init__(self, code: list[list[float]], decoder: list[list[float]]) -> None:
        super().__init__()
        self.code, self.decoder = nn.Parameter(torch.tensor(code)), nn.Parameter(torch.tensor(decoder))

    def begin(self, network, support, noise):  # type: ignore[no-untyped-def]
        return Point({"code": self.code}, {}), {}

    def decode(self, point, noise):  # type: ignore[no-untyped-def]
        return Point({"weight": point.value["code"] @ self.decoder.T}, {})


@pytest.fixture(scope="module")
def tasks() -> Task:
    rows = torch.randn(5, 1, FEATURES, generator=torch.Generator().manual_seed(0)) + 0.3 * torch.randn(
        5, 12, FEATURES, generator=torch.Generator().manual_seed(1)
    )
    classes = Dataset.from_sorted(rows.flatten(0, 1), range(0, 61, 12))
    return EpisodeSampler(classes, ways=WAYS, shots=SHOTS, queries=3, tasks=2, seed=0, dtype=torch.float64).batch(0)


@pytest.fixture(scope="module")
def generated(tasks: Task) -> Method:
    torch.manual_seed(0)
    method, _ = analysis.in_double(leo(FEATURES, latents=4, finetuning_steps=3), tasks)
    return method


@pytest.mark.parametrize("name", analysis.__all__)
def test_examples(name: str) -> None:
    value = getattr(analysis, name)
    if ">>>" in (value.__doc__ or ""):
        assert not failures(name, value)


def test_numbers_that_were_found_by_other_code() -> None:
    start = Given([[0.1, -0.2], [0.3, 0.05]], [[1.5, 0.2], [0.0, -2.0], [0.5, 1.0]])
    stages = [Descend(SGD(1.0), 1)]
    method = Method(Learner(Generated(), start, stages, loss=classification("sum")), Backprop())
    x = torch.tensor([[[0.6, 0.8, 0.0], [0.0, 0.6, 0.8]]])
    batch = Batch(x, torch.eye(2)[None], torch.ones(1, 2))
    method, task = analysis.in_double(method, Task(batch, batch))
    found = analysis.curvature(method, task)
    absolute = {where: np.abs(spectra[0].values).round(6).tolist() for where, spectra in found.items()}
    assert absolute["codes", "start"] == [1.638588, 0.008137]
    assert absolute["weights", "start"] == [0.736652, 0.258813]
    assert (found["codes", "start"][0].size, found["weights", "start"][0].size) == (4, 6)
    singular = analysis.decoder_singular_values(method, task.support)[0]
    np.testing.assert_allclose(singular, [2.295859, 2.295859, 1.506331, 1.506331], atol=1e-6)
    steps = analysis.step_lengths(method, task.support).steps
    np.testing.assert_allclose([steps["codes"], steps["induced"]], [[[0.722663]], [[1.452689]]], atol=1e-6)


def softmax_loss(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda w: torch.nn.functional.cross_entropy(x @ w.view(y.shape[1], -1).T, y.argmax(1), reduction="sum")


@pytest.mark.parametrize(
    ("size", "rows", "most", "complete"),
    [(120, 5, 4, True), (520, 5, 32, True), (520, 10, 64, True), (520, 200, 6, False)],
)
def test_eigenvalues_are_those_of_the_dense_hessian(size: int, rows: int, most: int, complete: bool) -> None:
    """Made whole; found by its range, of rank 20, and of 40; and the largest by Lanczos iteration."""
    x = torch.randn(rows, size // 5, dtype=torch.float64)
    loss, at = softmax_loss(x, torch.eye(5)[torch.arange(rows) % 5]), torch.randn(size, dtype=torch.float64) / size**0.5
    found = analysis.hessian_eigenvalues(loss, at, most=most)
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, at)).numpy()
    largest = dense[np.argsort(-np.abs(dense))][: found.rank]
    np.testing.assert_allclose(found.values, largest, rtol=0, atol=1e-6 * largest[0])
    assert (found.complete, found.size) == (complete, size)
    assert found.rank == (4 * rows if complete else most)  # of five logits of a row one can be left out
    if complete:
        np.testing.assert_allclose(found.trace, dense.sum(), rtol=1e-9)


def test_a_network_that_is_curved_downward_too() -> None:
    network, x = mlp((2, 5, 1)).double(), torch.randn(7, 2, dtype=torch.float64)
    shapes = {name: p.shape for name, p in network.named_parameters()}

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return (torch.func.functional_call(network, weights, x).sin() - 1).square().sum()

    at = torch.cat([p.detach().flatten() for p in network.parameters()])
    found = analysis.hessian_eigenvalues(loss, at)
    dense = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, at)).numpy()
    assert found.values.min() < 0
    np.testing.assert_allclose(np.sort(found.values), np.sort(dense[np.abs(dense) > 1e-12]), atol=1e-9)


def by_hand(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``Σ_i (diag(p_i) − p_i p_iᵀ) ⊗ x_i x_iᵀ``: the Hessian of a softmax classifier's summed loss."""
    total = np.zeros((weight.size, weight.size))
    for row in x:
        p = np.exp(weight @ row - (weight @ row).max())
        p /= p.sum()
        total += np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row))
    return total


@pytest.mark.parametrize("rows", ["support", "query"])
def test_leos_hessians_of_several_shots_are_those_of_its_classifier(
    generated: Method, tasks: Task, rows: Literal["support", "query"]
) -> None:
    found = analysis.curvature(generated, tasks, rows=rows)
    decoder = generated.learner.start.decoder.weight[:FEATURES].detach().numpy()
    codes = dict(zip(("start", "adapted"), analysis.latent_codes(generated, tasks.support), strict=True))
    for place in ("start", "adapted"):
        for i in range(2):
            x = generated.learner.embed(Batch(*(t[i] for t in getattr(tasks, rows)))).x.numpy()
            hessian = by_hand(x, codes[place][i] @ decoder.T)
            chain = np.kron(np.eye(WAYS), decoder)
            for space, matrix in (("weights", hessian), ("codes", chain.T @ hessian @ chain)):
                values, one = np.linalg.eigvalsh(matrix)[::-1], found[space, place][i]
                np.testing.assert_allclose(one.values, values[: one.rank], atol=1e-9 * values[0])
                np.testing.assert_allclose(values[one.rank :], 0, atol=1e-9 * values[0])
                np.testing.assert_allclose(one.typical, np.exp(np.log(values[: one.rank]).mean()), rtol=1e-6)


def test_copies_of_a_code_have_a_share_of_its_curvature_in_both_spaces(generated: Method, tasks: Task) -> None:
    classes, copies = (analysis.curvature(generated, tasks, copies=copies) for copies in (False, True))
    for where, spectra in classes.items():
        for one, many in zip(spectra, copies[where], strict=True):
            np.testing.assert_allclose(one.values, SHOTS * many.values, rtol=1e-8, atol=1e-10 * one.largest)


def test_a_mean_of_rows_divides_by_their_number(generated: Method, tasks: Task) -> None:
    total, mean = (analysis.curvature(generated, tasks, reduction=of)["codes", "start"][0] for of in ("sum", "mean"))
    np.testing.assert_allclose(total.values, WAYS * SHOTS * mean.values)


def test_steps_are_those_between_the_points_of_shorter_adaptations(generated: Method, tasks: Task) -> None:
    found = analysis.step_lengths(generated, tasks.support)
    assert {name: lengths.shape for name, lengths in found.steps.items()} == {
        "codes": (2, 5),
        "induced": (2, 5),
        "weights": (2, 3),
    }
    before, after = analysis.latent_codes(generated, tasks.support)
    decoder = generated.learner.start.decoder.weight[:FEATURES].detach().numpy()
    np.testing.assert_allclose(found.distances["codes"], np.linalg.norm((after - before).reshape(2, -1), axis=1))
    moved = np.linalg.norm(((after - before) @ decoder.T).reshape(2, -1), axis=1)
    np.testing.assert_allclose(found.distances["induced"], moved)
    end = generated.adapt(tasks.support)  # the head multiplies inputs by share times weight
    weights = (end.value["weight"] * end.context["share"]).numpy() - after @ decoder.T
    np.testing.assert_allclose(found.distances["weights"], np.linalg.norm(weights.reshape(2, -1), axis=1), atol=1e-12)


def test_a_method_without_codes_is_its_weights(tasks: Task) -> None:
    method, _ = analysis.in_double(meta_sgd(mlp((FEATURES, WAYS)), rate=0.5, steps=2), tasks)
    assert {*analysis.curvature(method, tasks)} == {("weights", "start"), ("weights", "adapted")}
    assert {*analysis.step_lengths(method, tasks.support).steps} == {"weights"}
    before, after = analysis.latent_codes(method, tasks.support)
    assert before.shape == (2, 1, WAYS * (FEATURES + 1))
    end = method.adapt(tasks.support).value
    np.testing.assert_allclose(after[1, 0], torch.cat([tensor[1].flatten() for tensor in end.values()]))
    with pytest.raises(ValueError, match="no codes"):
        analysis.decoder_singular_values(method, tasks.support)


def test_a_generator_without_latent_steps_has_one_place_of_codes(tasks: Task) -> None:
    method, _ = analysis.in_double(leo(FEATURES, latents=4, latent_steps=0), tasks)
    assert {*analysis.curvature(method, tasks)} == {("codes", "start"), ("weights", "start")}
    before, after = analysis.latent_codes(method, tasks.support)
    assert (before == after).all()


def test_a_generated_network_has_one_code_a_task() -> None:
    sines = Sinusoids(tasks=2, shots=5, queries=3, seed=0).batch(0)
    method, sines = analysis.in_double(leo_network(mlp((1, 6, 1)), 1, 1, latents=3, hidden=4), sines)
    before, _ = analysis.latent_codes(method, sines.support)
    assert before.shape == (2, 1, 3)
    singular = analysis.decoder_singular_values(method, sines.support)
    start = method.learner.start

    def decode(code: Tensor) -> Tensor:
        return torch.cat([tensor.flatten() for tensor in start.decode(Point({"code": code}, {}), None).value.values()])

    for found, code in zip(singular, before, strict=True):  # its decoder is not linear
        jacobian = torch.autograd.functional.jacobian(decode, torch.from_numpy(code[0]))
        np.testing.assert_allclose(found, torch.linalg.svdvals(jacobian).numpy(), atol=1e-12)
    spectra = analysis.curvature(method, sines)
    assert spectra["weights", "start"][0].size == 19


def test_silhouettes_by_hand() -> None:
    codes = np.array([[[0.0], [4.0]], [[1.0], [6.0]]])  # of class 0: 0 and 1; of class 1: 4 and 6
    found = analysis.separation(codes, np.array([[0, 1], [0, 1]]))
    np.testing.assert_allclose(found, [(1 - 1 / 5 + 1 - 2 / 3.5) / 2, (1 - 1 / 4 + 1 - 2 / 5.5) / 2])


def test_maps_keep_groups_together_and_begin_alike() -> None:
    points = np.concatenate([np.zeros((12, 4)), np.full((12, 4), 9.0)]) + np.random.default_rng(0).normal(size=(24, 4))
    components, shares = analysis.principal_components(points)
    assert shares[0] > 0.9
    assert len({*np.sign(components[:12, 0])}) == 1
    first, again = (analysis.tsne(points, perplexity=5.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert analysis.separation(first[:, None], np.repeat([0, 1], 12)[:, None]).mean() > 0.5
