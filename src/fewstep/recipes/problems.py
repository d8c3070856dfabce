"""Where tasks come from: typed descriptions of data that open into task sources."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from fewstep.data import (
    Augmentation,
    Augmented,
    Dataset,
    EpisodeSampler,
    Oscillations,
    OscillatorPrior,
    SineOrLine,
    Sinusoids,
    TaskSource,
    cifar_fs,
    fc100,
    mini_imagenet,
    omniglot,
    tiered_imagenet,
)
from fewstep.evaluation import autoregression, bayes_forecast
from fewstep.evaluation.autoregression import AUTOREGRESSION
from fewstep.evaluation.baselines import Baseline
from fewstep.evaluation.exact_forecast import EXACT_FORECAST
from fewstep.place import Place
from fewstep.pretraining import FeatureExtractor, Pretraining, cached_features, embed
from fewstep.training import State

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

SECONDS_BETWEEN_REPORTS = 10.0
"""Of what takes time before meta-training begins."""


@dataclass(frozen=True)
class Problem:
    """Opened data.

    Attributes:
        source: task source of a split: ``source(split, tasks, seed, **changes)`` where changes are ``ways``, ``shots``
            and ``queries`` (None: all remaining examples).
        inputs: shape of one input.
        outputs: width of a prediction: ways, or regression targets.
        protocol: the data's part of what a result must state.
        extractor: images to the features that tasks hold, if they hold features.
        regression: targets are numbers rather than classes.
        normalise: inputs are feature vectors that were scaled to length 1, as those that are to be classified must be.
        baselines: what a test of a regression scores beside the method, by name: predictors without meta-learning.
        yardsticks: more of them, which take their time, such as what is best possible.
    """

    source: Callable[..., TaskSource]
    inputs: tuple[int, ...]
    outputs: int
    protocol: dict[str, Any]
    extractor: FeatureExtractor | None = None
    regression: bool = False
    normalise: bool = False
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    yardsticks: Mapping[str, Baseline] = field(default_factory=dict)

    @property
    def of_features(self) -> bool:
        """Whether inputs are feature vectors, rather than images or numbers."""
        return len(self.inputs) == 1 and not self.regression


@dataclass(frozen=True)
class Regression(ABC):
    """Few-shot regression of functions that are drawn: what every family of functions has in common."""

    needs: ClassVar[str] = "nothing: functions are drawn"
    """What a user must have or fetch."""

    shots: int = 5
    """K, support points."""
    queries: int = 20
    """Query points in training."""

    def open(self, place: Place, report: Callable[[str], None], extractor: FeatureExtractor | None = None) -> Problem:
        """Sources of functions; training, validation and test draw from independent streams."""
        sampler, protocol, (inputs, outputs) = self._sampler(), self._protocol(), self._widths()

        def source(
            split: Split, tasks: int, seed: int, shots: int | None = None, queries: int | None = None
        ) -> TaskSource:
            return sampler(
                shots=shots or self.shots,
                queries=self.queries if split == "train" else queries or 100,
                tasks=tasks,
                seed=seed,
                stream=f"{protocol['dataset']}/{split}",
                dtype=place.dtype,
                device=place.device,
            )

        baselines, yardsticks = self._rivals()
        return Problem(
            source, (inputs,), outputs, protocol, regression=True, baselines=baselines, yardsticks=yardsticks
        )

    @abstractmethod
    def _sampler(self) -> Callable[..., TaskSource]:
        """Makes a source: what these tasks add to the arguments that all have."""

    @abstractmethod
    def _protocol(self) -> dict[str, Any]:
        """What a result must state."""

    def _widths(self) -> tuple[int, int]:
        """Numbers in an input and in a target."""
        return 1, 1

    def _rivals(self) -> tuple[dict[str, Baseline], dict[str, Baseline]]:
        """Baselines and yardsticks, see :class:`Problem`."""
        return {}, {}


@dataclass(frozen=True)
class SinusoidTasks(Regression):
    """Regression of sine curves (Finn et al. 2017, section 5.1)."""

    needs: ClassVar[str] = "nothing: curves are drawn"
    """What a user must have or fetch."""

    shots: int = 10
    """K, support points in training."""
    queries: int = 10
    """Query points in training."""
    frequency: tuple[float, float] = (1.0, 1.0)
    """Range of ω; MAML's curves all have ω = 1."""

    def _sampler(self) -> Callable[..., TaskSource]:
        return functools.partial(Sinusoids, frequency=self.frequency)

    def _protocol(self) -> dict[str, Any]:
        return {
            "dataset": "sinusoids",
            "amplitude": [0.1, 5.0],
            "phase": [0, "π"],
            "frequency": list(self.frequency),
        }


