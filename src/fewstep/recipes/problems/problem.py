"""A problem: what a recipe's data open into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from fewstep.data import Dataset, TaskSource
    from fewstep.evaluation.baselines import Baseline
    from fewstep.training.pretraining import FeatureExtractor

Split = Literal["train", "val", "test"]


SPLITS: tuple[Split, ...] = ("train", "val", "test")


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
        examples: those of meta-training, as they are; None where there are none, or a loaded run is without its data.
        fingerprints: by which the data of each split are known again; of what is computed there are none.
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
    examples: Callable[[], Dataset] | None = None
    fingerprints: Callable[[], dict[str, str]] = dict

    def most_queries(self, split: Split, wanted: int) -> int | None:
        """So many queries of each class of a task; None, all that there are, where some class has fewer."""
        source = self.source(split, tasks=1, seed=0)
        examples, shots = getattr(source, "dataset", None), getattr(source, "shots", 0)
        return None if examples is None or examples.sizes.min() < wanted + shots else wanted

    @property
    def of_features(self) -> bool:
        """Whether inputs are feature vectors, rather than images or numbers."""
        return len(self.inputs) == 1 and not self.regression
