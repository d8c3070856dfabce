"""Stage 1: a convolutional network learns to name the base classes."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.core import generator
from fewstep.core.modes import as_usual
from fewstep.core.ranks import ALONE, RankLost, Ranks
from fewstep.data import Dataset
from fewstep.data.storage.lock import require_there
from fewstep.data.storage.log import METRICS
from fewstep.training.checkpoint import (
    BEST,
    LAST,
    State,
    keep_previous,
    load_checkpoint,
    newest,
    resumed,
    save_checkpoint,
)
from fewstep.training.metrics import Metrics
from fewstep.training.pretraining.batches import Batches
from fewstep.training.pretraining.options import Pretraining
from fewstep.training.pretraining.shared_norms import share_statistics
from fewstep.training.pretraining.standardised import Standardised
from fewstep.training.stopping import Stopped, asked, patiently, poll
from fewstep.training.timing import timed

Progress = Callable[[State, dict[str, float]], None]
Validate = Callable[[Standardised], dict[str, float]]
"""Scores of the network as it stands, by name; the first decides which network is the best."""

LOG_EVERY = 10
"""Steps between two looks at the loss: each look waits for the device."""


def pretrain(
    dataset: Dataset,
    options: Pretraining,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Standardised:
    """Train a network to classify the images of a dataset, without keeping a folder.

    The result is a function of data, options, seed, device and number of threads: the same bits every time.

    Args:
        dataset: images ``[n, channels, height, width]``; every class is an output of the network.
        options: settings.
        seed: of the first weights, the order of images and their augmentation.
        device: where to compute.
        progress: see :meth:`Pretrainer.run`.

    Returns:
        The network, in evaluation mode.

    Raises:
        ValueError: as :class:`Pretrainer` says.
        FloatingPointError: if the loss is no longer finite.
    """
    return Pretrainer(dataset, options, seed=seed, device=device).run(progress)


class Pretrainer:
    """Minimises the softmax cross-entropy over the classes of a dataset; can be stopped and resumed to the same bits.

    The order of images is a function of (seed, epoch) and their augmentation of (seed, step), so a checkpoint needs the
    weights, the optimiser's moments and counters only. Batches are made ahead of the network by another thread.

    A folder belongs to one dataset and one set of options: that they are still the same is not checked here. After an
    interrupt, make another trainer on the folder: in the middle of a step, weights and counters may be apart.

    Args:
        dataset: images ``[n, channels, height, width]``.
        options: settings.
        seed: of the first weights, the order of images and their augmentation.
        device: where to compute.
        folder: gets the checkpoints ``best``, ``last`` and ``previous``, and ``metrics.csv``, and is resumed from if
            they are there. None: nothing is written.
        validate: called after every epoch; without it, the last network is the best one.
        patience: end after so many epochs without a new best; 0 for never.
        checkpoint_seconds: time between two checkpoints, besides one after every epoch.
        run: a word for what the checkpoints belong to: those of something else are refused.
        ranks: the processes that share out every batch; the first one writes. Batches are normalised by all of their
            rows. Dropout alone is drawn otherwise than in one process.

    Attributes:
        waited: seconds that the network waited for batches in this process.

    Raises:
        ValueError: for fewer than two classes, or rows that are not images or are too small for the network; or when
            what is in the folder cannot be gone on from.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: Pretraining,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
        validate: Validate | None = None,
        patience: int = 0,
        checkpoint_seconds: float = 60.0,
        run: str = "",
        ranks: Ranks = ALONE,
    ) -> None:
        self.run_mark, self.ranks = run, ranks
        self.device, self.options, self.seed = torch.device(device), options.resolved(device), seed
        self.dataset, self.folder, self.validate = dataset, folder, validate
        self.patience, self.checkpoint_seconds = patience, checkpoint_seconds
        self.network = _initial(dataset, self.options, seed).to(self.device)
        self.drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.network.modules())
        self.batches = Batches(dataset, self.options.batch, self.options.augmentation, seed, self.device, ranks)
        if ranks.size > self.batches.batch:
            raise ValueError(f"{ranks.size} processes cannot share batches of {self.batches.batch} images: give fewer.")
        if ranks.size > 1:
            share_statistics(self.network, ranks, self.batches.batch)
        self.total = self.options.epochs * len(self.batches)
        self.parameters = list(self.network.parameters())
        self.optimiser = self.options.make_optimiser(self.parameters)
        self.state, self.waited = State(), 0.0
        self._best: dict[str, Tensor] | None = None  # where there is no folder to keep it
        if folder is not None and newest(folder) is not None:
            self.state = resumed(folder, self.total, self.network, self.optimiser, run=run)
            _restore_format(self.optimiser)
        else:
            self.network.measure(dataset)
        self.metrics: Metrics | None = None
        if folder is not None:
            board = folder / "tensorboard" if ranks.first else None
            self.metrics = Metrics(folder / METRICS, self.state.step, board, digest=self.state.log)

    @as_usual
    @timed("pre-training")
    def run(self, progress: Progress | None = None) -> Standardised:
        """Train to the end; afterwards the best network is in place, in evaluation mode.

        Args:
            progress: called every few steps with the counters and the mean ``loss`` and ``accuracy`` of those steps.

        Raises:
            FloatingPointError: if the loss is no longer finite.
            Stopped: after a checkpoint, when a signal asked for it inside :func:`~fewstep.training.stoppable`.
        """
        try:
            with patiently():
                self._run(progress)
        except (Stopped, RankLost):
            self._save()
            poll()
            raise
        self.ranks.wait()  # for the first to have written it
        if self.folder is not None:
            load_checkpoint(self.folder / BEST, self.network, run=self.run_mark)
        elif self._best is not None:
            self.network.load_state_dict(self._best)
        return self.network.eval()

    def _run(self, progress: Progress | None) -> None:
        state, saved = self.state, time.perf_counter()
        self.network.train()
        if state.due:
            self._epoch_ended()
            self._save()
        with self.batches.ahead(state.step, self.total) as fetch:
            while not state.finished:
                began, seen = time.perf_counter(), list[Tensor]()
                until = min(state.step + LOG_EVERY, (state.step // len(self.batches) + 1) * len(self.batches))
                while state.step < until and not (seen and self.ranks.most(asked())):
                    wanted = time.perf_counter()
                    x, y = fetch()
                    self.waited += time.perf_counter() - wanted
                    seen.append(self.advance(x, y))
                    state.step += 1
                values = self._record(torch.stack(seen))
                state.seconds += time.perf_counter() - began
                state.due = state.step % len(self.batches) == 0
                if epoch_ended := state.due:
                    self._epoch_ended()
                if epoch_ended or time.perf_counter() - saved > self.checkpoint_seconds:
                    self._save()
                    saved = time.perf_counter()
                if progress is not None:
                    progress(state, values)
                if number := self.ranks.most(asked()):  # all stop after the same step
                    raise Stopped(number)

    def advance(self, x: Tensor, y: Tensor) -> Float[Tensor, "2"]:
        """Take one step on a batch of images, and return its loss and its accuracy."""
        self.optimiser.param_groups[0]["lr"] = self.options.rate_at(self.state.step, self.total)
        with (
            self._dropout(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"),
        ):
            logits = self.network(x)
        logits = logits.float()
        loss = functional.cross_entropy(logits, y, label_smoothing=self.options.label_smoothing)
        if self.ranks.size > 1:
            loss = loss * (len(y) / self.batches.batch)
        self.optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            accuracy = (logits.argmax(1) == y).float().mean() * (len(y) / self.batches.batch)
            return self._stepped(torch.stack([loss.detach(), accuracy]))

    def _stepped(self, seen: Float[Tensor, "2"]) -> Float[Tensor, "2"]:
        """Step along the gradient of all shares; the sum over them of what each has seen."""
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        seen, *gradients = self.ranks.sum([seen, *(p.grad for p in moved if p.grad is not None)])
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        return seen

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """torch's dropout draws from a global generator: for one step its state is a function of (seed, step)."""
        if not self.drops:
            yield
            return
        stream = f"pretraining dropout{'' if self.ranks.first else f' {self.ranks.rank}'}"
        seed = generator(self.seed, self.state.step, stream).initial_seed()
        # torch.manual_seed seeds every GPU, so that all of their states are put back.
        on_gpu = self.device.type == "cuda"
        with torch.random.fork_rng(range(torch.cuda.device_count()) if on_gpu else []):
            (torch.manual_seed if on_gpu else torch.default_generator.manual_seed)(seed)
            yield

    def _record(self, seen: Float[Tensor, "steps 2"]) -> dict[str, float]:
        state = self.state
        for loss, accuracy in seen.tolist():
            state.sums["loss"] = state.sums.get("loss", 0.0) + loss
            state.sums["accuracy"] = state.sums.get("accuracy", 0.0) + accuracy
            state.summed += 1
        loss, accuracy = seen.mean(0).tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"pretraining: the loss became {loss} before step {state.step} of {self.total}; lower the rate (now "
                f"{self.options.rate})."
            )
        return {"loss": loss, "accuracy": accuracy}

    def _epoch_ended(self) -> None:
        state = self.state
        means = {name: state.sums[name] / state.summed for name in ("loss", "accuracy")}
        rate = {"rate": self.options.rate_at(state.step - 1, self.total)}
        scores = dict[str, float]()
        if self.validate is not None:
            self.network.eval()
            with torch.no_grad():
                scores = self.validate(self.network)  # which a signal may stop: nothing has changed by then
            self.network.train()
        state.sums, state.summed, state.due = {}, 0, False
        if self.metrics is not None:
            self.metrics.add(state.step, "train", means | rate)
            self.metrics.add(state.step, "validation", scores)
        score = next(iter(scores.values()), None)
        if score is not None and math.isnan(score):
            raise FloatingPointError(f"pretraining: the validation score is not a number after step {state.step}.")
        if score is None or state.best is None or score > state.best:
            state.best, state.best_step, state.stale = score, state.step, 0
            if self.folder is None:
                keep = score is not None
                self._best = {n: tensor.clone() for n, tensor in self.network.state_dict().items()} if keep else None
            elif self.ranks.first:
                save_checkpoint(self.folder / BEST, self.network, state, run=self.run_mark)
        else:
            state.stale += 1
        state.finished = state.step >= self.total or 0 < self.patience <= state.stale

    def _save(self) -> None:
        if self.folder is not None and self.metrics is not None and self.ranks.first:
            # The loss was finite before the last step, which may have thrown the weights out: then it is not kept.
            if not all(bool(parameter.isfinite().all()) for parameter in self.parameters):
                raise FloatingPointError(
                    f"pretraining: weights are not finite after step {self.state.step} of {self.total}. The last "
                    f"checkpoint is intact; lower the rate (now {self.options.rate})."
                )
            require_there(self.folder)
            self.metrics.save()
            self.state.log = self.metrics.digest()
            keep_previous(self.folder)
            save_checkpoint(self.folder / LAST, self.network, self.state, self.optimiser, run=self.run_mark)


def _initial(dataset: Dataset, options: Pretraining, seed: int) -> Standardised:
    if dataset.classes < 2:
        raise ValueError(f"pretraining: {dataset} has {dataset.classes} class; at least 2 are needed to learn from.")
    if len(dataset.feature_shape) != 3:
        raise ValueError(
            f"pretraining: {dataset} has rows of shape {list(dataset.feature_shape)}; "
            "images [channels, height, width] are needed."
        )
    # On the CPU whatever the device, without touching the caller's random state.
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds every accelerator too.
        torch.default_generator.manual_seed(generator(seed, 0, "pretraining weights").initial_seed())
        network = Standardised(options.network.build(dataset.classes, dataset.feature_shape[0]))
    smallest, side = network.backbone.smallest, options.augmentation.side
    seen = list(dataset.feature_shape[1:]) if side is None else [side, side]
    if min(seen) < smallest:
        raise ValueError(
            f"pretraining: {dataset} has images of {seen} pixels, as the network sees them; "
            f"{type(network.backbone).__name__} needs {smallest} or more."
        )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _restore_format(optimiser: torch.optim.Optimizer) -> None:
    """Moments come from a file in plain order; beside weights whose channels are last they would be slow."""
    for parameter, moments in optimiser.state.items():
        assert isinstance(parameter, nn.Parameter)
        for name, value in moments.items():
            if torch.is_tensor(value) and value.dim() == 4:
                moments[name] = value.contiguous(memory_format=torch.channels_last)
