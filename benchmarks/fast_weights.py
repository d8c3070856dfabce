"""CAVIA, T-net, MT-net, MAML++, CSN and DEML: the meta-gradient of each beside a hand-written loop over tasks.

On the sinusoid network with 40 + 40 units, and on MAML's Omniglot network. CSN is of classes, and on vectors has a
network of as many units for Gaussian ones.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import fewstep
from benchmarks import fast_weight_loops as loops
from benchmarks.measure import Case
from benchmarks.method_loops import MetaGradient
from benchmarks.workloads import AT_ONCE, DEVICE, ONE_BY_ONE, SOME, Ways, beside, clusters, sinusoids
from fewstep.core import Method, Task, generator, regression
from fewstep.networks import Conv4, mlp
from fewstep.networks.norms import without_norms

RATE, STEPS, CONTEXT = 0.01, 5, 5
CHANNELS = (64,) * 4


def beside_loop(
    name: str,
    what: str,
    method: Method,
    tasks: Task,
    batches: Sequence[Tensor],
    loop: Callable[[Method], MetaGradient],
    ours: Ways,
    tolerance: float,
    rounds: int,
) -> Case:
    """``batches`` are what the loop's meta-gradient is called with."""
    method.learner.to(DEVICE)

    contenders = beside({"loop": partial(loop, method)}, method, tasks, batches, ours)
    return Case(f"methods-{name}", what, contenders, tolerance=tolerance, rounds=rounds, flops="loop")


# -- sinusoids --------------------------------------------------------------------------------------------------------


def on_sinusoids(
    name: str,
    what: str,
    method: Method,
    tasks: Task,
    loop: Callable[[Method], MetaGradient],
    rounds: int,
    draws: Sequence[Tensor] = (),
) -> Case:
    """``draws`` of the tasks are what the loop is called with beside their rows."""
    batches = [tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y, *draws]
    what = f"{what}, sinusoid, {len(batches[0])} tasks, 10 shots"
    return beside_loop(name, what, method, tasks, batches, loop, AT_ONCE, 1e-3, rounds)


def sinusoid_network(width: int = 40, context: int = 0) -> nn.Sequential:
    """MAML's, of 40 + 40 units."""
    torch.manual_seed(0)
    return mlp((1, width, width, 1), context=context)


def cavia(tasks: int = 25, rounds: int = 25) -> Case:
    method = fewstep.cavia(sinusoid_network(context=CONTEXT), rate=1.0, loss=regression())

    def loop(method: Method) -> MetaGradient:
        return loops.cavia(method, CONTEXT, 1.0, 1)

    return on_sinusoids("cavia", "CAVIA, 1 step", method, sinusoids(tasks), loop, rounds)


def t_net(tasks: int = 25, rounds: int = 25) -> Case:
    method = _off_the_identity(fewstep.t_net(sinusoid_network(), rate=RATE, loss=regression()))
    return on_sinusoids("t-net", "T-net, 1 step", method, sinusoids(tasks), _mt_net_loop, rounds)


def mt_net(tasks: int = 25, rounds: int = 25) -> Case:
    """The loop is given the logistic numbers that masks are made of, not the normal ones that these are made of."""
    method, batch = (
        _off_the_identity(fewstep.mt_net(sinusoid_network(), rate=RATE, loss=regression())),
        sinusoids(tasks),
    )
    return on_sinusoids("mt-net", "MT-net, 1 step", method, batch, _mt_net_loop, rounds, _logistic(method, batch))


def _logistic(method: Method, batch: Task) -> list[Tensor]:
    """The numbers that masks are made of."""
    method.learner.to(DEVICE)
    noise = method.learner.noise(batch, generator(0, 0, "noise", DEVICE))["shuffles"][0]["rule"]["0"]
    one, other = zip(*(drawn.square().sum(2).unbind(1) for drawn in noise.values()), strict=True)
    return [(a / b).log() for a, b in zip(one, other, strict=True)]


def _mt_net_loop(method: Method) -> MetaGradient:
    return loops.mt_net(method, RATE, 1)


def _off_the_identity(method: Method) -> Method:
    """So that a matrix is not its transpose."""
    with torch.no_grad():
        for name, parameter in method.learner.network.named_parameters():
            if name.endswith("transform"):
                parameter += 0.1 * torch.randn_like(parameter)
    return method


def maml_plus_plus(tasks: int = 25, steps: int = STEPS, rounds: int = 25) -> Case:
    method = fewstep.maml_plus_plus(sinusoid_network(), rate=RATE, steps=steps, loss=regression())

    def loop(method: Method) -> MetaGradient:
        names = [name for name, _ in method.learner.network.named_parameters()]
        return loops.maml_plus_plus(method, *_rates_and_weights(method, names))

    return on_sinusoids("maml-plus-plus", f"MAML++, {steps} steps", method, sinusoids(tasks), loop, rounds)


def _rates_and_weights(method: Method, names: Sequence[str]) -> tuple[loops.Rates, Sequence[Tensor]]:
    (stage, *_), estimator = method.learner.stages, method.meta_gradient
    rates = [[stage.rule.for_step(step)[name] for name in names] for step in range(stage.steps)]
    return rates, estimator.weights_at(method.learner.progress)


