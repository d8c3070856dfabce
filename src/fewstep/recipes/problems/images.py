"""Few-shot classification of images: typed descriptions of data that open into task sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fewstep import data
from fewstep.core.ranges import Count, Ways, require_ranges
from fewstep.data import Augmentation
from fewstep.recipes.problems.problem import SPLITS, Problem, Split

if TYPE_CHECKING:
    from fewstep.training.device import Place
    from fewstep.training.pretraining import FeatureExtractor


def fingerprints_of(examples: Mapping[Split, data.Dataset]) -> dict[str, str]:
    """Of each split."""
    from fewstep.data.fingerprint import fingerprint

    return {split: fingerprint(dataset) for split, dataset in examples.items()}


@dataclass(frozen=True)
class Classification(ABC):
    """Few-shot classification: what every dataset of classes has in common."""

    needs: ClassVar[str] = "nothing: the data comes with the package"
    """What a user must have or fetch."""

    ways: Ways = 5
    """N, classes in a task."""
    shots: Count = 1
    """K, support examples of each class."""
    queries: Count = 15
    """Query examples of each class, in training."""
    queries_of: Literal["class", "task"] = "class"
    """Or of each task, of whatever classes (TADAM)."""
    train_ways: Ways | None = None
    """Classes in a training task, for methods that take any number; all of them where there are fewer. None: as many as
    in a test task."""
    train_shots: Count | None = None
    """Support examples of each class in a training task. None: as many as in a test task."""
    fewest_shots: Count | None = None
    """Draw for each training task how many support examples its classes have, from this to as many as that (SNAIL: 1
    to 5). None: always as many."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.")
        # A kept configuration is read from anywhere: where its data are must not depend on where that is.
        if (path := getattr(self, "path", None)) is not None:
            object.__setattr__(self, "path", str(Path(path).absolute()))

    @abstractmethod
    def examples(self, split: Split, report: Callable[[str], None]) -> data.Dataset:
        """The examples of a split; ``report`` is told what takes time."""

    def open(self, place: Place, report: Callable[[str], None], extractor: FeatureExtractor | None = None) -> Problem:
        """Sources of tasks on the examples as they are."""
        examples = {split: self.examples(split, report) for split in SPLITS}
        return self.problem_of(examples, place, self._protocol(examples))

    def problem_of(self, examples: dict[Split, data.Dataset], place: Place, protocol: dict[str, Any]) -> Problem:
        """Sources of tasks on given examples, of all splits or of some."""
        source, shape = self._source(examples.__getitem__, place), examples["train"].feature_shape
        return Problem(
            source,
            shape,
            self.ways,
            protocol,
            examples=lambda: examples["train"],
            fingerprints=lambda: fingerprints_of(examples),
        )

    def _source(self, dataset: Callable[[Split], data.Dataset], place: Place) -> Callable[..., data.TaskSource]:
        def source(
            split: Split,
            tasks: int,
            seed: int,
            ways: int | None = None,
            shots: int | None = None,
            queries: int | None = None,
        ) -> data.TaskSource:
            examples = dataset(split)
            own = (self._train_ways(examples), self._train_shots) if split == "train" else (self.ways, self.shots)
            sampler = data.EpisodeSampler(
                examples,
                ways=own[0] if ways is None else ways,
                shots=own[1] if shots is None else shots,
                queries=self.queries if split == "train" else queries,
                tasks=tasks,
                seed=seed,
                stream=f"episodes/{split}",
                **asdict(place),
            )
            if split != "train":
                return sampler
            augmented = self._augmented(sampler)
            if self.queries_of == "task":
                augmented = data.AnyQueries(augmented)
            if self.fewest_shots is None:
                return augmented
            return data.FewerShots(augmented, sampler.shots, self.fewest_shots, seed=seed)

        return source

    def _augmented(self, sampler: data.EpisodeSampler) -> data.TaskSource:
        return sampler

    def _train_ways(self, examples: data.Dataset) -> int:
        return self.ways if self.train_ways is None else min(self.train_ways, max(self.ways, examples.classes))

    @property
    def _train_shots(self) -> int:
        return self.shots if self.train_shots is None else self.train_shots

    def _protocol(self, examples: dict[Split, data.Dataset]) -> dict[str, Any]:
        fewest = "" if self.fewest_shots is None else f"{self.fewest_shots}- to "
        return {
            "training": f"{self._train_ways(examples['train'])}-way {fewest}{self._train_shots}-shot",
            "classes": {split: dataset.classes for split, dataset in examples.items()},
        }


