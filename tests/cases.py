"""Every algorithm once: a row here buys the whole contract of ``test_contract.py``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fewstep import algorithms
from fewstep.algorithms import (
    anil,
    bayesian_maml,
    cavia,
    cnp,
    csn,
    deml,
    dfsl,
    fomaml,
    gaussian_prior,
    imaml,
    leo,
    leo_network,
    llama,
    maml,
    maml_plus_plus,
    matching,
    meta_curvature,
    meta_lstm,
    meta_sgd,
    mt_net,
    neural_process,
    platipus,
    ppa,
    protomaml,
    protonet,
    r2d2,
    relation,
    reptile,
    residual_prototypes,
    snail,
    t_net,
    tadam,
    tpn,
)
from fewstep.core import (
    OFFICIAL,
    SGD,
    SVGD,
    Adam,
    AnyTask,
    Backprop,
    Batch,
    Decode,
    Descend,
    Generator,
    Implicit,
    KnownTask,
    Learner,
    Method,
    Mixture,
    MultiStep,
    Shared,
    Task,
    classification,
    regression,
)
from fewstep.networks import Conv4, Ensemble, Generated, Particle, ResNet12, StepwiseBatchNorm, mlp
from fewstep.networks.particles import regression_of_each
from fewstep.networks.propagating import width_of_maps, width_of_vectors
from fewstep.networks.relating import of_maps, of_vectors


@dataclass(frozen=True)
class Case:
    """A method in float64 and a batch of tasks for it.

    ``differentiable``: the objective's value is a function whose derivative is the meta-gradient, so finite
    differences apply. Estimators that stop gradients have a witness of their own in ``test_witnesses.py``.
    ``equivariant``: renaming classes renames predictions (no class owns meta-parameters).
    """

    name: str
    method: Callable[[], Method]
    tasks: Callable[[], AnyTask]
    differentiable: bool = True
    equivariant: bool = False

    def build(self) -> tuple[Method, AnyTask]:
        torch.manual_seed(0)
        method = self.method()
        method.learner.double()
        return method, self.tasks()


def algorithm(case: str) -> str:
    """The algorithm that a case's name begins with, or the whole name when it begins with none."""
    names = [name.replace("_", "-") for name in algorithms.__all__]
    return max((name for name in names if f"{case}-".startswith(f"{name}-")), key=len, default=case)


def classification_tasks(*shape: int, ways: int = 3, shots: int = 2, queries: int = 3, tasks: int = 4) -> Task:
    """Gaussian clusters; the last support row of the first task is padding."""
    source = torch.Generator().manual_seed(1)
    centres = torch.randn(tasks, ways, 1, *shape, generator=source, dtype=torch.float64)

    def batch(rows: int) -> Batch:
        noise = torch.randn(tasks, ways, rows, *shape, generator=source, dtype=torch.float64)
        y = torch.eye(ways, dtype=torch.float64).repeat_interleave(rows, 0).expand(tasks, -1, -1)
        return Batch((centres + 0.7 * noise).flatten(1, 2), y, torch.ones(tasks, ways * rows, dtype=torch.float64))

    support, query = batch(shots), batch(queries)
    support.weight[0, -1] = 0
    return Task(support, query)


def regression_tasks(tasks: int = 4) -> Task:
    source = torch.Generator().manual_seed(2)
    x = 4 * torch.rand(tasks, 10, 1, generator=source, dtype=torch.float64) - 2
    y = torch.sin(x + torch.rand(tasks, 1, 1, generator=source, dtype=torch.float64))
    weight = torch.ones(tasks, 10, dtype=torch.float64)
    return Task(*(Batch(x[:, rows], y[:, rows], weight[:, rows]) for rows in (slice(0, 5), slice(5, 10))))


def vectors() -> Task:
    return classification_tasks(6)


