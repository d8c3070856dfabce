"""Conditionally shifted neurons: the example of the reference notes, and a loop by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from cases import ERROR, classification_tasks
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.algorithms import csn
from fewstep.core import Batch, Loop, Task
from fewstep.networks import Conv4, ResNet12, mlp
from fewstep.networks.shifting import ConditionallyShifted, in_sequence

D = torch.float64
FIRST = torch.tensor([[0.5, -0.2], [0.1, 0.3], [-0.4, 0.6]], dtype=D)
LAST = torch.tensor([[0.3, -0.1, 0.2], [-0.2, 0.4, 0.1]], dtype=D)
ROWS = torch.tensor([[1.0, -0.5], [0.2, 0.8]], dtype=D)


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.T.shape, bias=False, dtype=D)
    layer.weight.data = weight.clone()
    return layer


def example(similarity: str = "dot", inside: bool = False, information: str = "feedback") -> ConditionallyShifted:
    """Two layers and two classes; g is linear, and keys are the inputs."""
    base, value = nn.Sequential(linear(FIRST), nn.ReLU(), linear(LAST)), linear(torch.tensor([[-1.0, 0.5]], dtype=D))
    return ConditionallyShifted(
        base,
        nn.Identity(),
        2,
        similarity=similarity,  # type: ignore[arg-type]
        inside=inside,
        information=information,  # type: ignore[arg-type]
        value=value,
    )


def known(network: nn.Module) -> dict[str, Tensor]:
    """The slots that ``Memory`` fills for the two rows, one of each class."""
    given = {"labels": torch.eye(2, dtype=D), "weights": torch.ones(2, dtype=D)}
    return given | {"rows": torch.func.functional_call(network, given, (ROWS,))}


def close(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=D), rtol=0, atol=5.01e-7)


def test_values_are_those_of_the_notes() -> None:
    keys, hidden, last = known(example())["rows"].split([2, 3, 2], 1)
    assert torch.equal(keys, ROWS)
    close(hidden, [[0.638336, 0, 0], [0, -0.716273, -0.716273]])
    close(last, [[-0.271649, 0.271649], [-0.342031, 0.342031]])


def test_errors_are_those_of_the_notes() -> None:
    network = example(information="error")
    slots = {"labels": torch.eye(2, dtype=D), "weights": torch.ones(2, dtype=D)}
    for name, slot in slots.items():
        setattr(network, name, slot)
    inputs = network._run(ROWS)[1]
    close(network._errors(ROWS, inputs)[:, :3], [[-0.212779, 0, 0], [0, -0.238758, 0.047752]])
    close(network._errors(ROWS, inputs)[:, 3:], [[-0.425557, 0.425557], [0.477515, -0.477515]])


@pytest.mark.parametrize(("similarity", "shares"), [("dot", [0.643365, 0.356635]), ("cosine", [0.620432, 0.379568])])
def test_shifted_logits_are_those_of_the_notes(similarity: str, shares: list[float]) -> None:
    """β of the hidden layer is [.410683, −.255448, −.255448] by products; h is the base's at a = [.43, .12, −.3]."""
    query = torch.tensor([[0.9, 0.1]], dtype=D)
    network = example(similarity)
    slots = known(network)
    shift = torch.tensor(shares, dtype=D) @ slots["rows"][:, 2:]
    hidden = F.relu(query @ FIRST.T) + F.relu(shift[:3])
    torch.testing.assert_close(
        torch.func.functional_call(network, slots, (query,)), hidden @ LAST.T + shift[3:], rtol=0, atol=1e-6
    )
    if similarity == "dot":
        close(shift[:3], [0.410683, -0.255448, -0.255448])  # type: ignore[arg-type]
        close(hidden, [[0.840683, 0.12, 0]])
        close(torch.func.functional_call(network, slots, (query,)), [[-0.056545, 0.176613]])
        port = torch.func.functional_call(example(inside=True), slots, (query,)) - shift[3:]
        close(port, (torch.tensor([[0.840683, 0, 0]], dtype=D) @ LAST.T).tolist())


