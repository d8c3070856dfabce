"""Stage 1 of methods that adapt on features: base classification, and the features of all images."""

from fewstep.pretraining.extractor import FeatureExtractor
from fewstep.pretraining.features import cached_features, embed
from fewstep.pretraining.options import Architecture, Pretraining
from fewstep.pretraining.pretrainer import Pretrainer, pretrain
from fewstep.pretraining.standardised import Standardised
from fewstep.pretraining.validation import nearest_mean_scores

__all__ = [
    "Architecture", "FeatureExtractor", "Pretrainer", "Pretraining", "Standardised", "cached_features", "embed",
    "nearest_mean_scores", "pretrain",
]  # fmt: skip
