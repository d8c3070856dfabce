"""Peak memory and time against the number of inner steps, with and without recomputation."""

import torch
from torch import Tensor

from benchmarks.measure import Case, Contender, Work
from benchmarks.workloads import DEVICE, clusters, gradients
from fewstep import leo, maml
from fewstep.core import Differentiate, Executor, Loop, Method, Vmap, generator
from fewstep.networks import Conv4

EXECUTORS: dict[str, Executor] = {"loop": Loop(), "vmap": Vmap()}


def conv4(executor: str, steps: tuple[int, ...], tasks: int = 4, rounds: int = 3) -> Case:
    """Second-order MAML on the Omniglot network."""

    def build(count: int, recompute: bool) -> Work:
        torch.manual_seed(0)
        method = maml(Conv4(5), rate=RATE, steps=count)
        method.learner.to(DEVICE).recompute = recompute
        return gradients(method, clusters(tasks, 5, 1, 15, 1, 28, 28), EXECUTORS[executor])

    return _case(f"memory-conv4-{executor}", f"MAML, conv4, {tasks} tasks, {executor}", steps, build, rounds)


def of_leo(executor: str, shots: int, steps: tuple[int, ...], tasks: int = 12, rounds: int = 3) -> Case:
    """LEO with as many latent as fine-tuning steps, its draws included: their number grows with the steps."""

    def build(count: int, recompute: bool) -> Work:
        torch.manual_seed(0)
        method: Method = leo(
            640, normalise=False, latent_clip=None, latent_rate=RATE, latent_steps=count, finetuning_steps=count
        )
        method.learner.to(DEVICE).recompute = recompute
        batch, differentiate = clusters(tasks, 5, shots, 15, 640), Differentiate(method, EXECUTORS[executor])

        def work() -> list[Tensor]:
            draws = method.learner.draws(batch, generator(0, 0, "noise", DEVICE))
            return differentiate(batch, draws).gradients

        return work

    what = f"LEO, 5-way {shots}-shot, {tasks} tasks, {executor}, as many latent as fine-tuning steps"
    return _case(f"memory-leo-{shots}shot-{executor}", what, steps, build, rounds)


RATE = 0.01


def _case(name: str, what: str, steps: tuple[int, ...], build: object, rounds: int) -> Case:
    contenders = [
        Contender(f"{count} steps, {'recomputed' if recompute else 'stored'}", lambda c=count, r=recompute: build(c, r))  # type: ignore
        for count in steps
        for recompute in (False, True)
    ]
    return Case(name, what, contenders, rounds=rounds)