def by_hand(method_network: ConditionallyShifted, task: Task, inside: bool) -> Tensor:
    """Error values and products of keys, by autograd of a plain forward, for a base of two linear layers."""
    base, key, value = method_network.base, method_network.key, method_network.value
    real = task.support.weight > 0
    x, y = task.support.x[real], task.support.y[real]
    a = base[0](x)
    logits = base[2](F.relu(a))
    loss = -(y * logits.log_softmax(1)).sum()
    errors = torch.autograd.grad(loss, (a, logits), create_graph=True)
    numbers = []
    for e in errors:
        large, size = e.abs() > math.exp(-10), e.abs().clamp_min(1e-30).log() / 10
        both = torch.where(large, size, -1), torch.where(large, e.sign(), math.exp(10) * e)
        numbers.append(torch.stack(both, 2))
    hidden, last = (value(n).squeeze(2) for n in numbers)
    shares = (key(task.query.x) @ key(x).T).softmax(1)
    b, c = shares @ hidden, shares @ last
    a = base[0](task.query.x)
    h = F.relu(a + b) if inside else F.relu(a) + F.relu(b)
    return F.cross_entropy(base[2](h) + c, task.query.y.argmax(1))


@pytest.mark.parametrize("inside", [True, False])
def test_meta_gradients_by_errors_go_through_the_errors(inside: bool) -> None:
    torch.manual_seed(0)
    tasks = classification_tasks(6)
    method = csn(mlp((6, 5, 3)), mlp((6, 4)), 3, units=4, **ERROR | {"inside": inside})
    method.learner.double()
    network = method.learner.network
    assert isinstance(network, ConditionallyShifted)
    found = method.objective(tasks, None, Loop()).objective
    one = [by_hand(network, tree_map(lambda t, i=i: t[i], tasks), inside) for i in range(4)]
    expected = torch.stack(one).mean()
    parameters = list(method.learner.parameters())
    gradients = [torch.autograd.grad(objective, parameters) for objective in (found, expected)]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-10)


def test_only_the_last_layers_may_be_shifted() -> None:
    sizes = {None: 7 + 5 + 3, 2: 7 + 5 + 3, 1: 5 + 3, 0: 3}
    tasks = tree_map(Tensor.float, classification_tasks(6))
    for layers, size in sizes.items():
        method = csn(mlp((6, 7, 5, 3)), mlp((6, 4)), 3, layers=layers)
        assert method.adapt(tasks.support).context["rows"].shape == (4, 6, 4 + size)


def test_the_support_has_its_own_statistics() -> None:
    """Of norms in the base and in f, whatever the queries are: their number changes nothing of what is remembered."""
    torch.manual_seed(0)
    tasks = tree_map(Tensor.float, classification_tasks(6))
    method = csn(mlp((6, 5, 3), norm=True), mlp((6, 4), norm=True), 3)
    points = method.adapt(tasks.support)
    one = Batch(*(part[:, :1] for part in tasks.query))
    together = method.predict(points, tasks.query, tasks.support, statistics="support")[:, :1]
    torch.testing.assert_close(method.predict(points, one, tasks.support, statistics="support"), together)


def test_layers_one_after_another() -> None:
    x = torch.rand(2, 1, 8, 8)
    for readout in ("mean", "flatten"):
        network = Conv4(3, channels=(4, 4), readout=readout, size=8)  # type: ignore[arg-type]
        torch.testing.assert_close(in_sequence(network)(x), network(x))
        nested = nn.Sequential(nn.Identity(), network)
        assert len(in_sequence(nested)) == len(in_sequence(network)) + 1
    with pytest.raises(ValueError, match="ResNet12 is not known to run layer by layer"):
        in_sequence(ResNet12(3, 1, (2, 3)))
