"""LEO: the meta-step, the training iteration, evaluation."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import register_flop_formula

from benchmarks import loops
from benchmarks.measure import Case, Contender, Work
from benchmarks.workloads import DEVICE, Outer, clusters
from fewstep import leo
from fewstep.core import Differentiate, Method, Vmap, generator
from fewstep.core.noise import fill
from fewstep.data import Dataset, EpisodeSampler
from fewstep.evaluation import all_baselines, evaluate
from fewstep.evaluation.baselines import Baseline
from fewstep.training import Trainer, Training
from fewstep.training.compiling import compiled

FEATURES = 640


@register_flop_formula([torch.ops.fewstep.mean_over_pairs, torch.ops.fewstep.mean_over_pairs_backward])
def _of_pairs(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
    """The product in the middle of LEO's relation network, and its two derivatives."""
    (tasks, rows, hidden), (outputs, _hidden), _share = shapes[-4], shapes[-2], shapes[-1]
    return (len(shapes) - 3) * 2 * tasks * rows**2 * hidden * outputs


def method() -> Method:
    """The official formulation at its published sizes; an inner rate at which random features do not diverge."""
    torch.manual_seed(0)
    made = leo(FEATURES, latent_rate=0.1, normalise=False, latent_clip=None)
    made.learner.to(DEVICE)
    return made


def step(tasks: int, ways: int, shots: int, rounds: int = 15, loop: bool = True) -> Case:
    """A whole meta-step, the drawing of its noise included."""

    def ours(compile: bool) -> Work:
        of, batch = method(), clusters(tasks, ways, shots, 15, FEATURES)
        differentiate, outer = Differentiate(of, Vmap(), compiled if compile else None), Outer(of)

        def work() -> list[Tensor]:
            found = differentiate(batch, of.learner.draws(batch, generator(0, 0, "noise", DEVICE)))
            return list(outer(found.objective, found.gradients))

        return work

    def straightforward() -> Work:
        of, batch = method(), clusters(tasks, ways, shots, 15, FEATURES)
        outer, meta_gradient, sites = Outer(of), loops.leo(of), of.learner.sites(batch)

        def work() -> list[Tensor]:
            noise = fill(sites, of.learner.draws(batch, generator(0, 0, "noise", DEVICE))[:])
            found = meta_gradient(batch, noise)
            return list(outer(found[0].sum(), found))

        return work

    contenders = [Contender("fewstep, compiled", lambda: ours(True)), Contender("fewstep, eager", lambda: ours(False))]
    if loop:
        contenders.insert(0, Contender("loop", straightforward))
    return Case(
        f"leo-step-{ways}way-{shots}shot-{tasks}tasks",
        f"LEO meta-step, {ways}-way {shots}-shot, 15 queries, {tasks} tasks, 640-d, 64 latents, 5 + 5 steps",
        contenders,
        # The authors' σ = eᵘ − 1 makes ∂KL/∂u about −1/u where u is near 0: float32 loses these digits, loops too.
        tolerance=0.1,
        rounds=rounds,
        flops="fewstep, eager",
    )


def dataset(classes: int = 20, rows: int = 600) -> Dataset:
    """Features of Gaussian classes."""
    source = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 1, FEATURES, generator=source)
    x = F.normalize((centres + torch.randn(classes, rows, FEATURES, generator=source)).flatten(0, 1), dim=-1)
    return Dataset.from_labels(x, np.repeat(np.arange(classes), rows))


def iteration(shots: int) -> Case:
    """A meta-step beside a whole training iteration: sampling, metrics and the trainer's own work included."""

    def trainer() -> Trainer:
        source = EpisodeSampler(dataset(), ways=5, shots=shots, queries=15, tasks=12, seed=0, device=DEVICE)
        options = Training(
            steps=10**6,
            clip_value=0.1,
            clip_norm=0.1,
            rate=1e-9,
            compile="on",
            validate_every=10**6,
            checkpoint_every=10**6,
        )
        return Trainer(method(), source, options, lambda _: 0.0, folder=Path(tempfile.mkdtemp()))

    def only_step() -> Work:
        of = trainer()
        made = of.source.batch(0)

        def work() -> None:
            of.step(made, of.method.learner.draws(made, generator(0, 0, "noise", DEVICE)))

        return work

    def whole() -> Work:
        running = trainer()

        def work() -> None:
            running.advance()

        return work

    def sampling() -> Work:
        of, steps = trainer(), iter(range(10**6))

        def work() -> None:
            of.source.batch(next(steps))

        return work

    return Case(
        f"leo-iteration-{shots}shot",
        f"LEO training iteration against its meta-step, compiled, 5-way {shots}-shot, 12 tasks",
        [
            Contender("meta-step with its draws", only_step),
            Contender("whole iteration", whole),
            Contender("sampling alone", sampling),
        ],
        rounds=60,
        memory=False,
    )