@dataclass(frozen=True)
class SineOrLineTasks(Regression):
    """Noisy sine curves and noisy lines (Rusu et al. 2019, appendix A.1)."""

    queries: int = 20
    """Query points in training; the paper does not say how many it has."""
    noise: float = 0.3
    """Standard deviation of the noise of all targets."""

    def _sampler(self) -> Callable[..., TaskSource]:
        return functools.partial(SineOrLine, noise=self.noise)

    def _protocol(self) -> dict[str, Any]:
        return {"dataset": "sine or line", "noise": self.noise}


@dataclass(frozen=True)
class OscillationTasks(Regression):
    """Damped oscillations to forecast from their first values: a sequence task, of no paper."""

    needs: ClassVar[str] = "nothing: oscillators are drawn"
    """What a user must have or fetch."""

    shots: int = 5
    """K, support trajectories."""
    queries: int = 15
    """Query trajectories in training."""
    noise: float = 0.1
    """Standard deviation of the noise of all observations."""
    seen: int = 5
    """Values of a trajectory that are given."""
    ahead: int = 20
    """Values to forecast, which follow them."""

    def _sampler(self) -> Callable[..., TaskSource]:
        return functools.partial(Oscillations, noise=self.noise, seen=self.seen, ahead=self.ahead)

    def _protocol(self) -> dict[str, Any]:
        stated = {"dataset": "oscillations", "noise": self.noise, "seen": self.seen, "ahead": self.ahead}
        prior = {name: list(bounds) for name, bounds in asdict(OscillatorPrior()).items()}
        return stated | prior | {"interval": Oscillations.interval}

    def _widths(self) -> tuple[int, int]:
        return self.seen, self.ahead

    def _rivals(self) -> tuple[dict[str, Baseline], dict[str, Baseline]]:
        best = functools.partial(
            bayes_forecast, prior=OscillatorPrior(), noise=self.noise, interval=Oscillations.interval
        )
        # Of a single value no trend is to be seen, and without noise the posterior is a point.
        quick: dict[str, Baseline] = {AUTOREGRESSION: autoregression} if self.seen > 1 else {}
        return quick, {EXACT_FORECAST: best} if self.noise > 0 else {}