def known_vectors(others: int = 0) -> KnownTask:
    """Each of three classes of five that are known; with an even number of rows of the other two, if any."""
    order = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    support, query = vectors()
    if others:
        x = torch.randn(4, others, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        y = F.one_hot(3 + order[:, 3:].repeat_interleave(others // 2, 1), 8).double()
        labels = torch.cat([F.pad(query.y, (0, 5)), y], 1)
        query = Batch(torch.cat([query.x, x], 1), labels, F.pad(query.weight, (0, others), value=1.0))
    return KnownTask(support, query, order[:, :3])


def images() -> Task:
    return classification_tasks(1, 8, 8, shots=1, queries=2, tasks=3)


def conv(ways: int | None = 3) -> Conv4:
    return Conv4(ways, channels=(4, 4), downsample="stride", scale=True)


def steered_conv() -> Conv4:
    return Conv4(3, channels=(4, 4), downsample="pool", scale=True, init="kaiming", context=3, context_block=2)


def stepwise_mlp() -> Method:
    """Halfway through what fades, with norms of their own for each step."""
    network = mlp((6, 5, 3), norm=True)
    network[1] = StepwiseBatchNorm(5, steps=2)
    method = maml_plus_plus(network, steps=2, rate=0.3, first_order_until=0.01)
    method.learner.progress.fill_(0.07)
    return method


def stepwise_conv() -> Conv4:
    return Conv4(3, channels=(4, 4), slope=0.01, norm_steps=2)


def pooled() -> Conv4:
    """Pools that keep an odd row, before the ReLU, and a readout of every position."""
    return Conv4(3, channels=(3, 4), downsample="pool first", readout="flatten", size=7, init="imaml")


def is_weight(name: str) -> bool:
    return "head" in name or name.startswith("blocks.0")


LEO = {
    "normalise": False,
    "latent_clip": None,
    "latents": 3,
    "dropout": 0.3,
    "kl_weight": 0.2,
    "l2_weight": 0.01,
    "orthogonality_weight": 0.3,
    "latent_rate": 0.4,
    "finetuning_rate": 0.1,
    "latent_steps": 2,
    "finetuning_steps": 2,
}


def relation_of_maps() -> Method:
    network = Conv4(None, channels=(4,), scale=True, readout="maps")
    return relation(network, of_maps(4, side=4, hidden=3), reduce="mean")


def tpn_of_maps() -> Method:
    network = Conv4(None, channels=(4, 4), scale=True, readout="flatten", size=8)
    return tpn(network, width_of_maps(4, side=2), neighbours=4, alpha=0.9)


def jittered_ppa(features: int) -> Method:
    """Away from the identity, whose ReLU has its kink at features that are zero."""
    method = ppa(features, scale=3.0)
    for parameter in method.learner.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return method


def jittered_tadam(network: nn.Module, **options: Any) -> Method:
    """With open gates, without which nothing is conditioned."""
    method = tadam(network, 4, **{"scale": 2.0} | options)
    for name, parameter in method.learner.named_parameters():
        if name.endswith("gate"):
            parameter.data.add_(torch.rand(()))
    return method


def prior(features: int, **options: Any) -> Method:
    """Learned from what it was fitted to, some steps from its end."""
    return gaussian_prior(torch.randn(5, features), **{"rate": 0.2, "steps": 3, "learned": True} | options)


def implicit_leo() -> Method:
    """A composition without a paper: LEO's codes, pulled to their beginning, with the implicit meta-gradient."""
    start = Generator(6, 3, kl_weight=0.2)
    descents = [Descend(SGD(0.2), 6, prox=1.0), Decode()]
    return Method(Learner(Generated(), start, descents, loss=classification("sum"), dropout=0.3), Implicit())


def multi_step() -> Method:
    """MAML++'s loss after every step."""
    return Method(Learner(conv(), Shared(), [Descend(SGD(0.2), 2)]), MultiStep([0.3, 0.7]))


def adam() -> Method:
    """A differentiable inner Adam: Reptile's optimiser, and MAML's meta-gradient."""
    return Method(Learner(mlp((6, 5, 3)), Shared(), [Descend(Adam(0.1, (0.5, 0.999), eps=0.01), 2)]), Backprop())


def particles(hidden: int = 5) -> Ensemble:
    """Three, whose precisions are not alike."""
    made = Ensemble(lambda: Particle(mlp((1, hidden, 1)), 0.3), 3)
    for name, parameter in made.named_parameters():
        if name.startswith("log_"):
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def particle_heads(features: nn.Module, **options: Any) -> Method:
    return bayesian_maml(
        nn.Sequential(features, Ensemble(lambda: nn.Linear(4, 3), 3)), **{"rate": 0.2, "steps": 2} | options
    )


def svgd() -> Method:
    """Particles by a kernel of one width, without a leader: nothing stops a gradient."""
    network, steps = particles(), [Descend(SVGD(0.02, bandwidth=3.0), 2)]
    start = bayesian_maml(network).learner.start
    return Method(Learner(network, start, steps, loss=regression_of_each()), Backprop())


SAMPLED = {"prior_rate": 0.2, "posterior_rate": 0.1, "deviation": 0.2, "posterior_deviation": 0.1, "kl_weight": 0.01}


def lstm_backprop() -> Method:
    """Meta-LSTM with the second derivatives that its authors leave out."""
    return Method(meta_lstm(mlp((6, 5, 3)), steps=2, hidden=3).learner, Backprop())


PROCESS = {"width": 4, "hidden": 6, "encoder_depth": 2, "decoder_depth": 2}
ERROR = {"information": "error", "similarity": "dot", "inside": True}
NETWORK = {
    "latents": 3,
    "hidden": 4,
    "latent_steps": 2,
    "latent_rate": 0.05,
    "spread": 0.2,
    "kl_weight": 0.1,
    "l2_weight": 0.01,
    "orthogonality_weight": 0.1,
    "encoder_penalty_weight": 0.0,
}


def network(**options: Any) -> Method:
    """LEO for all of a small network for regression."""
    return leo_network(mlp((1, 5, 1)), 1, 1, **(NETWORK | options))


def images_network(**options: Any) -> Method:
    """LEO for the head and a convolution of a network, whose other block is shared."""
    return leo_network(conv(), 64, 3, generated=is_weight, loss=classification(), **(NETWORK | {"hidden": 8} | options))


def residual(features: int, classes: int = 0) -> Method:
    """With a residual that is not zero, a head between both, and steps on it, and on codes where there are any."""
    seen = torch.randn(classes, features) if classes else 0
    method = residual_prototypes(torch.randn(features) / features, hidden=4, seen=seen)
    labels = {"strength": "0.5", "head": "ridge 1", "latent rate": "0.3, sharpness 3", "rate": "0.3"}
    for setting in method.alternatives:
        setting.take(method.learner, labels[setting.name])
    state = method.learner.state_dict()
    state["start.head.shares" if classes else "start.shares"].fill_(0.5)
    for name in ("linear", "outer"):
        torch.nn.init.normal_(state[f"embedding.2.{name}.weight"], std=0.3)
    return method


CASES = [
    Case("maml-mlp", lambda: maml(mlp((6, 5, 3)), rate=0.3, steps=2), vectors),
    Case("maml-mlp-norm", lambda: maml(mlp((6, 5, 3), norm=True), rate=0.3, steps=2), vectors),
    Case("maml-regression", lambda: maml(mlp((1, 6, 1)), rate=0.1, loss=regression()), regression_tasks),
    Case("maml-conv", lambda: maml(conv(), rate=0.2, steps=2), images),
    Case("maml-pool", lambda: maml(pooled(), rate=0.2, steps=2), lambda: classification_tasks(1, 7, 7, shots=1)),
    Case("maml-resnet", lambda: maml(ResNet12(3, 1, (2, 3)), rate=0.1), images),
    Case("maml-conv-partial", lambda: maml(conv(), rate=0.2, adapts=is_weight), images),
    Case("fomaml-mlp-norm", lambda: fomaml(mlp((6, 5, 3), norm=True), rate=0.3, steps=2), vectors, False),
    Case("fomaml-conv", lambda: fomaml(conv(), rate=0.2, steps=2), images, False),
    Case("maml-plus-plus-mlp-norm", stepwise_mlp, vectors),
    Case("maml-plus-plus-conv", lambda: maml_plus_plus(stepwise_conv(), steps=2, adapts=is_weight), images),
    Case("meta-sgd-mlp", lambda: meta_sgd(mlp((6, 5, 3))), vectors),
    Case("meta-sgd-conv", lambda: meta_sgd(conv(), steps=2), images),
    Case("meta-sgd-layer", lambda: meta_sgd(mlp((6, 5, 3), norm=True), steps=2, rates="layer"), vectors),
    Case("meta-sgd-per-step", lambda: meta_sgd(conv(), steps=2, rates="layer", per_step=True), images),
    Case("deml-mlp-norm", lambda: deml(mlp((4, 5, 3)), mlp((6, 5, 4), norm=True), 4), vectors),
    Case("deml-conv", lambda: deml(mlp((4, 3)), conv(None), 4, steps=2), images),
    Case("meta-curvature-mlp", lambda: meta_curvature(mlp((6, 5, 3), norm=True), rate=0.3, steps=2), vectors),
    Case("meta-curvature-conv", lambda: meta_curvature(conv(), rate=0.2, steps=2, per_step=True), images),
    Case("meta-curvature-diagonal", lambda: meta_curvature(conv(), rate=0.2, steps=2, diagonal=True), images),
    Case(
        "meta-curvature-rates",
        lambda: meta_curvature(mlp((6, 5, 3)), rate=0.3, steps=2, per_step=True, learned_rates=True),
        vectors,
    ),
    Case("t-net-mlp-norm", lambda: t_net(mlp((6, 5, 3), norm=True), rate=0.3, steps=2), vectors),
    Case("t-net-conv", lambda: t_net(conv(), rate=0.2, steps=2), images),
    # A mask's derivative is not that of its values: test_masks.py has what it is.
    Case("mt-net-mlp-norm", lambda: mt_net(mlp((6, 5, 3), norm=True), rate=0.5, steps=2), vectors, False),
    Case("mt-net-conv", lambda: mt_net(conv(), rate=0.4, steps=2), images, False),
    Case("mt-net-weights", lambda: mt_net(mlp((6, 5, 3)), rate=0.5, steps=2, mask_of="weights"), vectors, False),
    Case("meta-lstm-mlp", lambda: meta_lstm(mlp((6, 5, 3)), steps=3, hidden=4), vectors, False),
    Case("meta-lstm-mlp-norm", lambda: meta_lstm(mlp((6, 5, 3), norm=True), steps=2, feedback="after"), vectors, False),
    Case("meta-lstm-conv", lambda: meta_lstm(conv(), steps=3, gradient_scale=0.5), images, False),
    Case("lstm-backprop", lstm_backprop, vectors),
    Case("adam", adam, vectors),
    Case("anil-mlp-norm", lambda: anil(mlp((6, 5, 3), norm=True), rate=0.3, steps=2), vectors),
    Case("anil-conv", lambda: anil(conv(), rate=0.2, steps=2), images),
    Case("cavia-mlp-norm", lambda: cavia(mlp((6, 5, 3), norm=True, context=4), steps=2), vectors),
    Case("cavia-regression", lambda: cavia(mlp((1, 5, 1), context=2), loss=regression()), regression_tasks),
    Case("cavia-conv", lambda: cavia(steered_conv(), steps=2), images),
    # The width of the kernel and the leader are constants: test_particles.py has what the gradient is.
    Case("bayesian-maml-mlp-norm", lambda: particle_heads(mlp((6, 4, None), norm=True)), vectors, False),
    Case(
        "bayesian-maml-regression",
        lambda: bayesian_maml(particles(), rate=0.02, steps=2, loss=regression_of_each()),
        regression_tasks,
        False,
    ),
    Case("bayesian-maml-conv", lambda: particle_heads(conv(None), leader_steps=2, halved=False), images, False),
    Case("svgd", svgd, regression_tasks),
    Case("cnp", lambda: cnp(1, 1, **PROCESS), regression_tasks),
    Case("cnp-by-class", lambda: cnp(6, 3, by_class=True, loss=classification(), **PROCESS), vectors),
    Case("cnp-conv", lambda: cnp(4, 3, loss=classification(), **PROCESS).on(conv(None)), images),
    Case("neural-process", lambda: neural_process(1, 1, latents=3, **PROCESS), regression_tasks),
    Case("neural-process-latent", lambda: neural_process(1, 1, latents=3, **PROCESS | {"width": 0}), regression_tasks),
    Case(
        "neural-process-weighted",
        lambda: neural_process(1, 1, latents=3, samples=3, weighted=True, **PROCESS | {"width": 0}),
        regression_tasks,
    ),
    Case(
        "neural-process-conv",
        lambda: neural_process(4, 3, latents=3, loss=classification(), **PROCESS).on(conv(None)),
        images,
    ),
    Case("llama-mlp-norm", lambda: llama(mlp((6, 5, 3), norm=True), rate=0.3, steps=2, weight=0.1), vectors),
    Case("llama-exact", lambda: llama(mlp((6, 3)), rate=0.3, weight=0.1, exact=True), vectors),
    Case(
        "llama-regression",
        lambda: llama(mlp((1, 6, 1)), rate=0.1, weight=0.1, damping=0.1, loss=regression()),
        regression_tasks,
    ),
    Case("llama-conv", lambda: llama(conv(), rate=0.2, weight=0.01, damping=0.1, adapts=is_weight), images),
    Case("platipus-mlp-norm", lambda: platipus(mlp((6, 5, 3), norm=True), rate=0.3, **SAMPLED), vectors),
    Case(
        "platipus-regression",
        lambda: platipus(mlp((1, 6, 1)), rate=0.1, loss=regression(), **SAMPLED),
        regression_tasks,
    ),
    Case("platipus-conv", lambda: platipus(conv(), rate=0.2, adapts=is_weight, **SAMPLED), images),
    Case("protonet-mlp-norm", lambda: protonet(mlp((6, 5, 4, None), norm=True)), vectors, equivariant=True),
    Case("protonet-conv", lambda: protonet(conv(None)), images, equivariant=True),
    Case("r2d2-mlp", lambda: r2d2(mlp((6, 5, None), norm=True), penalty=0.5, scale=3.0), vectors, equivariant=True),
    Case("r2d2-conv", lambda: r2d2(conv(None), penalty=0.5, scale=3.0), images, equivariant=True),
    Case("matching-mlp-norm", lambda: matching(mlp((6, 5, 4), norm=True), scale=2.0), vectors, equivariant=True),
    Case("matching-attention", lambda: matching(mlp((6, 4)), vote="attention", scale=3.0), vectors, equivariant=True),
    Case("matching-context", lambda: matching(mlp((6, 3)), 3, reads=2, scale=3.0), vectors, equivariant=True),
    Case(
        "matching-conv",
        lambda: matching(conv(None), 4, vote="attention", reads=2, form="input", scale=3.0),
        images,
        equivariant=True,
    ),
    Case("relation-mlp-norm", lambda: relation(mlp((6, 5, 4), norm=True), of_vectors(4, 5)), vectors, equivariant=True),
    Case("relation-conv", relation_of_maps, images, equivariant=True),
    Case(
        "tpn-mlp-norm",
        lambda: tpn(mlp((6, 5, 4), norm=True), width_of_vectors(4, 5), neighbours=5),
        vectors,
        equivariant=True,
    ),
    Case("tpn-conv", tpn_of_maps, images, equivariant=True),
    Case("snail-mlp-norm", lambda: snail(mlp((6, 5, 4), norm=True), 4, 3, most_shots=2, filters=4), vectors),
    Case("snail-conv", lambda: snail(conv(None), 4, 3, most_shots=1, filters=4, first=1), images),
    Case("csn-mlp-norm", lambda: csn(mlp((6, 5, 4, 3), norm=True), mlp((6, 4), norm=True), 3, units=4), vectors),
    Case("csn-error", lambda: csn(mlp((6, 5, 3)), mlp((6, 4)), 3, units=4, **ERROR), vectors),
    Case("csn-conv", lambda: csn(conv(), conv(None), 3, units=4, layers=1), images),
    Case("csn-conv-error", lambda: csn(conv(), conv(None), 3, units=4, **ERROR), images),
    Case("tadam-mlp-norm", lambda: jittered_tadam(mlp((6, 5, 4), norm=True)), vectors, equivariant=True),
    Case("tadam-mlp", lambda: jittered_tadam(mlp((6, 4, None)), learned=True, squared=True), vectors, equivariant=True),
    Case("tadam-conv", lambda: jittered_tadam(conv(None)), images, equivariant=True),
    Case("ppa", lambda: jittered_ppa(6), vectors, equivariant=True),
    Case("ppa-conv", lambda: jittered_ppa(4).on(conv(None)), images, equivariant=True),
    Case("dfsl", lambda: dfsl(6, 5), vectors, equivariant=True),
    Case("dfsl-known", lambda: dfsl(6, 5, others=4), lambda: known_vectors(others=4), equivariant=True),
    Case("dfsl-averaging", lambda: dfsl(6), vectors, equivariant=True),
    Case("dfsl-conv", lambda: dfsl(4, 5).on(conv(None)), images, equivariant=True),
    Case("gaussian-prior", lambda: prior(6), vectors, equivariant=True),
    Case("gaussian-prior-full", lambda: prior(6, covariance="full", ridge=0.1), vectors, equivariant=True),
    Case("gaussian-prior-conv", lambda: prior(4, learned=False).on(conv(None)), images, equivariant=True),
    Case("residual-prototypes", lambda: residual(6), vectors, equivariant=True),
    Case("residual-prototypes-codes", lambda: residual(6, classes=4), vectors, equivariant=True),
    Case("residual-prototypes-conv", lambda: residual(4).on(conv(None)), images, equivariant=True),
    Case("protomaml-mlp", lambda: protomaml(mlp((6, 5, None)), rate=0.1, steps=2), vectors, equivariant=True),
    Case("protomaml-conv", lambda: protomaml(conv(None), rate=0.1, steps=2), images, equivariant=True),
    Case("reptile-mlp", lambda: reptile(mlp((6, 5, 3)), rate=0.1, steps=4, batch=4), vectors, False),
    Case(
        "reptile-conv",
        lambda: reptile(conv(), rate=0.2, steps=3, batch=4, rule="sgd"),
        lambda: classification_tasks(1, 8, 8),
        False,
    ),
    Case("imaml-mlp", lambda: imaml(mlp((6, 5, 3)), rate=0.2, steps=6, prox=2.0), vectors, False),
    Case("imaml-conv", lambda: imaml(conv(), rate=0.2, steps=4, prox=2.0, adapts=is_weight), images, False),
    Case(
        "imaml-authors",
        lambda: imaml(mlp((6, 5, 3), norm=True), rate=0.2, steps=6, prox=2.0, variant="authors"),
        vectors,
        False,
    ),
    Case("implicit-leo", implicit_leo, vectors, False, equivariant=True),
    Case("multi-step", multi_step, images),
    # The encoder penalty stops a gradient, so finite differences apply without it; the oracles cover it.
    Case("leo", lambda: leo(6, encoder_penalty_weight=0.0, **LEO), vectors, equivariant=True),
    Case("leo-curvature", lambda: leo(6, encoder_penalty_weight=0.0, curvature=True, **LEO), vectors, equivariant=True),
    Case(
        "leo-paper", lambda: leo(6, encoder_penalty_weight=0.0, formulation="paper", **LEO), vectors, equivariant=True
    ),
    Case(
        "leo-deterministic",
        lambda: leo(6, encoder_penalty_weight=0.0, stochastic=False, **LEO),
        vectors,
        equivariant=True,
    ),
    Case("leo-random-prior", lambda: leo(6, encoded=False, **LEO), vectors, equivariant=True),
    Case("leo-encoder-penalty", lambda: leo(6, encoder_penalty_weight=0.5, **LEO), vectors, False, True),
    Case(
        "leo-embedding",
        lambda: leo(4, encoder_penalty_weight=0.0, **LEO).on(conv(None)),
        lambda: classification_tasks(1, 8, 8, queries=2),
        equivariant=True,
    ),
    Case(
        "leo-network-mlp",
        lambda: network(finetuning_steps=2, finetuning_rate=0.05, latent_rate=0.1, formulation=OFFICIAL),
        regression_tasks,
    ),
    Case("leo-network-clipped", lambda: network(clip=1.0, latent_rate=0.05, average=True), regression_tasks),
    Case(
        "leo-network-linear", lambda: network(decoder_depth=1, formulation=OFFICIAL, latent_rate=0.1), regression_tasks
    ),
    Case("leo-network-partial", lambda: network(generated=["2.weight", "2.bias"]), regression_tasks),
    Case(
        "leo-network-encoder-penalty",
        lambda: network(decoder_depth=1, formulation=OFFICIAL, latent_rate=0.1, encoder_penalty_weight=0.5),
        regression_tasks,
        False,
    ),
    Case("leo-network-conv", lambda: images_network(latents=2), images),
    Case("leo-network-mixture", lambda: network(meta_gradient=Mixture(3, noise=0.3), average=True), regression_tasks),
    Case("leo-network-conv-mixture", lambda: images_network(meta_gradient=Mixture(2, weighted=True)), images),
]
