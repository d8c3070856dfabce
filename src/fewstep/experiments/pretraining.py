"""A pre-training: one configuration, one folder, and the networks that come of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewstep.core.modes import as_usual
from fewstep.core.ranges import as_given, require_again
from fewstep.core.ranks import ALONE, Ranks
from fewstep.data import Dataset
from fewstep.data.fingerprint import fingerprint
from fewstep.data.storage.files import read_json, sealed
from fewstep.data.storage.lock import alone_in
from fewstep.evaluation.statistics import Interval
from fewstep.evaluation.tables import write_files
from fewstep.experiments.begun import mark_of, require_same_data, tell_unfinished
from fewstep.experiments.environment import environment, resumption
from fewstep.experiments.folder import ENVIRONMENT, begin_again, clear, is_unfinished, require_empty
from fewstep.experiments.pretraining_config import CONFIG, PretrainingConfig, Views, from_anywhere
from fewstep.training.checkpoint import BEST, load_checkpoint
from fewstep.training.device import device_here, device_of_trained, prepare_device
from fewstep.training.pretraining import FeatureExtractor, Pretrainer, Standardised, embed, nearest_mean_scores
from fewstep.training.pretraining.options import structure, unstructure
from fewstep.training.pretraining.pretrainer import Progress
from fewstep.training.pretraining.report import write_report

logger = logging.getLogger("fewstep")

NETWORK, SCORES = "network.json", "scores.json"

BEGINNING = (ENVIRONMENT, NETWORK)
"""What a beginning writes before the configuration."""

SHOTS = (1, 5)
"""Support sizes at which features are scored."""


class PretrainingRun:
    """A folder with the configuration, log, checkpoints, scores and report of one pre-training.

    ``pretraining.json`` · ``network.json`` · ``environment.json`` · ``metrics.csv`` · the checkpoints ``last`` and
    ``best`` · ``scores.json`` · ``report.md`` · ``learning_curves.png``

    Args:
        config: what was, or will be, trained.
        folder: where.
        note: is given a line about what takes time.
    """

    def __init__(self, config: PretrainingConfig, folder: Path, note: Callable[[str], None] = logger.info) -> None:
        self.config, self.folder, self.note = config, folder, note
        self.device = prepare_device(config.device, "float32", config.threads).device
        self._images: dict[str, Dataset] = {}
        self.resumed = (folder / CONFIG).exists()

    ranks: Ranks = ALONE
    """The processes that share its batches out; the first one writes."""

    @classmethod
    def create(
        cls, config: PretrainingConfig, folder: str | Path, note: Callable[[str], None] = logger.info
    ) -> PretrainingRun:
        """Start a new one.

        Raises:
            ValueError: when the folder already holds files, or the images have no base classes.
        """
        folder = Path(folder)
        begin_again(folder, "pre-training", CONFIG, BEGINNING)
        config = replace(config, images=from_anywhere(config.images), device=device_here(config.device))
        run = cls(config, folder, note)
        base = run.images("train")
        inputs, size, *_ = base.feature_shape
        facts: dict[str, Any] = {"classes": base.classes, "inputs": inputs, "size": size, "images": len(base)}
        facts["class_names"] = list(base.class_names)
        facts["data"] = {split: fingerprint(run.images(split)) for split in config.images.splits()}
        machine = environment(config.device, "float32")
        with alone_in(folder):
            require_empty(folder, "pre-training", CONFIG)
            # The configuration is written last: with it, a beginning is complete.
            write_files(folder, {ENVIRONMENT: sealed(machine), NETWORK: facts, CONFIG: unstructure(config)})
        return run

    @classmethod
    def resume(
        cls, folder: str | Path, note: Callable[[str], None] = logger.info, device: str | None = None
    ) -> PretrainingRun:
        """One that was begun, to go on with: as :meth:`open`, without what a killed process has left in the folder.

        Raises:
            ValueError: as :meth:`open`, and when another process works there.
        """
        run = cls.open(folder, note, device)
        require_again(run.config)
        with alone_in(run.folder):
            clear(run.folder)
        return run

    @classmethod
    def open(
        cls, folder: str | Path, note: Callable[[str], None] = logger.info, device: str | None = None
    ) -> PretrainingRun:
        """One that was begun: to go on with, to the same bits as if it had not been stopped, or to embed with.

        Args:
            folder: its folder.
            note: is given a line about what takes time.
            device: to compute on, see :func:`~fewstep.training.device.device_of_trained`; "auto" when omitted.

        Raises:
            ValueError: when the folder holds none, or there is no such device.
        """
        folder = Path(folder)
        path = folder / CONFIG
        if not path.exists():
            raise ValueError(
                f"{folder} was not begun to its end: nothing is lost; give the command that began it once more, with "
                f"--out {folder}."
                if is_unfinished(folder, BEGINNING)
                else f"{folder} is no pre-training: it has no {CONFIG}. Give a folder of `fewstep pretrain`."
            )
        with as_given():
            try:
                config = structure(read_json(path), PretrainingConfig)
            except ValueError as error:
                raise ValueError(f"{path} is not a configuration of this version of fewstep: {error}") from error
            config = replace(config, device=device_of_trained(config.device, device or "auto", note))
        return cls(config, folder, note)

    @classmethod
    def joined(cls, begin: Callable[[], PretrainingRun], folder: Path, ranks: Ranks) -> PretrainingRun:
        """One that several processes work on: the first one begins it, or goes on, and the others open it then.

        Args:
            begin: what the first one does.
            folder: of the pre-training.
            ranks: the processes.

        Raises:
            RankLost: when the first one could not.
        """
        run = begin() if ranks.first else None
        ranks.wait()
        run = cls.open(folder, logger.debug) if run is None else run
        run.ranks = ranks
        return run

    def images(self, split: str) -> Dataset:
        """The images of a split, read once."""
        if split not in self._images:
            images = self.config.images.examples(split, self.note)
            kept = read_json(self.folder / NETWORK).get("data", {})  # of a beginning there are none
            now = {split: fingerprint(images)} if split in kept else {}
            require_same_data(self.folder, kept, now, self.config.images.title)
            self._images[split] = images
        return self._images[split]

    @property
    def trainer(self) -> Pretrainer:
        """A trainer that goes on from where the folder stands.

        Raises:
            ValueError: when the images are others than those that the folder was begun with.
        """
        base, known = self.images("train"), self.facts
        if [list(base.class_names), len(base)] != [known["class_names"], known["images"]]:
            raise ValueError(
                f"{self.folder} was begun on {known['images']} images of {known['classes']} classes, and "
                f"{self.config.images.title} has {len(base)} of {base.classes} (or other ones) now: restore the "
                "images, or begin anew in another folder."
            )
        validated = "val" in self.config.images.splits() and self.images("val").classes > 1
        if not validated:
            self.note(f"{self.config.images.title} has no validation classes: the last network will be the best one")
        return Pretrainer(
            base,
            self.config.training,
            seed=self.config.seed,
            device=self.device,
            folder=self.folder,
            validate=self._validate if validated else None,
            patience=self.config.patience,
            run=mark_of(self.folder, CONFIG, NETWORK),
            ranks=self.ranks,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What is known of the network besides its configuration: ``classes``, ``inputs``, ``size``.

        Raises:
            ValueError: when the file is gone or damaged.
        """
        found = read_json(self.folder / NETWORK)
        if not found:
            raise ValueError(f"{self.folder} has lost its {NETWORK}: restore it, or pretrain anew in another folder.")
        return found

    def train(self, progress: Progress | None = None) -> Pretrainer:
        """Train from where the folder stands to the end."""
        with alone_in(self.folder) if self.ranks.first else nullcontext():
            trainer = self.trainer
            if self.ranks.first and self.resumed and not trainer.state.finished:
                before = read_json(self.folder / ENVIRONMENT)
                facts, told = resumption(before, self.config.device, "float32", trainer.state.step)
                write_files(self.folder, {ENVIRONMENT: sealed(facts)})
                if told:
                    self.note(f"going on, to other last digits perhaps ({'; '.join(told)})")
            self.resumed = True
            trainer.run(progress)
        return trainer

    def _validate(self, network: Standardised) -> dict[str, float]:
        extractor = FeatureExtractor(network, self.config.training.network, "last", side=self.side)
        precision = self.config.training.resolved(self.device).precision
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            features = embed(extractor, self.images("val"), device=self.device, ranks=self.ranks)
        scores = nearest_mean_scores(features, shots=SHOTS, tasks=self.config.validation_tasks)
        return {f"nearest class mean, {shots}-shot": score.mean for shots, score in scores.items()}

    @property
    def side(self) -> int | None:
        """Of the network's view of an image; None for the whole image."""
        return self.config.training.augmentation.side

    @as_usual
    def extractor(self, layer: str = "middle", views: Views = "center", *, normalise: bool = False) -> FeatureExtractor:
        """Images to features, by the best network; of a training that has not ended, the best so far, which is said.

        The centre of an image is as large as in training. So are the corners and centre of ``"multiview"``; where
        training saw whole images they have ⅞ of the side, as 28 of 32 pixels.

        Args:
            layer: whose activations, averaged over space: see :meth:`Backbone.layer
                <fewstep.networks.backbone.Backbone.layer>`.
            views: one view or ten.
            normalise: scale vectors to length 1.

        Raises:
            ValueError: when nothing has been trained yet, or there is no such layer.
        """
        best = self.folder / BEST
        if not best.exists():
            raise ValueError(
                f"{self.folder} has no trained network yet: continue it with fewstep pretrain --resume {self.folder}."
            )
        facts, architecture = self.facts, self.config.training.network
        network = Standardised(architecture.build(facts["classes"], facts["inputs"]))
        load_checkpoint(best, network, run=mark_of(self.folder, CONFIG, NETWORK))
        tell_unfinished(self.folder, self.note)
        side = self.side
        if side is None and views == "multiview":
            side = round(facts["size"] * 7 / 8)
        extractor = FeatureExtractor(network, architecture, layer, views=views, side=side, normalise=normalise)
        return extractor.to(self.device)

    @as_usual
    def score(self) -> dict[str, dict[str, dict[int, Interval]]]:
        """Nearest class mean on validation and test classes, by layer, split and shots; written with the report."""
        splits = [split for split in self.config.images.splits() if split != "train"]
        scores: dict[str, dict[str, dict[int, Interval]]] = {}
        for layer in ("middle", "last"):
            extractor = self.extractor(layer, normalise=True)
            scores[extractor.layer] = {}
            for split in splits:
                self.note(f"features of layer {extractor.layer}, {split}")
                features = embed(extractor, self.images(split), device=self.device)
                scores[extractor.layer][split] = nearest_mean_scores(features, shots=SHOTS)
        plain = {
            layer: {split: {shots: vars(score) for shots, score in by.items()} for split, by in of.items()}
            for layer, of in scores.items()
        }
        write_files(self.folder, {SCORES: plain})
        write_report(self.folder)
        return scores