@dataclass(frozen=True)
class Classification(ABC):
    """Few-shot classification: what every dataset of classes has in common."""

    needs: ClassVar[str] = "nothing: the data comes with the package"
    """What a user must have or fetch."""

    ways: int = 5
    """N, classes in a task."""
    shots: int = 1
    """K, support examples of each class."""
    queries: int = 15
    """Query examples of each class, in training."""
    train_ways: int | None = None
    """Classes in a training task, for methods that take any number. None: as many as in a test task."""
    train_shots: int | None = None
    """Support examples of each class in a training task. None: as many as in a test task."""

    @abstractmethod
    def examples(self, split: Split, report: Callable[[str], None]) -> Dataset:
        """The examples of a split; ``report`` is told what takes time."""

    def open(self, place: Place, report: Callable[[str], None], extractor: FeatureExtractor | None = None) -> Problem:
        """Sources of tasks on the examples as they are."""
        examples = {split: self.examples(split, report) for split in SPLITS}
        source, shape = self._source(examples.__getitem__, place), examples["test"].feature_shape
        return Problem(source, shape, self.ways, self._protocol(examples), normalise=self._normalised())

    def _normalised(self) -> bool:
        return False

    def _source(self, dataset: Callable[[Split], Dataset], place: Place) -> Callable[..., TaskSource]:
        def source(
            split: Split,
            tasks: int,
            seed: int,
            ways: int | None = None,
            shots: int | None = None,
            queries: int | None = None,
        ) -> TaskSource:
            sampler = EpisodeSampler(
                dataset(split),
                ways=ways or ((self.train_ways or self.ways) if split == "train" else self.ways),
                shots=shots or ((self.train_shots or self.shots) if split == "train" else self.shots),
                queries=self.queries if split == "train" else queries,
                tasks=tasks,
                seed=seed,
                stream=f"episodes/{split}",
                dtype=place.dtype,
                device=place.device,
            )
            return self._augmented(sampler) if split == "train" else sampler

        return source

    def _augmented(self, sampler: EpisodeSampler) -> TaskSource:
        return sampler

    def _protocol(self, examples: dict[Split, Dataset]) -> dict[str, Any]:
        return {
            "training": f"{self.train_ways or self.ways}-way {self.train_shots or self.shots}-shot",
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

    def examples(self, split: Split, report: Callable[[str], None]) -> Dataset:
        """The images of a split, ink = 1."""
        return omniglot(
            split, scheme=self.scheme, rotations=self.rotations if split == "train" else self.test_rotations
        )

    def _protocol(self, images: dict[Split, Dataset]) -> dict[str, Any]:
        stated = {"dataset": "Omniglot", "split": self.scheme}
        return stated | super()._protocol(images) | {"test rotations": self.test_rotations}


@dataclass(frozen=True)
class Photographs(Classification):
    """Colour images, which a training task may show changed."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of the images of training tasks; none by default."""

    def _augmented(self, sampler: EpisodeSampler) -> TaskSource:
        changes = self.augmentation != Augmentation()
        return Augmented(sampler, self.augmentation, sampler.seed) if changes else sampler

    def _protocol(self, images: dict[Split, Dataset]) -> dict[str, Any]:
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

    def examples(self, split: Split, report: Callable[[str], None]) -> Dataset:
        """The images of a split."""
        load = cifar_fs if self.dataset == "cifar-fs" else fc100
        return load(split, path=self.path, report=report)

    def _protocol(self, images: dict[Split, Dataset]) -> dict[str, Any]:
        return {"dataset": {"cifar-fs": "CIFAR-FS", "fc100": "FC100"}[self.dataset]} | super()._protocol(images)


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
    size: int = 84
    """Side to which images are reduced."""

    def examples(self, split: Split, report: Callable[[str], None]) -> Dataset:
        """The images of a split.

        Raises:
            ValueError: when no folder was given.
        """
        if self.path is None:
            raise ValueError(
                f"{self.dataset} cannot be downloaded freely: give the folder of its images by --data.path, with a "
                "folder per class named by its WordNet number, or Ravi's images/ and train.csv, val.csv, test.csv."
            )
        load = mini_imagenet if self.dataset == "miniImageNet" else tiered_imagenet
        return load(split, self.path, size=self.size, report=report)

    def _protocol(self, images: dict[Split, Dataset]) -> dict[str, Any]:
        return {"dataset": self.dataset, "size": self.size} | super()._protocol(images)


@dataclass(frozen=True)
class OmniglotFeatures(OmniglotImages):
    """The same tasks on features of a small network that was trained to name the meta-training characters."""

    pretraining: Pretraining = field(default_factory=Pretraining)
    """Stage 1."""
    layer: str = "middle"
    """Whose activations, averaged over space, are the features: not the last one's, for there the training classes are
    already told apart, so nothing would be left to meta-learn."""
    normalise: bool = True
    """Scale every feature vector to length 1, as the LEO authors' code does."""

    def open(self, place: Place, report: Callable[[str], None], extractor: FeatureExtractor | None = None) -> Problem:
        """Features of an intermediate block: computed, or taken from the cache; the same for every seed of a run.

        With the ``extractor`` that a run has kept, its features, computed for a split when that is first asked for:
        they are what the run was trained on, whatever this machine would compute.
        """
        images = {split: self.examples(split, report) for split in SPLITS}
        if extractor is None:
            told = 0.0

            def progress(state: State, metrics: dict[str, float]) -> None:
                nonlocal told
                if state.seconds - told > SECONDS_BETWEEN_REPORTS:
                    told = state.seconds
                    shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
                    report(f"pretraining: {state.step} batches, {shown}")

            features, extractor = cached_features(
                images,
                self.pretraining,
                self.layer,
                normalise=self.normalise,
                device=place.device,
                report=report,
                progress=progress,
            )
            dataset: Callable[[Split], Dataset] = features.__getitem__
        else:
            kept = extractor.to(place.device)
            dataset = functools.cache(lambda split: embed(kept, images[split], device=place.device))
        described = f"{extractor.features}-d, pooled layer {extractor.layer} of the pre-trained network"
        return Problem(
            self._source(dataset, place),
            (extractor.features,),
            self.ways,
            self._protocol(images) | {"features": described, "features normalised": self.normalise},
            extractor,
            normalise=extractor.normalise,
        )
