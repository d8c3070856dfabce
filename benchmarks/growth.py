"""How SVGD grows with the particles, and K-FAC with the width of layers: ``python -m benchmarks.growth``.

Each alone, of one task and with its derivative, and as a part of the meta-gradient. Sizes double, and take turns. With
n particles of P numbers SVGD is n²P; the determinants of layers of n units are n³, and the layers themselves n² a row.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import tyro
from torch import Tensor

from benchmarks import probabilistic
from benchmarks.measure import Case, Contender, Work, take_turns
from benchmarks.workloads import DEVICE, sinusoids
from fewstep import llama
from fewstep.core import SVGD, Batch, Laplace, Point, regression
from fewstep.networks import mlp

PARTICLES, WIDTHS = (5, 10, 20, 40, 80), (40, 80, 160, 320, 640, 1280)
NUMBERS = 1763  # of a particle: the weights of the sinusoid network, and two precisions


def svgd(sizes: Sequence[int] = PARTICLES, rounds: int = 15) -> Case:
    """The rule's step of a task, and its derivative."""

    def build(count: int) -> Work:
        torch.manual_seed(0)
        rule = SVGD(1e-3, halved=True)
        particles, slopes = (torch.randn(count, NUMBERS, device=DEVICE, requires_grad=True) for _ in range(2))

        def work() -> Sequence[Tensor]:
            step, _ = rule.update({"weight": slopes}, (), {"weight": particles}, slopes.new_zeros(()))
            return torch.autograd.grad(step["weight"].sum(), [particles, slopes])

        return work

    return _case("svgd", f"SVGD's step of particles of {NUMBERS} numbers, 1 task", "particles", sizes, build, rounds)


def kfac(sizes: Sequence[int] = WIDTHS, rounds: int = 15) -> Case:
    """The log determinant on the ten query rows of a task, and its derivative."""

    def build(width: int) -> Work:
        torch.manual_seed(0)
        method = llama(mlp((1, width, width, 1)), rate=0.01, weight=0.1, damping=0.1, loss=regression())
        learner, estimator = method.learner.to(DEVICE), method.meta_gradient
        assert isinstance(estimator, Laplace)
        query = Batch(*(tensor[0] for tensor in sinusoids(1).query))
        weights = dict(learner.network.named_parameters())
        return lambda: torch.autograd.grad(
            estimator.log_det(learner, Point({**weights}, {}), query), list(weights.values()), materialize_grads=True
        )

    return _case("kfac", "K-FAC's log determinant, 1-n-n-1, 1 task, 10 rows", "units", sizes, build, rounds)


def bayesian_maml(sizes: Sequence[int] = PARTICLES, rounds: int = 7) -> Case:
    """The whole meta-gradient, with a step of the followers and one of the leaders."""
    what = "Bayesian MAML's meta-gradient, 4 tasks, vmapped, eager"
    return _case("bayesian-maml", what, "particles", sizes, lambda n: _ours(probabilistic.bayesian_maml(4, n)), rounds)


def of_llama(sizes: Sequence[int] = WIDTHS[:-1], rounds: int = 7) -> Case:
    """The whole meta-gradient, with one step."""
    what = "LLAMA's meta-gradient, 1-n-n-1, 4 tasks, vmapped, eager"
    return _case("llama", what, "units", sizes, lambda n: _ours(probabilistic.llama(4, n)), rounds)


def _ours(case: Case) -> Work:
    (contender,) = (contender for contender in case.contenders if contender.name == "fewstep, eager")
    return contender.build()


def _case(name: str, what: str, unit: str, sizes: Sequence[int], build: Callable[[int], Work], rounds: int) -> Case:
    contenders = [Contender(f"{size} {unit}", lambda size=size: build(size)) for size in sizes]  # type: ignore[misc]
    return Case(f"growth-{name}", what, contenders, rounds=rounds, memory=False, notes={"sizes": list(sizes)})


@dataclass(frozen=True)
class Options:
    """How SVGD grows with the particles, and K-FAC with the width of layers."""

    threads: int = 1
    """CPU threads."""
    quick: bool = False
    """One turn: whether it runs, not how fast."""


def main(options: Options) -> None:
    """Print the time of every size, the exponent from the one before, and that of a line through the last three."""
    torch.set_num_threads(options.threads)
    for make in (svgd, bayesian_maml, kfac, of_llama):
        case = make()
        if options.quick:
            case = replace(case, rounds=1)
        times = take_turns({contender.name: contender.build() for contender in case.contenders}, case.rounds)
        found = [statistics.median(taken) for taken in times.values()]
        print(case.what)
        sizes = case.notes["sizes"]
        for i, (name, seconds) in enumerate(zip(times, found, strict=True)):
            before = f", exponent {exponent(sizes[i - 1 : i + 1], found[i - 1 : i + 1]):.2f}" if i else ""
            print(f"  {name}: {1000 * seconds:.2f} ms{before}")
        print(f"  the last three: exponent {exponent(sizes[-3:], found[-3:]):.2f}", flush=True)


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of a line through the logarithms."""
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds]).slope


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m benchmarks.growth"))