def baselines(shots: int, tasks: int) -> Case:
    """``evaluate`` with all remaining queries: LEO's own score alone, and with all baselines beside it."""

    def work(known: bool | dict[str, Baseline]) -> Work:
        source = EpisodeSampler(dataset(), ways=5, shots=shots, queries=None, tasks=100, seed=0, device=DEVICE)
        of = method()

        def scored() -> list[Tensor]:
            found = evaluate(of, source, tasks, unadapted=False, baselines=known)
            return [torch.from_numpy(found.scores["adapted"])]

        return scored

    centre = torch.full((FEATURES,), 1e-2, device=DEVICE)
    return Case(
        f"leo-baselines-{shots}shot",
        f"LEO evaluation of {tasks} tasks, 5-way {shots}-shot, {600 - shots} queries a class, and four baselines",
        [Contender("LEO alone", lambda: work(False)), Contender("all", lambda: work(all_baselines(centre)))],
        rounds=3,
        notes={"tasks": tasks},
    )


def evaluation(shots: int, tasks: int) -> Case:
    """``evaluate`` with all remaining queries, beside adapting and predicting task by task."""

    def sampler() -> EpisodeSampler:
        return EpisodeSampler(dataset(), ways=5, shots=shots, queries=None, tasks=100, seed=0, device=DEVICE)

    def ours() -> Work:
        of, source = method(), sampler()

        def work() -> list[Tensor]:
            return [torch.from_numpy(evaluate(of, source, tasks, baselines=False).scores["adapted"])]

        return work

    def one_by_one() -> Work:
        of, source = method(), sampler()
        start, stages = of.learner.start, of.learner.stages

        def work() -> list[Tensor]:
            scores = []
            for i in range(tasks):
                if i % 100 == 0:
                    indices = source.indices(i // 100)
                task = tree_map(lambda tensor: tensor[0], source.assemble(indices.part(slice(i % 100, i % 100 + 1))))
                with torch.no_grad():
                    point = start.begin(of.learner.network, task.support, None)[0]
                code, mix = point.value["code"], point.context.get("mix")
                class_mean = torch.eye(5) if mix is None else mix
                labels = task.support.y.argmax(1)
                to_mean = start.decoder.weight[:FEATURES].detach()
                for _ in range(stages[0].steps):
                    code = code.detach().requires_grad_()
                    loss = F.cross_entropy(task.support.x @ (class_mean @ code @ to_mean.T).T, labels, reduction="sum")
                    code = code - stages[0].rule["code"].detach() * torch.autograd.grad(loss, code)[0]
                weight = code @ to_mean.T
                for _ in range(stages[2].steps):
                    weight = weight.detach().requires_grad_()
                    loss = F.cross_entropy(task.support.x @ (class_mean @ weight).T, labels, reduction="sum")
                    weight = weight - stages[2].rule["weight"].detach() * torch.autograd.grad(loss, weight)[0]
                answers = (task.query.x @ (class_mean @ weight).T).argmax(1)
                scores.append((answers == task.query.y.argmax(1)).double().mean())
            return [torch.stack(scores).detach()]

        return work

    return Case(
        f"leo-evaluation-{shots}shot",
        f"LEO evaluation of {tasks} tasks, 5-way {shots}-shot, {600 - shots} queries a class, sampling included",
        [Contender("one by one", one_by_one), Contender("fewstep", ours)],
        tolerance=1e-3,
        rounds=3,
        notes={"tasks": tasks},
    )
