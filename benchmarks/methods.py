"""The other methods: the meta-gradient of each beside a hand-written loop, and learn2learn where it has the method."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewstep
from benchmarks import method_loops, peers
from benchmarks.measure import Case
from benchmarks.method_loops import MetaGradient
from benchmarks.workloads import DEVICE, beside, clusters, plain_conv4, sinusoids
from fewstep.core import Executor, Loop, Method, Task, Vmap, generator, regression
from fewstep.networks import Conv4, mlp

RATE = 0.01
Rivals = dict[str, Callable[[], MetaGradient]]


def _case(
    name: str,
    what: str,
    method: Method,
    tasks: Task,
    batches: list[Tensor],
    rivals: Rivals,
    ours: dict[str, tuple[Executor, bool]],
    tolerance: float,
    rounds: int,
) -> Case:
    """``batches`` are what rivals are called with; those of libraries that are not installed are left out."""
    method.learner.to(DEVICE)
    present = {kind: build for kind, build in rivals.items() if kind in {"loop", *peers.installed()}}
    contenders = beside(present, method, tasks, batches, ours)
    return Case(f"methods-{name}", what, contenders, tolerance=tolerance, rounds=rounds, flops="loop")


# -- sinusoids: MAML's network of 40 + 40 units -----------------------------------------------------------------------


def _mlps() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    network, plain = mlp((1, 40, 40, 1)), mlp((1, 40, 40, 1))
    plain.load_state_dict(network.state_dict())
    return network, plain.to(DEVICE)


def _sinusoid(
    name: str,
    title: str,
    details: str,
    method: Method,
    tasks: Task,
    rivals: Rivals,
    rounds: int,
    batches: list[Tensor] | None = None,
) -> Case:
    ours: dict[str, tuple[Executor, bool]] = {"compiled": (Vmap(), True), "eager": (Vmap(), False)}
    batches = batches or [tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y]
    what = f"{title}, sinusoid, {len(batches[0])} tasks, {details}"
    return _case(name, what, method, tasks, batches, rivals, ours, 1e-3, rounds)


def meta_sgd(tasks: int = 25, rounds: int = 25) -> Case:
    network, plain = _mlps()
    method = fewstep.meta_sgd(network, loss=regression())
    # In the order of the learner's parameters: torch sorts what it makes a ParameterDict of.
    rates = {name: method.learner.stages[0].rule[name] for name in sorted(dict(network.named_parameters()))}
    rivals: Rivals = {
        "loop": lambda: method_loops.meta_sgd(plain, F.mse_loss, rates, 1),
        "learn2learn": lambda: peers.learn2learn_meta_sgd(plain, F.mse_loss, rates, 1),
    }
    return _sinusoid("meta-sgd", "Meta-SGD", "10 shots, 1 step", method, sinusoids(tasks), rivals, rounds)


def _curvature_rivals(method: Method, network: nn.Module, plain: nn.Module, loss: method_loops.Loss) -> Rivals:
    rule = method.learner.stages[0].rule
    factors = [list(rule[name].values()) for name, _ in network.named_parameters()]
    return {
        "loop": lambda: method_loops.meta_curvature(plain, loss, factors, RATE, 1),
        "learn2learn": lambda: peers.learn2learn_meta_curvature(plain, loss, RATE, 1),
    }


def meta_curvature(tasks: int = 25, rounds: int = 25) -> Case:
    network, plain = _mlps()
    method = fewstep.meta_curvature(network, rate=RATE, loss=regression())
    rivals = _curvature_rivals(method, network, plain, F.mse_loss)
    return _sinusoid("meta-curvature", "Meta-Curvature", "10 shots, 1 step", method, sinusoids(tasks), rivals, rounds)


def reptile(tasks: int = 5, steps: int = 32, rounds: int = 25) -> Case:
    """Our work has one thing more: the query loss, for the log."""
    network, plain = _mlps()
    method = fewstep.reptile(network, rate=0.02, steps=steps, batch=10, rule="sgd", loss=regression())
    batch = sinusoids(tasks, shots=50)
    keys = method.learner.noise(batch, generator(0, 0, "noise", DEVICE))["shuffles"][0]["keys"]
    rivals: Rivals = {"loop": lambda: method_loops.reptile(plain, F.mse_loss, 0.02, steps, 10)}
    details = f"{steps} steps of SGD on 10 of 50 points"
    return _sinusoid(
        "reptile", "Reptile", details, method, batch, rivals, rounds, [batch.support.x, batch.support.y, keys]
    )


def imaml(tasks: int = 25, steps: int = 16, rounds: int = 25) -> Case:
    network, plain = _mlps()
    method = fewstep.imaml(network, rate=RATE, steps=steps, prox=0.5, iterations=2, damping=1.0, loss=regression())
    rivals: Rivals = {"loop": lambda: method_loops.imaml(plain, F.mse_loss, RATE, steps, 0.5, 2, 1.0)}
    details = f"10 shots, {steps} steps, 2 iterations of conjugate gradients"
    return _sinusoid("imaml", "iMAML", details, method, sinusoids(tasks), rivals, rounds)


def meta_lstm(tasks: int = 5, steps: int = 5, rounds: int = 25) -> Case:
    network, plain = _mlps()
    method = fewstep.meta_lstm(network, steps=steps, loss=regression())
    rule = method.learner.stages[0].rule
    rivals: Rivals = {"loop": lambda: method_loops.meta_lstm(plain, F.mse_loss, rule.layer, rule.gates, steps)}
    return _sinusoid("meta-lstm", "Meta-LSTM", f"10 shots, {steps} steps", method, sinusoids(tasks), rivals, rounds)


# -- images: MAML's Omniglot network ----------------------------------------------------------------------------------


def _omniglot(name: str, title: str, details: str, method: Method, tasks: int, rivals: Rivals, rounds: int) -> Case:
    ours: dict[str, tuple[Executor, bool]] = {"loop": (Loop(), False), "loop, compiled": (Loop(), True)}
    batch = clusters(tasks, 5, 1, 15, 1, 28, 28)
    batches = [batch.support.x, batch.support.y.argmax(-1), batch.query.x, batch.query.y.argmax(-1)]
    what = f"{title}, conv4 stride 2, {tasks} tasks, 5-way 1-shot, 15 queries{details}"
    # Biases before a norm have no gradient but rounding, and count in proportion to all others': 6e-3 (float64 3e-12).
    return _case(f"omniglot-{name}", what, method, batch, batches, rivals, ours, 5e-2, rounds)


def _embeddings(channels: Sequence[int] = (64,) * 4) -> tuple[nn.Module, nn.Module]:
    """The network without a last layer, ours and from torch's own modules."""
    torch.manual_seed(0)
    whole, network = Conv4(5, channels=channels, scale=True), Conv4(None, channels=channels, scale=True)
    network.blocks.load_state_dict(whole.blocks.state_dict())
    plain = plain_conv4(whole, pool=False)
    assert isinstance(plain, nn.Sequential)
    return network, plain[:-1]


def protonet(tasks: int = 8, rounds: int = 15) -> Case:
    network, plain = _embeddings()
    method = fewstep.protonet(network)
    rivals: Rivals = {"loop": lambda: method_loops.protonet(plain, 5)}
    return _omniglot("protonet", "Prototypical networks", "", method, tasks, rivals, rounds)


def protomaml(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = (64,) * 4) -> Case:
    network, plain = _embeddings(channels)
    method = fewstep.protomaml(network, rate=RATE)
    rivals: Rivals = {"loop": lambda: method_loops.protomaml(plain, 5, RATE, 1)}
    return _omniglot("protomaml", "Proto-MAML", ", 1 step", method, tasks, rivals, rounds)


def meta_curvature_omniglot(tasks: int = 8, rounds: int = 15) -> Case:
    torch.manual_seed(0)
    network = Conv4(5, scale=True)
    method = fewstep.meta_curvature(network, rate=RATE)
    rivals = _curvature_rivals(method, network, plain_conv4(network, pool=False), F.cross_entropy)
    return _omniglot("meta-curvature", "Meta-Curvature", ", 1 step", method, tasks, rivals, rounds)
