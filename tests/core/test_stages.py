"""A stage of one's own: everything that runs, checks, trains or changes a learner takes it for one of its stages."""

import pytest
import torch
from cases import vectors
from torch import Tensor, nn

from fewstep.core import (
    SGD,
    Backprop,
    Descend,
    Differentiate,
    Executor,
    Implicit,
    Learner,
    Loop,
    MetaGradient,
    Method,
    MultiStep,
    Point,
    Shared,
    Stage,
    Vmap,
    generator,
)
from fewstep.core.noise import Normal, Sites
from fewstep.core.stages import Given
from fewstep.evaluation import with_inner_loop
from fewstep.networks import mlp


class Jump(Stage):
    """Multiplies every weight by a meta-learned number, and in meta-training by a random one."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.9, dtype=torch.float64))

    def sites(self, decode: Sites, loss: object) -> Sites:
        return {"normal": Normal(())}

    def forward(self, point: Point, given: Given) -> Point:
        def jump(point: Point, noise: dict[str, Tensor] | None) -> Point:
            factor = self.factor if noise is None else self.factor + 0.1 * noise["normal"]
            return Point({name: factor * tensor for name, tensor in point.value.items()}, point.context)

        jumped: Point = given.map_tasks(jump)(point, given.noise)
        return jumped


def method(meta_gradient: MetaGradient | None = None, **options: bool) -> Method:
    torch.manual_seed(0)
    stages = [Jump(), Descend(SGD(0.3), 2, prox=1.0)]
    learner = Learner(mlp((6, 5, 3)).double(), Shared(), stages, **options)
    return Method(learner, meta_gradient or Backprop())


def meta_step(of: Method, executor: Executor | None = None) -> list[Tensor]:
    tasks = vectors()
    step = Differentiate(of, executor)(tasks, of.draws(tasks, generator(0, 0, "noise")))
    return [step.objective, *step.gradients]


@pytest.mark.parametrize(("executor", "recompute"), [(Loop(), False), (Vmap(2), False), (None, True), (Loop(), True)])
def test_every_way_to_run_it_gives_the_same_numbers(executor: Executor | None, recompute: bool) -> None:
    torch.testing.assert_close(meta_step(method(recompute=recompute), executor), meta_step(method()))


def test_its_meta_parameters_are_learned() -> None:
    of, tasks, h = method(), vectors(), 1e-6
    factor = of.learner.get_parameter("stages.0.factor")
    (gradient,) = torch.autograd.grad(of.objective(tasks, None).objective, factor)
    ends = []
    for step in (h, -h):
        with torch.no_grad():
            factor += step
            ends.append(of.objective(tasks, None).objective)
            factor -= step
    assert gradient.item() == pytest.approx(((ends[0] - ends[1]) / (2 * h)).item(), rel=1e-6)
    assert gradient.abs() > 1e-3


def test_it_stays_when_an_embedding_comes_before_it() -> None:
    of = method()
    assert [type(stage) for stage in of.on(nn.Identity()).learner.stages] == [type(s) for s in of.learner.stages]
    torch.testing.assert_close(meta_step(of.on(nn.Identity())), meta_step(of))


def test_other_inner_steps_leave_it_alone() -> None:
    of, tasks = method(), vectors()
    with with_inner_loop(of.learner, steps=0):
        point = of.adapt(tasks.support)
    for name, tensor in of.learner.network.named_parameters():
        torch.testing.assert_close(point.value[name], (0.9 * tensor).expand_as(point.value[name]))


@pytest.mark.parametrize("meta_gradient", [Implicit(), MultiStep([0.5, 0.5])])
def test_an_estimator_of_a_single_descent_refuses_it(meta_gradient: MetaGradient) -> None:
    with pytest.raises(ValueError, match="learns from one descent, but the learner has 1 Descend stages and a Jump"):
        method(meta_gradient)


def test_a_start_is_checked_by_it() -> None:
    class Wants(Jump):
        def check(self, names: object, value: object) -> None:
            raise ValueError(f"moves {sorted(names or ())}")  # type: ignore[call-overload]

    with pytest.raises(ValueError, match=r"moves \['0.bias'"):
        Learner(mlp((6, 5, 3)), Shared(), [Wants()])