# -- classes of vectors -----------------------------------------------------------------------------------------------


def csn(tasks: int = 25, rounds: int = 25) -> Case:
    torch.manual_seed(0)
    method = fewstep.csn(mlp((20, 40, 40, 5)), mlp((20, 40, 40)), 5)
    batch, what = clusters(tasks, 5, 1, 15, 20), f"CSN, 20-40-40-5, {tasks} tasks, 5-way 1-shot, 15 queries"
    return beside_loop("csn", what, method, batch, _of_classes(batch), _csn_loop, AT_ONCE, 1e-3, rounds)


def _of_classes(tasks: Task) -> list[Tensor]:
    return [tasks.support.x, tasks.support.y.argmax(-1), tasks.query.x, tasks.query.y.argmax(-1)]


def _csn_loop(method: Method) -> MetaGradient:
    whole = method.learner.network
    key = whole.key if isinstance(whole.key, nn.Sequential) else _embedding(whole.key)
    return loops.csn(method, whole.base, key, whole.value, 5)


def _embedding(network: Conv4) -> nn.Sequential:
    return nn.Sequential(*network.blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


# -- images -----------------------------------------------------------------------------------------------------------


def on_images(
    name: str,
    what: str,
    method: Method,
    tasks: int,
    loop: Callable[[Method], MetaGradient],
    rounds: int,
    ours: Ways = ONE_BY_ONE,
    drawn: Callable[[Method, Task], list[Tensor]] = lambda *_: [],
) -> Case:
    batch = clusters(tasks, 5, 1, 15, 1, 28, 28)
    what = f"{what}, conv4 stride 2, {tasks} tasks, 5-way 1-shot, 15 queries"
    # Biases before a norm have no gradient but rounding: 5e-2, as in methods.py.
    batches = [*_of_classes(batch), *drawn(method, batch)]
    return beside_loop(f"omniglot-{name}", what, method, batch, batches, loop, ours, 5e-2, rounds)


def cavia_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS, width: int = 100) -> Case:
    torch.manual_seed(0)
    method = fewstep.cavia(Conv4(5, channels=channels, scale=True, context=width), rate=1.0, steps=2)

    def loop(method: Method) -> MetaGradient:
        return loops.cavia_conv(method, width, 1.0, 2)

    return on_images("cavia", "CAVIA, 2 steps", method, tasks, loop, rounds, SOME)


def t_net_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS) -> Case:
    torch.manual_seed(0)
    network = Conv4(5, channels=channels, scale=True)
    method = _off_the_identity(fewstep.t_net(network, rate=RATE, adapts=without_norms(network)))
    return on_images("t-net", "T-net, 1 step", method, tasks, _mt_net_conv_loop, rounds)


def mt_net_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS) -> Case:
    torch.manual_seed(0)
    network = Conv4(5, channels=channels, scale=True)
    method = _off_the_identity(fewstep.mt_net(network, rate=RATE, adapts=without_norms(network)))
    return on_images("mt-net", "MT-net, 1 step", method, tasks, _mt_net_conv_loop, rounds, drawn=_logistic)


def _mt_net_conv_loop(method: Method) -> MetaGradient:
    return loops.mt_net_conv(method, RATE, 1)


def maml_plus_plus_omniglot(
    tasks: int = 8, steps: int = STEPS, rounds: int = 15, channels: Sequence[int] = CHANNELS
) -> Case:
    torch.manual_seed(0)
    network = Conv4(5, channels=channels, norm_steps=steps)
    method = fewstep.maml_plus_plus(network, rate=RATE, steps=steps, adapts=without_norms(network))

    def loop(method: Method) -> MetaGradient:
        return loops.maml_plus_plus_conv(method, *_rates_and_weights(method, without_norms(method.learner.network)))

    return on_images("maml-plus-plus", f"MAML++, {steps} steps", method, tasks, loop, rounds)


def csn_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS) -> Case:
    torch.manual_seed(0)
    base, key = Conv4(5, channels=channels, scale=True), Conv4(None, channels=channels, scale=True)
    return on_images("csn", "CSN, all layers shifted", fewstep.csn(base, key, 5), tasks, _csn_loop, rounds, SOME)


def deml_omniglot(tasks: int = 8, rounds: int = 15, channels: Sequence[int] = CHANNELS) -> Case:
    """Without base classes, whose naming is no part of the meta-gradient of tasks."""
    torch.manual_seed(0)
    concepts, network = Conv4(None, channels=channels, scale=True), mlp((channels[-1], 64, 32, 5))
    method = fewstep.deml(network, concepts, features=channels[-1], rate=(0.5, 1.0))

    def loop(method: Method) -> MetaGradient:
        rule = method.learner.stages[0].rule
        rates = [rule[name] for name, _ in method.learner.network.named_parameters()]
        return loops.deml(method, _embedding(method.learner.embedding), rates)

    return on_images("deml", "DEML without naming, 1 step", method, tasks, loop, rounds, SOME)
