"""The implicit estimator: differentiate where adaptation ends, not how it got there."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vjp

from fewstep.core.executors import Executor, direct
from fewstep.core.learner import Learner
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.descent import only_descent
from fewstep.core.meta_gradient.outer_loss import query_loss, with_penalties
from fewstep.core.noise import Noise, entry
from fewstep.core.slope import exact, stopped
from fewstep.core.tree import dot, zip_map
from fewstep.core.types import AnyTask, Estimate, Params, Penalties, Point


class Implicit(MetaGradient):
    """The meta-gradient of where adaptation ends, whatever the steps to it: iMAML's.

    ``x = (I + H/λ)⁻¹ ∇L_Q(φ*)``, H the Hessian of L_S at φ* (Rajeswaran et al. 2019, Lemma 1, Algorithm 2).

    Where ``L_S(φ) + λ/2 ‖φ − θ‖²`` is smallest, ``φ* = θ − ∇L_S(φ*)/λ``. Differentiating both sides gives
    ``∂φ*/∂θ = (I + H/λ)⁻¹``, and so the objective is ``L_Q(stop(φ*)) + ⟨stop(x), θ − ∇L_S(stop(φ*))/λ⟩``. Its gradient
    is x for the start θ and, for whatever else the losses depend on (a decoder, parameters that do not adapt), all that
    reaches it through either loss. How φ* was found does not matter: memory does not grow with the number of steps, and
    rules stay untrained, so rules that learn are refused. The gradient is as exact as φ* is stationary and the linear
    system is solved.

    x comes from conjugate gradients. The system must be positive definite; where a direction of negative curvature
    turns up, the solution so far is used (∇L_Q when there is none yet), and ``negative_curvature`` logs how often.
    ``residual`` logs ‖A x − ∇L_Q‖/‖∇L_Q‖, and ``slope_left`` how far φ* is from rest: ‖∇L_S(φ*) + λ(φ* − θ)‖.

    Args:
        iterations: of conjugate gradients, at most.
        tolerance: stop at this ‖A x − ∇L_Q‖²/‖∇L_Q‖².
        damping: δ in ``A = (1 + δ) I + H/(λ + κ)``; 0 is the paper's system, the authors' code has 1.
        softening: κ; 0 is the paper's system, the authors' code has 10.

    Raises:
        ValueError: for no iterations, or a negative tolerance, damping or softening.

    Example:
        >>> descend = Descend(SGD(0.25), 1, prox=2.0)  # φ² + (φ − w)² is smallest at w/2, here after one step
        >>> learner = Learner(line, Shared(), [descend], loss=regression())
        >>> Method(learner, Implicit()).objective(parabola, None).objective.backward()
        >>> line.weight.grad  # d(w/2)²/dw at w = 1
        tensor([[0.5000]])
    """

    def __init__(
        self, iterations: int = 5, tolerance: float = 1e-10, damping: float = 0.0, softening: float = 0.0
    ) -> None:
        if iterations < 1:
            raise ValueError(f"Implicit: conjugate gradients need at least one iteration, got {iterations}.")
        if not tolerance >= 0:
            raise ValueError(f"Implicit: the tolerance is a relative squared residual ≥ 0, got {tolerance}.")
        if not (damping >= 0 and softening >= 0):
            raise ValueError(f"Implicit: damping and softening must be ≥ 0, got {damping} and {softening}.")
        self.iterations, self.tolerance, self.damping, self.softening = iterations, tolerance, damping, softening

    def untrained(self, learner: Learner) -> set[str]:
        """The parameters of rules.

        Raises:
            ValueError: when the learner has not exactly one ``Descend``, or one without a pull or with mini-batches.
        """
        stage, _, _ = only_descent(learner, "Implicit")
        if not stage.prox > 0:
            raise ValueError(
                "Implicit: the descent has no pull to its beginning, so its end says nothing of the start; "
                f"give its Descend a prox > 0 (got {stage.prox})."
            )
        if stage.batch is not None:
            raise ValueError(
                "Implicit: a descent on mini-batches ends nowhere in particular; leave out Descend's batch."
            )
        return {name for name, _ in learner.named_parameters() if name.startswith("stages.")}

    def __call__(self, learner: Learner, task: AnyTask, noise: Noise, map_tasks: Executor = direct) -> Estimate:
        """An objective with the implicit gradient; loss and score are those of φ*."""
        passed: list[Point] = []
        _, penalties = learner.adapt(task.support, stopped, noise, map_tasks, passed.append)
        estimate: Estimate = map_tasks(partial(self._estimate, learner))(
            passed[0], passed[-1].value, penalties, task, noise
        )
        return estimate

    def _estimate(
        self, learner: Learner, begun: Point, end: Params, penalties: Penalties, task: AnyTask, noise: Noise
    ) -> Estimate:
        stage, index, decoded = only_descent(learner, "Implicit")
        end = {name: tensor.detach() for name, tensor in end.items()}
        # The noise of the last step: the one at which the descent has arrived.
        last = noise["stages"][index][-1] if noise is not None and stage.steps else None
        of_support, support, context = learner.inner_loss(decoded), learner.embed(task.support), begun.context

        def support_loss(value: Params, context: Params = context) -> Tensor:
            return of_support(value, context, support, last)

        def outer_loss(value: Params) -> tuple[Tensor, dict[str, Tensor]]:
            point = Point(value, context)
            if not decoded:
                point = learner.start.decode(point, None if noise is None else noise["stages"][index + 1]["decode"])
            return query_loss(learner, point, task.query, None, entry(noise, "query"))

        with torch.no_grad():
            slope = grad(lambda value: outer_loss(value)[0])(end)
            at_rest = {name: tensor.detach() for name, tensor in context.items()}
            pulled, hessian = vjp(grad(partial(support_loss, context=at_rest)), end)[:2]
            left = zip_map(lambda g, v, a: g + stage.prox * (v - a), pulled, end, begun.value)
            scale = stage.prox + self.softening

            def system(direction: Params) -> Params:
                (curved,) = hessian(direction)
                return zip_map(lambda d, c: (1 + self.damping) * d + c / scale, direction, curved)

            solution = conjugate_gradients(system, slope, self.iterations, self.tolerance)
        loss, metrics = outer_loss(end)
        objective = loss + dot(solution.x, begun.value)
        # Nothing but φ enters L_S when φ takes the place of all parameters. That the start is made of them is not
        # enough: prototypes are made of a network whose other parts the losses see as well.
        if {name for name, _ in learner.named_parameters()} - {f"network.{name}" for name in end}:
            objective = objective - dot(solution.x, exact(support_loss, end)[0]) / stage.prox
        metrics |= {"residual": solution.residual, "negative_curvature": solution.negative_curvature}
        metrics["slope_left"] = dot(left, left).sqrt()
        return with_penalties(objective, metrics, penalties)


class Solution(NamedTuple):
    """What conjugate gradients found."""

    x: Params
    residual: Float[Tensor, ""]
    negative_curvature: Float[Tensor, ""]


def conjugate_gradients(
    system: Callable[[Params], Params], right: Params, iterations: int, tolerance: float
) -> Solution:
    """Solve ``A x = b`` for a positive definite A, from ``x = 0``.

    The number of iterations is fixed, for vectorised maps and compiled graphs; finished, x no longer moves.

    Args:
        system: ``v ↦ A v``.
        right: b.
        iterations: of the method, at most.
        tolerance: finished when ``‖b − A x‖²/‖b‖²`` is at or below this.

    Returns:
        x, ``‖b − A x‖/‖b‖``, and 1 if a direction p with ``p·A p ≤ 0`` was met (else 0): x is then what was found
        before it, or b if nothing was.
    """
    x, r, p = zip_map(torch.zeros_like, right), right, right
    size = start = dot(right, right)
    active = size > 0
    negative = torch.zeros_like(active)
    moved = torch.zeros_like(active)
    for _ in range(iterations):
        image = system(p)
        curvature = dot(p, image)
        negative = negative | (active & (curvature <= 0))
        active = active & (curvature > 0)
        moved = moved | active
        length = torch.where(active, size / torch.where(active, curvature, 1.0), 0.0)
        x = zip_map(lambda x, p, a=length: x + a * p, x, p)
        r = zip_map(lambda r, q, a=length: r - a * q, r, image)
        before, size = size, dot(r, r)
        active = active & (size > tolerance * start)
        turn = torch.where(active, size / torch.where(active, before, 1.0), 0.0)
        p = zip_map(lambda r, p, b=turn: r + b * p, r, p)
    x = zip_map(lambda x, b: torch.where(moved | ~negative, x, b), x, right)
    residual = (size / torch.where(start > 0, start, 1.0)).sqrt()
    return Solution(x, residual, negative.to(residual.dtype))
