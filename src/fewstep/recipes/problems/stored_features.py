"""Tasks on stored feature vectors: the published embeddings, or those of any backbone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fewstep import data
from fewstep.data.checks import check_lengths, without_length
from fewstep.data.images.class_splits import all_classes
from fewstep.recipes.problems.images import Classification, fingerprints_of
from fewstep.recipes.problems.problem import Problem, Split

if TYPE_CHECKING:
    from fewstep.training.device import Place
    from fewstep.training.pretraining import FeatureExtractor


@dataclass(frozen=True)
class Embeddings(Classification):
    """Feature vectors of images, made once by a network that has seen the meta-training classes alone."""

    needs: ClassVar[str] = (
        "miniImageNet, tieredImageNet: `fewstep data leo-embeddings`, once. Other features: --data.path FILE, of any "
        "format that `fewstep data inspect FILE` reads, with its splits"
    )

    dataset: str = "own"
    """Whose images they are; the published embeddings are found by it: miniImageNet, tieredImageNet. Where the classes
    of a file are others than those of the dataset, and where it is "own", reports name the file."""
    path: str | None = None
    """File or folder of the features. None: the published ones, where `fewstep data leo-embeddings` has put them."""
    views: Literal["center", "multiview"] = "center"
    """Of the published ones: of the centre crop, or the mean over corners, centre and their mirrors (miniImageNet)."""
    train_on: Literal["train", "trainval"] = "train"
    """Classes of training tasks. "trainval" adds those of validation, as in the last stage of LEO's paper: scores on
    validation, which still choose the best meta-step, are then of classes that were trained on."""
    normalise: bool = True
    """Scale every feature vector to length 1, as the LEO authors' code does."""

    def open(self, place: Place, report: Callable[[str], None], extractor: FeatureExtractor | None = None) -> Problem:
        """Sources of tasks on the features; with the network that made them, where `fewstep embed` has kept it.

        That is the file ``photos.extractor.safetensors`` beside ``photos.npz``. One that belongs to other features, or
        is damaged, is left aside, and ``report`` is told. A run keeps a copy of its own, which comes back as
        ``extractor``: then the file is not looked at.
        """
        problem = super().open(place, report)
        problem = replace(problem, normalise=self.normalise, fingerprints=lambda: fingerprints_of(self._stored()))
        kept = extractor or self._extractor(report)
        if kept is None:
            return problem
        kept.normalise = self.normalise
        return replace(problem, extractor=kept.to(place.device))

    def _extractor(self, report: Callable[[str], None]) -> FeatureExtractor | None:
        from fewstep.data.features.export import extractor_beside, features_digest
        from fewstep.training.pretraining import FeatureExtractor
        from fewstep.training.pretraining.extractor import features_of

        file = extractor_beside(self._place())
        if not file.is_file():
            return None
        try:
            if features_of(file) == features_digest(data.embeddings(self._place(), "all", normalise=False)):
                return FeatureExtractor.load(file)
            why = f"{file} belongs to other features than {self._place()}"
        except ValueError as error:
            why = str(error)
        report(
            f"warning: {why}; it is ignored, so that this run can classify features and no images. Make both anew "
            "by `fewstep embed`"
        )
        return None

    def examples(self, split: Split, report: Callable[[str], None]) -> data.Dataset:
        """The features of a split, in memory where they are of moderate size.

        Raises:
            FileNotFoundError: when they are not there; the message says how to get them.
            ValueError: as :func:`fewstep.data.embeddings` says, and for rows that have no length as they are used.
        """
        import torch

        part = self.train_on if split == "train" else split
        stored = data.embeddings(self._place(), part, normalise=self.normalise, report=report)
        held = stored.in_memory()
        for some in held.blocks() if held is not stored else ():  # of larger ones, `report` is told
            if bool(without_length(rows := held.gather(some)).any()):
                check_lengths(rows, stored.transformed(None).gather(some, dtype=torch.float64), str(stored))
        return held

    def _stored(self) -> dict[Split, data.Dataset]:
        """The features of all splits as they are in their file."""
        parts: dict[Split, Literal["train", "val", "trainval", "test"]]
        parts = {"train": self.train_on, "val": "val", "test": "test"}
        return {split: data.embeddings(self._place(), part, normalise=False) for split, part in parts.items()}

    def _place(self) -> Path:
        from fewstep.data.storage.cache import cache_folder

        if self.path is not None:
            return Path(self.path)
        if self.dataset not in ("miniImageNet", "tieredImageNet"):
            raise ValueError(
                f"the features of {self.dataset} are yours to give: --data.path FILE (.npz, .npy, .safetensors or a "
                "folder; `fewstep data inspect FILE` says whether it will do)."
            )
        if self.views == "multiview" and self.dataset != "miniImageNet":
            raise ValueError(f"no multiview embeddings of {self.dataset} were published: take --data.views center.")
        folder = cache_folder() / "leo-embeddings" / "embeddings" / self.dataset / self.views
        if not folder.is_dir():
            raise FileNotFoundError(
                f"the published embeddings of {self.dataset} are not in {folder}: fetch them by `fewstep data "
                "leo-embeddings`, or give their folder, which holds train_embeddings.pkl and others, by --data.path."
            )
        return folder

    def _digest(self) -> str:
        """Tells features from others at the same place: of a row of every test class, as it is stored."""
        stored = data.embeddings(self._place(), "test", normalise=False)
        import torch

        rows = stored.gather(stored.offsets[:-1], dtype=torch.float64)
        return hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:8]

    def _title(self, examples: dict[Split, data.Dataset]) -> str:
        """Whose images they are, as far as that can be seen: a recipe for one dataset takes features of any other."""
        if self.path is None:
            return self.dataset
        try:
            known = {*all_classes(self.dataset)}
        except KeyError:  # a name of the user's own, which nothing is known of
            return Path(self.path).name if self.dataset == "own" else self.dataset
        right = all({*dataset.class_names} <= known for dataset in examples.values())
        return self.dataset if right else Path(self.path).name

    def _protocol(self, examples: dict[Split, data.Dataset]) -> dict[str, Any]:
        place = f"published, {self.views}" if self.path is None else Path(self.path).name
        stated = {
            "dataset": self._title(examples),
            "features": f"{examples['test'].feature_shape[0]}-d, {place}, {self._digest()}",
            "features normalised": self.normalise,
            "trained on": {"train": "training classes", "trainval": "training and validation classes"}[self.train_on],
        }
        return stated | super()._protocol(examples)
