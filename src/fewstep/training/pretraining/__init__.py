"""Stage 1 of methods that adapt on features: base classification, and the features of all images."""

from typing import TYPE_CHECKING

from fewstep.core.lazy import lazily

if TYPE_CHECKING:
    from fewstep.training.pretraining.extractor import FeatureExtractor
    from fewstep.training.pretraining.features import cached_features, embed
    from fewstep.training.pretraining.options import Architecture, Pretraining
    from fewstep.training.pretraining.pretrainer import Pretrainer, pretrain
    from fewstep.training.pretraining.standardised import Standardised
    from fewstep.training.pretraining.validation import nearest_mean_scores
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = [
    "Architecture",
    "FeatureExtractor",
    "Pretrainer",
    "Pretraining",
    "Standardised",
    "cached_features",
    "embed",
    "nearest_mean_scores",
    "pretrain",
]
