"""A method: a learner, an estimator of its meta-gradient, and regularisers. What an algorithm's file returns."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fewstep.core.alternatives import Alternatives
from fewstep.core.auxiliary import Auxiliary
from fewstep.core.decay import Decay
from fewstep.core.executors import Executor, Loop, Vmap
from fewstep.core.learner import Learner
from fewstep.core.loss import Reduction
from fewstep.core.meta_gradient.base import MetaGradient
from fewstep.core.meta_gradient.outer_loss import with_penalties
from fewstep.core.network.foreign import require_second_derivatives
from fewstep.core.noise import Draws, Noise, copied, fill
from fewstep.core.regularisers import Regulariser
from fewstep.core.slope import transformed
from fewstep.core.types import AnyTask, Batch, Estimate, Penalties, Point, Statistics, require_statistics

Granularity: TypeAlias = Literal["task", "step"]
"""What is mapped over tasks at a time: the whole of a task, or an inner step."""


@dataclass(frozen=True)
class Method:
    """A method of meta-learning: a learner, and how the outer loop learns from its adaptations.

    Attributes:
        learner: start and stages around a network; its parameters are all the meta-parameters.
        meta_gradient: the estimator.
        regularisers: added to the objective once per meta-step.
        task_reduction: ``"mean"`` or ``"sum"`` of the tasks' objectives (the papers write sums, their codes average).
        decays: pulls on meta-parameters beside the meta-gradient; the outer loop applies them.
        alternatives: settings that validation tasks are to choose after training, one after another.
        auxiliaries: losses with data of their own; the outer loop learns from them too.

    Raises:
        ValueError: when meta-parameters would stay untrained, or the estimator cannot learn from such a learner. The
            message names them. Or when regularisers or auxiliaries share a name, or what is to
            decay is not trained, or by two decays.

    Example:
        >>> learner = Learner(mlp((1, 40, 1)), Shared(), [Descend(SGD(0.01), steps=3)], loss=regression())
        >>> method = Method(learner, Backprop())  # MAML
        >>> method.objective(sines, None).objective.backward()  # and a step of torch.optim on learner.parameters()
        >>> method.predict(method.adapt(sines.support), sines.query).shape
        torch.Size([4, 10, 1])
    """

    learner: Learner
    meta_gradient: MetaGradient
    regularisers: Sequence[Regulariser] = field(default=())
    task_reduction: Reduction = "mean"
    decays: Sequence[Decay] = field(default=())
    alternatives: Sequence[Alternatives] = field(default=())
    auxiliaries: Sequence[Auxiliary] = field(default=())

    def __post_init__(self) -> None:
        estimator = type(self.meta_gradient).__name__
        unused = unused_rules(self.learner)
        if unused:
            raise ValueError(
                f"Method: no inner step uses {_listed(unused)}, so nothing would train them: take as many steps as "
                "there are rules, or leave the stage out."
            )
        if hollow := [name for name, p in self.learner.named_parameters() if p.is_meta]:
            raise ValueError(
                f"Method: {hollow[0]} has no values, it is on the meta device; load or initialise it first."
            )
        frozen = {name for name, p in self.learner.named_parameters() if not p.requires_grad}
        untrained = self.meta_gradient.untrained(self.learner) - frozen
        logged = "loss", self.learner.loss.score_name
        names = [*logged, *(one.name for one in self.regularisers), *(one.name for one in self.auxiliaries)]
        if len(set(names)) < len(names):
            raise ValueError(f"Method: penalties and losses are told apart by name, but there are {', '.join(names)}.")
        trained = {name for name, p in self.learner.named_parameters() if p.requires_grad}
        for name, decays in Counter(name for decay in self.decays for name in decay.parameters).items():
            if name not in trained or decays > 1:
                known = f"{decays} decays draw at it" if decays > 1 else "the learner trains no parameter of that name"
                raise ValueError(f"Method: {name} is to decay, but {known}.")
        if untrained:
            raise ValueError(
                f"Method: the meta-gradient {estimator} leaves {_listed(untrained)} untrained: use a start and a rule "
                "without them, or a meta-gradient that differentiates the steps (Backprop, FirstOrder)."
            )

    def on(self, embedding: nn.Module) -> "Method":
        """The same method on what an embedding makes of the inputs, meta-learned together with it.

        ``leo(256).on(network)`` is LEO whose features are learned by LEO's own meta-gradient. All parts are shared with
        this method.

        Args:
            embedding: see :class:`Learner`. It comes before one that is there already.
        """
        own = self.learner
        whole = embedding if own.embedding is None else nn.Sequential(embedding, own.embedding)
        learner = Learner(
            own.network,
            own.start,
            own.stages,
            embedding=whole,
            loss=own.loss,
            dropout=own.dropout,
            recompute=own.recompute,
        )
        if own.embedding is None:
            return replace(self, learner=learner)
        decays = [replace(decay, parameters=[_behind(name) for name in decay.parameters]) for decay in self.decays]
        alternatives = [setting.renamed(_behind) for setting in self.alternatives]
        return replace(self, learner=learner, decays=decays, alternatives=alternatives)

    def sites(self, tasks: AnyTask) -> Any:
        """Every random draw of one task of training: the learner's, as often as the estimator adapts to a task."""
        tasks = tasks._replace(query=self.meta_gradient.asked(self.learner, tasks))
        sites, copies = self.learner.sites(tasks, self.meta_gradient.statistics), self.meta_gradient.copies
        return sites if copies is None else {"copies": copied(sites, copies)}

    def draws(self, tasks: AnyTask, source: torch.Generator, of: int | None = None) -> Draws:
        """All the randomness of a meta-step, in the dtype of the weights; :class:`Differentiate` makes noise of it.

        Args:
            tasks: whose shapes are read.
            source: the random stream.
            of: tasks of the whole batch, where ``tasks`` is a share of it.
        """
        count = len(tasks.support.weight) if of is None else of
        return Draws(self.sites(tasks), count, source, tasks.support.weight.dtype)

    def noise(self, tasks: AnyTask, source: torch.Generator) -> Noise:
        """The noise that :meth:`objective` reads: for each site a tensor with a leading task axis.

        The learner's own noise (``learner.noise``) is that of a single adaptation, as :meth:`adapt` reads it.
        """
        return fill(self.sites(tasks), self.draws(tasks, source)[:])

    def objective(
        self, tasks: AnyTask, noise: Noise, executor: Executor | None = None, granularity: Granularity | None = None
    ) -> Estimate:
        """The meta-objective of a batch of tasks: differentiate it, and step.

        Args:
            tasks: a task axis leads every tensor.
            noise: from :meth:`noise`; None to evaluate without sampling, dropout and task penalties.
            executor: how tasks are run; :class:`Vmap` when omitted.
            granularity: map whole tasks, or every inner step on its own. The numbers are the same. When omitted, whole
                tasks, unless the learner recomputes its steps: that is impossible inside of ``vmap``.

        Returns:
            The scalar objective, and metrics with a task axis (regularisers: scalars).

        Raises:
            ValueError: when it goes through a derivative that torch does not differentiate again.
        """
        estimates = self.estimate(tasks, noise, executor, granularity)
        objective = estimates.objective.mean() if self.task_reduction == "mean" else estimates.objective.sum()
        if objective.requires_grad and not (self.learner.plain or transformed() or torch.compiler.is_compiling()):
            require_second_derivatives(objective)
        return with_penalties(objective, estimates.metrics, self.penalties())

    def estimate(
        self, tasks: AnyTask, noise: Noise, executor: Executor | None = None, granularity: Granularity | None = None
    ) -> Estimate:
        """As :meth:`objective`, without the regularisers, and with a task axis on the objective too."""
        executor = executor or Vmap()
        if granularity is None:
            granularity = "step" if self.learner.recompute and not isinstance(executor, Loop) else "task"
        if granularity == "step":
            return self.meta_gradient(self.learner, tasks, noise, executor)
        estimates: Estimate = executor(partial(self.meta_gradient, self.learner))(tasks, noise)
        return estimates

    def penalties(self) -> Penalties:
        """The regularisers, once per meta-step."""
        return {regulariser.name: regulariser(self.learner) for regulariser in self.regularisers}

    def adapt(
        self, support: Batch, executor: Executor | None = None, statistics: Statistics = "query", noise: Noise = None
    ) -> Point:
        """Adapt to a batch of supports as in evaluation: means, no dropout. The result carries no graph.

        A start that generates a distribution over weights can be sampled from in evaluation too. The samples of a task
        are tasks of their own: repeat it, and pass noise for each repetition (``tests/test_network_generator.py``)::

            many = Task(*(Batch(*(t.repeat_interleave(samples, 0) for t in batch)) for batch in tasks))
            noise = method.learner.noise(many, generator(seed, 0, "sample"))
            points = method.adapt(many.support, noise=noise)
            drawn = method.predict(points, many.query).unflatten(0, (-1, samples))  # [tasks, samples, rows, outputs]

        Args:
            support: a task axis leads every tensor.
            executor: how tasks are run; :class:`Vmap` when omitted.
            noise: of the learner, one entry a task; None for means.
            statistics: of the predictions to come. ``"running"`` gives the points running batch statistics of their
                supports, see ``Learner.running``: of the weights that the inner steps began with, as they pass by in
                Meta-LSTM's meta-testing. The others are made when predicting.
        """
        require_statistics(statistics, "Method.adapt")
        self.learner.examine(support)
        # The exact slope costs nothing here: under no_grad nothing is recorded outside the inner loop's own gradient.
        # Which inference mode would take for zero, and tensors made in it cannot be differentiated.
        with torch.inference_mode(False), torch.no_grad():
            support, noise = tree_map(_differentiable, (support, noise))
            running = statistics == "running" and self.learner.batch_normalised
            point: Point = (executor or Vmap())(partial(self._adapt, running))(support, noise)
        return point

    def _adapt(self, running: bool, support: Batch, noise: Noise) -> Point:
        passed: list[Point] = []
        point, _ = self.learner.adapt(support, noise=noise, visit=passed.append if running else None)
        if not running:
            return point
        # Codes are no weights: of them there are no statistics.
        passed = [earlier for earlier in passed if earlier.value.keys() == point.value.keys()]
        statistics = self.learner.running(passed[:-1] or passed or [point], support)
        return Point(point.value, point.context | statistics)

    def predict(
        self,
        point: Point,
        query: Batch,
        support: Batch | None = None,
        executor: Executor | None = None,
        statistics: Statistics = "query",
    ) -> Float[Tensor, "tasks rows outputs"]:
        """Predictions of adapted points for a batch of queries, see ``Learner.predict`` and ``Loss.answer``."""
        with torch.no_grad():
            mapped = (executor or Vmap())(partial(self.learner.predict, statistics=statistics))
            prediction: Tensor = mapped(point, query, support)
            answer = self.learner.loss.answer
        return prediction if answer is None else answer(prediction)


def unused_rules(learner: Learner) -> set[str]:
    """Meta-parameters of rules that no inner step uses, by name: of a stage without steps, or of surplus rules."""
    used = {id(parameter) for stage in learner.stages for parameter in stage.used()}
    return {name for name, p in learner.named_parameters() if name.startswith("stages.") and id(p) not in used}


def _behind(name: str) -> str:
    """What something is called once its embedding comes behind another."""
    return name.replace("embedding.", "embedding.1.", 1) if name.startswith("embedding.") else name


def _differentiable(leaf: Any) -> Any:
    """A copy of what was made in inference mode, which cannot be differentiated."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def _listed(names: set[str], most: int = 6) -> str:
    """Some names, in order."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more
