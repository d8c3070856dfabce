"""The meta-training loop. It knows tasks, objectives and checkpoints, and never an algorithm."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from fewstep.core import L2, AnyTask, Differentiate, Draws, MetaStep, Method, generator
from fewstep.core.modes import as_usual
from fewstep.core.ranks import ALONE, RankLost, Ranks
from fewstep.data import KnownTasks, TaskSource
from fewstep.data.storage.lock import require_there
from fewstep.data.storage.log import METRICS
from fewstep.training.auxiliaries import Aside
from fewstep.training.averaging import Average
from fewstep.training.candidates import candidates, forget, keep
from fewstep.training.checkpoint import BEST, LAST, State, keep_previous, load_checkpoint, resumed, save_checkpoint
from fewstep.training.compiling import compiled, or_eager
from fewstep.training.gradients import all_finite, clip
from fewstep.training.metrics import Metrics
from fewstep.training.options import Training
from fewstep.training.stopping import Stopped, asked, patiently, poll
from fewstep.training.timing import timed
from fewstep.training.trackers import Tracker

logger = logging.getLogger("fewstep")

Progress = Callable[[State, dict[str, float]], None]

FALLBACK_DECAY = 1e-4
"""Coefficient of the L2 gradient that the LEO authors step along when a loss or gradient is not finite."""


class Trainer:
    """Meta-trains a method, and can be stopped at any moment and resumed to the same bits.

    Step s trains on ``source.batch(s)`` with the noise of (seed, s), both reachable directly, so a resumed run sees
    what it would have seen. Bits are the same for the same machine, torch build and number of threads.

    Args:
        method: what is trained, in place.
        source: of training tasks.
        options: see :class:`Training`.
        validate: scores the method as it stands, on tasks that do not change.
        higher_is_better: accuracy rather than error.
        folder: gets the checkpoints ``best`` and ``last``, and ``metrics.csv``, and is resumed from if they are
            there.
        seed: of the noise.
        trackers: told of what is logged, see :func:`~fewstep.training.trackers.tracked`.
        run: a word for what the checkpoints belong to: those of something else are refused.
        ranks: the processes that share out the tasks of every meta-step; the first one writes.

    Raises:
        ValueError: when what is in the folder cannot be gone on from; the message says why, and what to do. For a
            network made in inference mode, more processes than tasks, and tasks that depend on each other.
    """

    @as_usual
    def __init__(
        self,
        method: Method,
        source: TaskSource | KnownTasks,
        options: Training,
        validate: Callable[[Method], float],
        *,
        folder: Path,
        higher_is_better: bool = True,
        seed: int = 0,
        trackers: Sequence[Tracker] = (),
        run: str = "",
        ranks: Ranks = ALONE,
    ) -> None:
        if any(parameter.is_inference() for parameter in method.learner.parameters()):
            raise ValueError("the network was made within torch.inference_mode, which bars training: make it outside.")
        if options.keep > 1 and method.alternatives:
            raise ValueError(
                f"{method.alternatives[0].name} is chosen after training, for one set of meta-parameters: "
                "leave training.keep at 1."
            )
        if ranks.size > source.tasks:
            raise ValueError(
                f"{ranks.size} processes cannot share {source.tasks} tasks of a meta-step: give fewer "
                "(--processes), or more tasks (--training.tasks)."
            )
        self.run_mark = run
        self.ranks, self._shared = ranks, None if ranks.size == 1 else source.tasks
        self._begin = ranks.share(source.tasks).start
        buffers = method.learner.named_buffers() if ranks.size > 1 else ()
        self._unchanged = {name: buffer.clone() for name, buffer in buffers if name != "progress"}
        self.method, self.source, self.options, self.validate = method, source, options, validate
        self.sign, self.seed, self.folder = (1.0 if higher_is_better else -1.0), seed, folder
        self.parameters = method.learner.trained()
        self.named = dict(method.learner.named_parameters())
        self.optimiser = options.make_optimiser(self.parameters)
        self.decay_targets = [decay.targets(method.learner) for decay in method.decays]
        self.asides = [Aside(auxiliary, method.learner, options) for auxiliary in method.auxiliaries]
        self.average = None if options.average is None else Average(method.learner, options.average)
        executor = options.make_executor()
        self.differentiate: Callable[[AnyTask, Draws, int, int | None], MetaStep] = Differentiate(method, executor)
        if options.compiles():
            self.differentiate = or_eager(Differentiate(method, executor, compiled), self.differentiate)
        self.state = resumed(folder, options.steps, method.learner, self.optimiser, self._others(), run)
        if self.state.kept and (folder / LAST).exists():  # what is before it may name some that were forgotten since
            candidates(folder, run)
        if not self.parameters and not self.state.finished:  # nothing is meta-learned: there is but a validation
            self.state.due = True
        log, board = folder / METRICS, folder / "tensorboard" if ranks.first else None
        self.metrics = Metrics(log, self.state.step, board, trackers, self.state.log)

    @as_usual
    @timed("meta-training")
    def run(self, progress: Progress | None = None) -> State:
        """Train until the steps are done or early stopping says so; afterwards the best meta-parameters are in place.

        Raises:
            FloatingPointError: on a non-finite step, with ``nonfinite="stop"``.
            Stopped: after a checkpoint, when a signal asked for it inside :func:`~fewstep.training.stoppable`.
        """
        state = self.state
        if state.nonfinite:
            logger.warning("%d non-finite meta-steps so far", state.nonfinite)
        try:
            with patiently():
                metrics: dict[str, float] = {}
                while not state.finished:
                    if state.due:
                        self._conclude()
                    else:
                        metrics = self.advance()
                    if progress is not None:
                        progress(state, metrics)
                    if number := self.ranks.most(asked()):  # all stop after the same meta-step
                        raise Stopped(number)
        except (Stopped, RankLost):
            self._save()
            poll()
            raise
        if self.ranks.first:
            forget(self.folder, state)  # it may have been killed before it did
        self.ranks.wait()  # for the first to have written it
        load_checkpoint(self.folder / BEST, self.method.learner, run=self.run_mark)
        return state

    def advance(self) -> dict[str, float]:
        """One iteration: a meta-step, and the logging, validation and checkpoint that are due after it."""
        state, options = self.state, self.options
        began = time.perf_counter()
        metrics = self.step(*self.inputs(state.step))
        state.step += 1
        for name, value in metrics.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        state.summed += 1
        for aside in self.asides:
            if (name := aside.auxiliary.name) not in metrics:
                state.missed[name] = state.missed.get(name, 0) + 1
        ended = state.step >= options.steps
        state.due = state.step % options.validate_every == 0 or ended
        if state.step % options.log_every == 0 or ended:
            means = {n: total / (state.summed - state.missed.get(n, 0)) for n, total in state.sums.items()}
            self.metrics.add(state.step, "train", means)
            state.sums, state.summed, state.missed = {}, 0, {}
        state.seconds += time.perf_counter() - began
        if state.due:
            self._conclude()
        elif state.step % options.checkpoint_every == 0:
            self._save()
        return metrics

    def _conclude(self) -> None:
        """The validation that is due, whether training ends after it, and a checkpoint."""
        state, options, began = self.state, self.options, time.perf_counter()
        self._validate()
        ended = state.step >= options.steps or not self.parameters
        state.finished = ended or 0 < options.patience <= state.stale
        state.seconds += time.perf_counter() - began
        self._save()

    def _save(self) -> None:
        """Write the log, and all that the next meta-step depends on; what was written before is kept beside it."""
        if not self.ranks.first:
            return
        require_there(self.folder)
        self.metrics.save()
        self.state.log = self.metrics.digest()
        keep_previous(self.folder)
        learner, run = self.method.learner, self.run_mark
        save_checkpoint(self.folder / LAST, learner, self.state, self.optimiser, self._others(), run)
        forget(self.folder, self.state)

    def inputs(self, step: int) -> tuple[AnyTask, Draws]:
        """The tasks of a meta-step, and the randomness of adapting to them."""
        tasks = self.source.batch(step, None if self._shared is None else self.ranks.share(self._shared))
        noise = generator(self.seed, step, "noise", tasks.support.x.device)
        return tasks, self.method.draws(tasks, noise, self._shared)

    def step(self, tasks: AnyTask, draws: Draws) -> dict[str, float]:
        """One meta-step: differentiate the objective, clip, and let the optimiser step; auxiliary losses before it."""
        self.method.learner.progress.fill_(self.state.step / self.options.steps)
        rate, logged = self.options.rate_at(self.state.step), self._auxiliary_steps()
        found = self.differentiate(tasks, draws, self._begin, self._shared)
        self._require_independent()
        terms, (objective, gradients, metrics) = self._with_auxiliaries(self._summed(found))
        if not all_finite(objective, gradients):
            gradients, terms = self._fallback(objective.item()), []
        if gradients:
            self._clip(gradients)
            count = len(self.parameters)
            for parameter, gradient in zip(self.parameters, gradients[:count], strict=True):
                # Fused optimisers take numbers as they lie in memory; compiled convolutions lay them otherwise.
                same = gradient.stride() == parameter.stride()
                parameter.grad = gradient if same else torch.empty_like(parameter).copy_(gradient)
            for decay, targets in zip(self.method.decays, self.decay_targets, strict=True):
                decay.pull(self.named, targets, rate)
            self.optimiser.param_groups[0]["lr"] = rate
            self.optimiser.step()
            for aside in terms:
                own, count = slice(count, count + len(aside.own)), count + len(aside.own)
                aside.step(gradients[own], rate)
            if self.average is not None:
                self.average.update(self.state.step)
        metrics = metrics | logged
        values = torch.stack(list(metrics.values())).tolist()
        return {name: value for name, value in zip(metrics, values, strict=True) if math.isfinite(value)}

    def _clip(self, gradients: list[torch.Tensor]) -> None:
        clip(gradients, self.options.clip_value, self.options.clip_norm, self.options.clip_scope)

    def _auxiliary_steps(self) -> dict[str, torch.Tensor]:
        """Steps that auxiliary losses take for themselves; what is logged of them."""
        logged = {}
        for aside in self.asides:
            if aside.auxiliary.weight is None and (found := aside.at(self.state.step, self.seed, self.ranks)):
                gradients = found.gradients
                if all_finite(found.loss, gradients):
                    self._clip(gradients)
                    aside.step(gradients, self.options.rate_at(self.state.step))
                else:
                    self._count_nonfinite(f"{aside.auxiliary.name} ({found.loss.item():g})", "no step")
                logged[aside.auxiliary.name] = found.loss
        return logged

    def _with_auxiliaries(self, found: MetaStep) -> tuple[list[Aside], MetaStep]:
        """The meta-step with the auxiliary losses that are added to it, and gradients of what these have of their own.

        Returns:
            Which take part, and the sum.
        """
        (objective, gradients, metrics), terms = found, []
        for aside in self.asides:
            weight, count = aside.auxiliary.weight, len(self.parameters)
            if weight is not None and (one := aside.at(self.state.step, self.seed, self.ranks)):
                weighted = torch._foreach_mul(one.gradients, weight)
                summed = torch._foreach_add(gradients[:count], weighted[:count])
                objective, gradients = objective + weight * one.loss, [*summed, *gradients[count:], *weighted[count:]]
                metrics = metrics | {aside.auxiliary.name: one.loss}
                terms.append(aside)
        return terms, MetaStep(objective, gradients, metrics)

    def _require_independent(self) -> None:
        """Refuse to share out tasks of which one begins with what another has left: seen at the first meta-step."""
        if not self._unchanged:
            return
        now = dict(self.method.learner.named_buffers())
        if changed := [name for name, before in self._unchanged.items() if not torch.equal(before, now[name])]:
            raise ValueError(
                f"tasks cannot be shared out among processes, as each goes on from what the one before it has left in "
                f"{changed[0]}: give --processes 1 (Reptile: or --method.no-carried)."
            )
        self._unchanged = {}

    def _summed(self, found: MetaStep) -> MetaStep:
        """The meta-step of all shares."""
        objective, *sums = self.ranks.sum([found.objective, *found.metrics.values(), *found.gradients])
        means = dict(zip(found.metrics, sums, strict=False))
        return MetaStep(objective, sums[len(means) :], means)

    def _fallback(self, objective: float) -> list[torch.Tensor]:
        """Count the event; the gradients to use instead, none for no step."""
        instead = "no step" if self.options.nonfinite == "skip" else "the L2 step alone"
        self._count_nonfinite(f"the objective ({objective:g})", instead)
        penalised = {n for r in self.method.regularisers if isinstance(r, L2) for n in r.parameters}
        if self.options.nonfinite == "skip" or not penalised:
            return []
        return [
            FALLBACK_DECAY * p.detach() if name in penalised else torch.zeros_like(p)
            for name, p in self.method.learner.named_parameters()
            if p.requires_grad
        ]

    def _count_nonfinite(self, what: str, instead: str) -> None:
        self.state.nonfinite += 1
        told = f"meta-step {self.state.step}: {what} or its gradient is not finite"
        if self.options.nonfinite == "stop":
            raise FloatingPointError(f"{told}. The last checkpoint is intact; lower training.rate or the inner rates.")
        count = self.state.nonfinite
        if count <= 3 or math.log10(count).is_integer():  # thousands of the same line help nobody
            logger.warning("%s; taking %s (%d such so far)", told, instead, count)

    def _others(self) -> dict[str, torch.Tensor]:
        """What the next meta-step depends on beside meta-parameters, moments and counters."""
        decays = zip(self.method.decays, self.decay_targets, strict=True)
        initial = [targets for decay, targets in decays if decay.towards == "initial"]
        anchors = {f"decay/{name}": target for targets in initial for name, target in targets.items()}
        averages = {} if self.average is None else self.average.means
        asides = {name: tensor for aside in self.asides for name, tensor in aside.tensors().items()}
        return anchors | {f"average/{name}": mean for name, mean in averages.items()} | asides

    @timed("validation")
    def _validate(self) -> None:
        with nullcontext() if self.average is None else self.average.in_place():
            self._validate_as_is()

    def _validate_as_is(self) -> None:
        state, score = self.state, self.validate(self.method)  # which a signal may stop: nothing has changed by then
        state.due = False
        self.metrics.add(state.step, "validation", {self.method.learner.loss.score_name: score})
        if self.options.keep > 1 and self.ranks.first:
            keep(self.folder, self.method.learner, state, score, self.options.keep, self.sign, self.run_mark)
        # A score that is not a number is never the best one, except that something must be kept.
        if state.best is None or math.isnan(state.best) or self.sign * (score - state.best) > 0:
            state.best, state.best_step, state.stale = score, state.step, 0
            if self.ranks.first:
                save_checkpoint(self.folder / BEST, self.method.learner, state, run=self.run_mark)
        else:
            state.stale += 1
