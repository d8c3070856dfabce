"""Omniglot on features of a small network that is pre-trained first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fewstep.recipes.problems.images import OmniglotImages, fingerprints_of
from fewstep.recipes.problems.problem import SPLITS, Problem, Split
from fewstep.training.pretraining import Pretraining

if TYPE_CHECKING:
    from fewstep.data import Dataset
    from fewstep.training import State
    from fewstep.training.device import Place
    from fewstep.training.pretraining import FeatureExtractor

SECONDS_BETWEEN_REPORTS = 10.0
"""Of what takes time before meta-training begins."""


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
        from fewstep.training.pretraining import cached_features, embed
        from fewstep.training.pretraining.report import how_far

        images = {split: self.examples(split, report) for split in SPLITS}
        if extractor is None:
            told, rows = 0.0, len(images["train"])
            batches = self.pretraining.epochs * (rows // min(self.pretraining.batch, rows))

            def progress(state: State, metrics: dict[str, float]) -> None:
                nonlocal told
                if state.seconds - told > SECONDS_BETWEEN_REPORTS:
                    told = state.seconds
                    shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
                    far = how_far(state.step, batches, state.seconds / state.step, "batches")
                    report(f"pretraining: {far}, {shown}")

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
            examples=lambda: dataset("train"),
            fingerprints=lambda: fingerprints_of(images),
        )
