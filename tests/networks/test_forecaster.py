"""The recurrent network: against torch's own, and adapted by second-order meta-learners."""

from collections.abc import Callable

import pytest
import torch
from cases import NETWORK
from torch import nn

from fewstep import leo_network, maml
from fewstep.core import Loop, Method, Task, Vmap, generator, regression, slots
from fewstep.data import Oscillations
from fewstep.networks import Forecaster
from fewstep.recipes.methods.network import Network
from fewstep.recipes.methods.others import Protonet
from fewstep.recipes.problems.functions import OscillationTasks, SinusoidTasks
from fewstep.training.device import Place

HERE = Place(torch.device("cpu"), torch.float64)
SEEN, AHEAD = 3, 4


def forecaster() -> Forecaster:
    torch.manual_seed(0)
    network = Forecaster(AHEAD, 5).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # biases too
    return network


def tasks() -> Task:
    source = Oscillations(shots=3, queries=2, tasks=3, seed=0, seen=SEEN, ahead=AHEAD, dtype=torch.float64)
    return source.batch(0)


def test_it_is_torchs_recurrent_network_fed_with_its_own_forecasts() -> None:
    own = forecaster()
    theirs, readout = nn.RNN(1, 5, batch_first=True).double(), own.forecast
    theirs.load_state_dict(
        {
            "weight_ih_l0": own.value.weight,
            "bias_ih_l0": own.value.bias,
            "weight_hh_l0": own.state.weight,
            "bias_hh_l0": torch.zeros(5),
        }
    )
    x = torch.randn(6, SEEN, dtype=torch.float64)
    for seen in range(1, SEEN + 1):  # one step ahead of every prefix
        hidden, _ = theirs(x[:, :seen, None])
        torch.testing.assert_close(own(x[:, :seen])[:, :1], readout(hidden[:, -1]))
    series = x
    for _ in range(AHEAD):  # from the beginning each time
        hidden, _ = theirs(series[..., None])
        series = torch.cat([series, readout(hidden[:, -1])], 1)
    torch.testing.assert_close(own(x), series[:, SEEN:])


def test_fresh_weights_are_as_its_slots_say() -> None:
    torch.manual_seed(0)
    network = Forecaster(1, 300)
    for layer in (network.value, network.state, network.forecast):
        assert layer.bias is None or not layer.bias.any()
    weights = {name: p.detach() for name, p in network.named_parameters() if "weight" in name}
    made = slots(network)
    assert list(made) == ["value.weight", "value.bias", "state.weight", "forecast.weight", "forecast.bias"]
    for name, weight in weights.items():
        assert weight.square().mean().sqrt().item() == pytest.approx(made[name].deviation, rel=0.2), name


def leo_forecaster() -> Method:
    options = NETWORK | {"average": True, "finetuning_steps": 1, "encoder_penalty_weight": 0.0}
    return leo_network(forecaster(), SEEN, AHEAD, **options)


def maml_forecaster() -> Method:
    return maml(forecaster(), rate=0.1, steps=2, loss=regression())


@pytest.mark.parametrize("make", [leo_forecaster, maml_forecaster])
def test_meta_gradients_are_exact_under_vmap(make: Callable[[], Method]) -> None:
    method, given = make(), tasks()
    method.learner.double()
    noise, parameters = method.noise(given, generator(0, 0, "noise")), dict(method.learner.named_parameters())
    found, looped = (
        torch.autograd.grad(method.objective(given, noise, executor).objective, list(parameters.values()))
        for executor in (Vmap(), Loop())
    )
    torch.testing.assert_close(found, looped, rtol=1e-10, atol=1e-12)
    for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
        direction, h = torch.randn_like(parameter), 1e-5
        values = []
        with torch.no_grad():
            for shift in (h, -2 * h, h):
                parameter += shift * direction
                values.append(method.objective(given, noise).objective.item())
        measured, expected = (values[0] - values[1]) / (2 * h), (gradient * direction).sum().item()
        assert gradient.any(), name
        assert measured == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_oscillations_of_a_configuration() -> None:
    problem = OscillationTasks(shots=2, queries=3, noise=0.2, seen=SEEN, ahead=AHEAD).open(HERE, lambda _: None)
    assert (problem.inputs, problem.outputs, problem.regression) == ((SEEN,), AHEAD, True)
    stated = {"dataset": "oscillations", "noise": 0.2, "seen": SEEN, "ahead": AHEAD, "interval": 0.5}
    assert problem.protocol == stated | {"damping": [0.0, 0.3], "frequency": [0.5, 2.5]}
    own = {"seed": 1, "tasks": 2, "noise": 0.2, "seen": SEEN, "ahead": AHEAD, "dtype": torch.float64}
    for split, queries in (("train", 3), ("val", 100), ("test", 100)):
        expected = Oscillations(shots=2, queries=queries, stream=f"oscillations/{split}", **own).batch(4)  # type: ignore[arg-type]
        torch.testing.assert_close(problem.source(split, tasks=2, seed=1).batch(4), expected, rtol=0, atol=0)


def test_a_configuration_builds_it_for_series_only() -> None:
    series, curves = (data.open(HERE, lambda _: None) for data in (OscillationTasks(ahead=7), SinusoidTasks()))
    assert Network("forecaster").build(series)(torch.zeros(2, 5)).shape == (2, 7)
    assert Network("forecaster", (8,)).build(series).state.weight.shape == (8, 8)
    assert Network("forecaster").build(curves)(torch.zeros(2, 1)).shape == (2, 1)
    with pytest.raises(ValueError, match=r"forecaster has one hidden layer: give the number of its units, not \(8, 8"):
        Network("forecaster", (8, 8)).build(series)
    with pytest.raises(ValueError, match=r"forecaster is a whole network for regression .* the method no head"):
        Protonet(network=Network("forecaster")).build(series)


@pytest.mark.parametrize(("ahead", "hidden", "name"), [(0, 5, "ahead"), (3, -1, "hidden")])
def test_bad_sizes(ahead: int, hidden: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"Forecaster: {name} must be at least 1"):
        Forecaster(ahead, hidden)
