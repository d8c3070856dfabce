"""The systems that LEO's paper is compared with: the meta-gradient of each beside a hand-written loop over tasks.

On features, on MAML's Omniglot network, and for relation networks on their own. A Gaussian prior has no meta-gradient.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import fewstep
from benchmarks import compared_loops
from benchmarks.measure import Case
from benchmarks.method_loops import MetaGradient
from benchmarks.workloads import AT_ONCE, DEVICE, SOME, Ways, beside, clusters
from fewstep.core import Batch, KnownTask, Method, Task, Vmap, generator
from fewstep.networks import Conv4
from fewstep.networks.propagating import width_of_vectors
from fewstep.networks.relating import encoder, of_maps, of_vectors

FEATURES, KNOWN, OTHERS = 640, 64, 15
FEW: Ways = AT_ONCE | {"6 at a time, compiled": (Vmap(6), True)}
LoopOf = Callable[[Method], MetaGradient]


def _case(name: str, what: str, method: Method, tasks: Task | KnownTask, loop: LoopOf, rounds: int, conv: bool) -> Case:
    method.learner.to(DEVICE)
    batches = [tasks.support.x, tasks.support.y.argmax(-1), tasks.query.x, tasks.query.y.argmax(-1)]
    if isinstance(tasks, KnownTask):
        batches.append(tasks.classes)
    order = method.learner.noise(tasks, generator(0, 0, "noise", DEVICE))["begin"]["start"].get("order")
    if order is not None:
        batches.append(order.argsort(-1))
    contenders = beside({"loop": partial(loop, method)}, method, tasks, batches, SOME if conv else FEW)
    size = f"{len(tasks.support.x)} tasks, 5-way {tasks.support.x.shape[1] // 5}-shot, 15 queries"
    # A bias before a norm has no gradient but rounding (in float64 all agree to 1e-7).
    tolerance = 5e-2 if method.learner.batch_normalised else 2e-3
    return Case(f"compared-{name}", f"{what}, {size}", contenders, tolerance=tolerance, rounds=rounds, flops="loop")


# -- on features -------------------------------------------------------------------------------------------------------


def _layer(outputs: int = FEATURES, std: float | None = None) -> nn.Module:
    torch.manual_seed(0)
    linear = nn.Linear(FEATURES, outputs)
    if std is not None:
        nn.init.normal_(linear.weight, std=std)
    return nn.Sequential(linear, nn.ReLU())


def _on_features(name: str, what: str, method: Method, loop: LoopOf, tasks: int, shots: int, rounds: int) -> Case:
    given = clusters(tasks, 5, shots, 15, FEATURES)
    return _case(name, f"{what}, {FEATURES} features", method, given, loop, rounds, conv=False)


def matching(tasks: int = 12, shots: int = 1, rounds: int = 25) -> Case:
    method = fewstep.matching(_layer(), scale=10.0)
    return _on_features("matching", "Matching networks", method, compared_loops.matching, tasks, shots, rounds)


def relation(tasks: int = 12, shots: int = 1, rounds: int = 25) -> Case:
    method = fewstep.relation(_layer(128), of_vectors(128))
    return _on_features("relation", "Relation networks", method, compared_loops.relation, tasks, shots, rounds)


def tpn(tasks: int = 12, shots: int = 1, rounds: int = 25) -> Case:
    method = fewstep.tpn(_layer(std=0.3), width_of_vectors(FEATURES, begins=0.1))
    return _on_features("tpn", "TPN", method, compared_loops.tpn, tasks, shots, rounds)


def tadam(tasks: int = 12, shots: int = 1, rounds: int = 25) -> Case:
    method = _open(fewstep.tadam(_layer(), FEATURES, l2_weight=0.0, gate_weight=0.0))
    return _on_features("tadam", "TADAM without co-training", method, compared_loops.tadam, tasks, shots, rounds)


def _open(method: Method) -> Method:
    """With gates that are not shut, so that what is behind them has a gradient."""
    with torch.no_grad():
        for name, parameter in method.learner.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.1)
    return method


def ppa(tasks: int = 12, shots: int = 1, rounds: int = 25) -> Case:
    torch.manual_seed(0)
    method = fewstep.ppa(FEATURES, scale=10.0)
    for parameter in method.learner.parameters():  # off the kink of the ReLU
        parameter.data += 0.01 * torch.randn_like(parameter)
    return _on_features("ppa", "PPA", method, compared_loops.ppa, tasks, shots, rounds)


def dfsl(tasks: int = 12, shots: int = 1, rounds: int = 25) -> Case:
    """With as many rows of known classes as its authors have."""
    torch.manual_seed(0)
    method, (support, query) = fewstep.dfsl(FEATURES, KNOWN, l2_weight=0.0), clusters(tasks, 5, shots, 15, FEATURES)
    order = torch.stack([torch.randperm(KNOWN) for _ in range(tasks)]).to(DEVICE)
    own, others = order[:, :5], order[:, 5 : 5 + OTHERS]
    x = F.normalize(torch.randn(tasks, OTHERS, FEATURES), dim=2).to(DEVICE)
    y = torch.cat([F.pad(query.y, (0, KNOWN)), F.one_hot(5 + others, 5 + KNOWN).float()], 1)
    wide = Batch(torch.cat([query.x, x], 1), y, F.pad(query.weight, (0, OTHERS), value=1.0))
    what = f"DFSL, {KNOWN} known classes, {FEATURES} features"
    return _case("dfsl", what, method, KnownTask(support, wide, own), compared_loops.dfsl, rounds, conv=False)


def snail(tasks: int = 12, shots: int = 1, rounds: int = 15) -> Case:
    """The loop has each query behind a support of its own."""
    method = fewstep.snail(_layer(128), 128, 5, most_shots=shots)
    return _on_features(f"snail-{shots}shot", "SNAIL", method, compared_loops.snail, tasks, shots, rounds)


# -- images: MAML's Omniglot network -----------------------------------------------------------------------------------


def _on_images(name: str, what: str, method: Method, loop: LoopOf, tasks: int, rounds: int) -> Case:
    given = clusters(tasks, 5, 1, 15, 1, 28, 28)
    return _case(f"omniglot-{name}", f"{what}, 28×28", method, given, loop, rounds, conv=True)


def _conv4() -> nn.Module:
    torch.manual_seed(0)
    return Conv4(None, scale=True)


def matching_omniglot(tasks: int = 8, rounds: int = 15) -> Case:
    method = fewstep.matching(_conv4(), scale=10.0)
    return _on_images("matching", "Matching networks, conv4 stride 2", method, compared_loops.matching, tasks, rounds)


def relation_omniglot(tasks: int = 4, rounds: int = 9) -> Case:
    torch.manual_seed(0)
    method = fewstep.relation(encoder(), of_maps(64, 5))
    what = "Relation networks, their own encoder"
    return _on_images("relation", what, method, compared_loops.relation, tasks, rounds)


def tpn_omniglot(tasks: int = 8, rounds: int = 15) -> Case:
    method = fewstep.tpn(_conv4(), width_of_vectors(64))
    return _on_images("tpn", "TPN, conv4 stride 2", method, compared_loops.tpn, tasks, rounds)


def tadam_omniglot(tasks: int = 8, rounds: int = 15) -> Case:
    method = _open(fewstep.tadam(_conv4(), 64, l2_weight=0.0, gate_weight=0.0))
    what = "TADAM without co-training, conv4 stride 2"
    return _on_images("tadam", what, method, compared_loops.tadam, tasks, rounds)


def snail_omniglot(tasks: int = 8, rounds: int = 15) -> Case:
    method = fewstep.snail(_conv4(), 64, 5, most_shots=1)
    return _on_images("snail", "SNAIL, conv4 stride 2", method, compared_loops.snail, tasks, rounds)