@dataclass(frozen=True)
class OmniglotImages(Classification):
    """28×28 handwritten characters; the data comes with the package."""

    scheme: Literal["vinyals", "random"] = "vinyals"
    """Vinyals' split (1028/172/423 characters), or a random 1100/100/423 one as in MAML's code."""
    rotations: bool = True
    """Training characters turned by 90°, 180° and 270° are classes of their own."""
    test_rotations: bool = False
    """The same for validation and test."""

    def examples(self, split: Split, report: Callable[[str], None]) -> data.Dataset:
        """The images of a split, ink = 1."""
        rotations = self.rotations if split == "train" else self.test_rotations
        return data.omniglot(split, scheme=self.scheme, rotations=rotations, report=report)

    def _protocol(self, images: dict[Split, data.Dataset]) -> dict[str, Any]:
        stated = {"dataset": "Omniglot", "split": self.scheme}
        return stated | super()._protocol(images) | {"test rotations": self.test_rotations}


@dataclass(frozen=True)
class Photographs(Classification):
    """Colour images, which a training task may show changed."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of the images of training tasks; none by default."""

    def _augmented(self, sampler: data.EpisodeSampler) -> data.TaskSource:
        changes = self.augmentation != Augmentation()
        return data.Augmented(sampler, self.augmentation, sampler.seed) if changes else sampler

    def _protocol(self, images: dict[Split, data.Dataset]) -> dict[str, Any]:
        shown = {"augmentation": asdict(self.augmentation)} if self.augmentation != Augmentation() else {}
        return super()._protocol(images) | shown


@dataclass(frozen=True)
class CifarImages(Photographs):
    """32×32 photographs of CIFAR-100's classes."""

    needs: ClassVar[str] = (
        "CIFAR-100's archive cifar-100-python.tar.gz (161 MB), downloaded by itself; or a local copy: --data.path"
    )

    dataset: Literal["cifar-fs", "fc100"] = "cifar-fs"
    """CIFAR-FS (64/16/20 classes) or FC100 (12/4/4 superclasses: 60/20/20 classes)."""
    path: str | None = None
    """cifar-100-python.tar.gz, the folder that it unpacks to, or a folder of images with a folder per class. None:
    download it once."""
    copies: Literal["keep", "drop"] = "keep"
    """Images that are the same as others, bit for bit: keep all as the benchmark has them, or one of each."""

    def examples(self, split: Split, report: Callable[[str], None]) -> data.Dataset:
        """The images of a split."""
        load = data.cifar_fs if self.dataset == "cifar-fs" else data.fc100
        return load(split, path=self.path, copies=self.copies, report=report)

    def _protocol(self, images: dict[Split, data.Dataset]) -> dict[str, Any]:
        stated = {"dataset": {"cifar-fs": "CIFAR-FS", "fc100": "FC100"}[self.dataset]}
        stated |= {"copies of images": "left out"} if self.copies == "drop" else {}
        return stated | super()._protocol(images)


@dataclass(frozen=True)
class ImageNetImages(Photographs):
    """Photographs of ImageNet's classes."""

    needs: ClassVar[str] = (
        "miniImageNet's (or tieredImageNet's) images, a folder per class or Ravi's CSV layout, which you may have by "
        "ImageNet's licence only: --data.path"
    )

    dataset: Literal["miniImageNet", "tieredImageNet"] = "miniImageNet"
    """miniImageNet (Ravi's split, 64/16/20 classes) or tieredImageNet (351/97/160)."""
    path: str | None = None
    """The folder of images."""
    size: Count = 84
    """Side to which images are reduced."""

    def examples(self, split: Split, report: Callable[[str], None]) -> data.Dataset:
        """The images of a split.

        Raises:
            ValueError: when no folder was given.
        """
        if self.path is None:
            raise ValueError(
                f"{self.dataset} cannot be downloaded freely: give the folder of its images by --data.path, with a "
                "folder per class named by its WordNet number, or Ravi's images/ and train.csv, val.csv, test.csv."
            )
        load = data.mini_imagenet if self.dataset == "miniImageNet" else data.tiered_imagenet
        return load(split, self.path, size=self.size, report=report)

    def _protocol(self, images: dict[Split, data.Dataset]) -> dict[str, Any]:
        return {"dataset": self.dataset, "size": self.size} | super()._protocol(images)
