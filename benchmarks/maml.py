"""MAML: the meta-gradient on three networks, beside a hand-written loop and the libraries that are installed."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import loops, peers
from benchmarks.measure import Case, Contender, Work
from benchmarks.workloads import DEVICE, clusters, gradients, plain_conv4, sinusoids
from fewstep import maml
from fewstep.core import Executor, Loop, Task, Vmap, regression
from fewstep.networks import Conv4, mlp

RATE = 0.01


def _case(
    name: str,
    what: str,
    network: nn.Module,
    plain: nn.Module,
    tasks: Task,
    steps: int,
    first_order: bool,
    ours: dict[str, tuple[Executor, bool]],
    rounds: int,
) -> Case:
    """The contenders' first is the fastest rival's reference: the loop."""
    numbers = tasks.support.y.shape[-1] == 1
    loss = F.mse_loss if numbers else F.cross_entropy
    x, y, query_x, query_y = tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y
    if not numbers:
        y, query_y = y.argmax(-1), query_y.argmax(-1)
    method = maml(network, rate=RATE, steps=steps, first_order=first_order, loss=regression() if numbers else None)
    method.learner.to(DEVICE)

    def rival(builder: peers.Builder) -> Work:
        meta_gradient = builder(plain, loss, RATE, steps, first_order)

        def work() -> list[Tensor]:
            return meta_gradient(x, y, query_x, query_y)

        return work

    contenders = [Contender("loop", lambda: rival(loops.maml))]
    contenders += [
        Contender(peer, lambda builder=peers.PEERS[peer]: rival(builder))
        for peer in peers.installed()  # type: ignore[misc]
    ]
    contenders += [
        Contender(f"fewstep, {kind}", lambda how=how: gradients(method, tasks, *how))  # type: ignore[misc]
        for kind, how in ours.items()
    ]
    # Where a float32 rounding flips a ReLU, second derivatives jump, and five steps of random weights amplify that
    # until two float32 runs of the same loop need not agree. In float64 all do, to 1e-9 (PEERS.md, tests/).
    tolerance = 1e-3 if numbers else 5e-2 if steps == 1 else None
    return Case(
        name,
        what,
        contenders,
        tolerance=tolerance,
        rounds=rounds,
        flops="loop",
        notes={"order": "first" if first_order else "second"},
    )


def sinusoid(steps: int, first_order: bool = False, rounds: int = 25) -> Case:
    """MAML's regression: 25 tasks, 10 + 10 points, a network of 40 + 40 units."""
    torch.manual_seed(0)
    network, plain = mlp((1, 40, 40, 1)), mlp((1, 40, 40, 1))
    plain.load_state_dict(network.state_dict())
    order = "first" if first_order else "second"
    return _case(
        f"maml-sinusoid-{steps}step",
        f"MAML, sinusoid, 25 tasks, 10 shots, {steps} steps, {order} order",
        network,
        plain.to(DEVICE),
        sinusoids(25),
        steps,
        first_order,
        {"compiled": (Vmap(), True), "eager": (Vmap(), False)},
        rounds,
    )


def omniglot(first_order: bool, tasks: int = 32, rounds: int = 9, channels: Sequence[int] = (64,) * 4) -> Case:
    """MAML's Omniglot network: 28×28, four strided blocks of 64 channels, one inner step."""
    torch.manual_seed(0)
    network = Conv4(5, channels=channels, scale=True)
    order = "first" if first_order else "second"
    return _case(
        f"maml-omniglot-{order}",
        f"MAML, conv4 stride 2, {tasks} tasks, 5-way 1-shot, 15 queries, {order} order",
        network,
        plain_conv4(network, pool=False),
        clusters(tasks, 5, 1, 15, 1, 28, 28),
        1,
        first_order,
        {"loop": (Loop(), False), "loop, compiled": (Loop(), True), "vmap": (Vmap(8), False)},
        rounds,
    )


def mini(first_order: bool, tasks: int = 4, rounds: int = 5, channels: Sequence[int] = (32,) * 4) -> Case:
    """miniImageNet's size: 84×84, four pooled blocks of 32 channels, five inner steps."""
    torch.manual_seed(0)
    network = Conv4(5, 3, channels, "pool", scale=True)
    order = "first" if first_order else "second"
    return _case(
        f"maml-84-{order}",
        f"MAML, conv4-32, 84×84, {tasks} tasks, 5-way 1-shot, 15 queries, 5 steps, {order} order",
        network,
        plain_conv4(network, pool=True),
        clusters(tasks, 5, 1, 15, 3, 84, 84),
        5,
        first_order,
        {"loop": (Loop(), False), "loop, compiled": (Loop(), True)},
        rounds,
    )
